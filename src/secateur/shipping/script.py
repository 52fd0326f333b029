"""`run.py`: the text of a program that puts a picture through an exported network, without PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import Template
from typing import Literal

Kind = Literal["matte", "scores", "arrays"]  # what becomes of the first output

TEMPLATE = Template('''\
"""$title. Usage: python run.py PICTURE [OUTPUT]"""
import sys
from pathlib import Path

import numpy as np
import $package
from PIL import Image, ImageOps

HEIGHT, WIDTH, MEAN, STD = $height, $width, $mean, $std
if len(sys.argv) not in (2, 3):
    sys.exit(__doc__)
picture = ImageOps.exif_transpose(Image.open(sys.argv[1]))
if picture.mode.startswith("I;16"):
    picture = Image.fromarray((np.asarray(picture) / 257).round().astype(np.uint8))
picture = picture.convert("$mode")
smaller = picture.width >= WIDTH and picture.height >= HEIGHT
resized = picture.resize((WIDTH, HEIGHT), Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR)
values = np.asarray(resized, np.float32).reshape(HEIGHT, WIDTH, -1) / 255
given = np.ascontiguousarray(((values - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)[None])
model = str(Path(__file__).with_name("$file"))
$running
$ending''')

RUNNING = {
    "onnxruntime": """\
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
outputs = session.run(None, {session.get_inputs()[0].name: given})""",
    "openvino": """\
settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
outputs = openvino.Core().compile_model(model, "CPU", settings)(given).to_tuple()""",
}
ENDINGS: dict[Kind, str] = {
    "matte": """\
target = sys.argv[2] if len(sys.argv) > 2 else "matte.png"
matte = np.asarray(Image.fromarray(outputs[0][0, 0]).resize(picture.size, Image.Resampling.BILINEAR))
Image.fromarray((matte.clip(0, 1) * 255).round().astype(np.uint8)).save(target, "PNG")
print(f"Saved: {target}")
""",
    "scores": """\
shares = np.exp(outputs[0][0] - outputs[0][0].max())
shares /= shares.sum()
text = "\\n".join(f"{shares[index]:.4f} {index}" for index in shares.argsort()[::-1][:5])
print(text)
if len(sys.argv) > 2:
    Path(sys.argv[2]).write_text(text + "\\n", encoding="utf-8")
""",
    "arrays": """\
target = sys.argv[2] if len(sys.argv) > 2 else "outputs.npz"
with open(target, "wb") as file:
    np.savez(file, **dict(zip($names, outputs)))
print(f"Saved: {target}")
""",
}


@dataclass(frozen=True)
class Picture:
    """What a network takes: its size, and how values in [0, 1] become inputs, `(picture - mean) / std`."""

    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def mode(self) -> str:
        """How Pillow calls its channels."""
        return "L" if len(self.mean) == 1 else "RGB"


def kind_of(shape: Sequence[int], is_floating: bool = True) -> Kind:
    """Tell what an output is, by its shape and whether it holds real numbers.

    A matte is (1, 1, H, W), scores are (1, K).

    Example:
        >>> kind_of((1, 1, 512, 512)), kind_of((1, 1000)), kind_of((1, 21, 64, 64))
        ('matte', 'scores', 'arrays')
        >>> kind_of((1, 1, 512, 512), is_floating=False)
        'arrays'
    """
    if not is_floating:
        return "arrays"
    match tuple(shape):
        case (1, 1, height, width) if height > 1 and width > 1:
            return "matte"
        case (1, classes) if classes > 1:
            return "scores"
    return "arrays"


def script(title: str, runtime: str, file: str, picture: Picture, kind: Kind, outputs: Sequence[str]) -> str:
    """Return the text of `run.py`.

    Args:
        title: the model and the runtime, for people.
        runtime: "onnxruntime" or "openvino".
        file: the network's name; it lies beside the program.
        picture: what the network takes.
        kind: what becomes of the first output.
        outputs: names of all of them.
    """
    return TEMPLATE.substitute(
        title=title,
        package=runtime,
        height=picture.height,
        width=picture.width,
        mean=list(picture.mean),
        std=list(picture.std),
        mode=picture.mode,
        file=file,
        running=RUNNING[runtime],
        ending=ENDINGS[kind].replace("$names", repr(list(outputs))),
    )
