"""The built-in matting networks from public pictures: `modnet`, and `modnet-small` made of it.

python recipes/modnet.py [--data DIR] [--out DIR] [--workers N] [--share 1.0]

DIR, or what SECATEUR_DATA names, holds the pictures that the networks' cards list: `cc0_portraits` and `pif_portraits`
(image/ and alpha/), `backgrounds` and `backgrounds2`, `real_gt` to judge on, and torchvision's weights as
`pretrained/mobilenet_v2-b0353104.pth`. Nothing is downloaded.

Every stage is a `secateur` command, printed before it runs, that goes on where it was stopped: start the same line
again. The full network is trained at three sizes; the small one is cut out of it, compensated, taught by it, averaged
with two networks that were trained on from it, and at last trained as it will be in INT8. People and backgrounds that
are held out are written to OUT/held-out as sets to judge on. The last stage but one of the full network, in batches of
32, wants a GPU: minutes there; without one it takes batches of 16, and most of a day on two cores.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from recipes.curves import draw_curves  # noqa: E402
from secateur.artifact.reading import load, read  # noqa: E402
from secateur.artifact.writing import save  # noqa: E402
from secateur.matting.compositing import Composites, Scene  # noqa: E402
from secateur.matting.pictures import save_picture  # noqa: E402
from secateur.matting.splitting import Split, foregrounds_folder, keep_foregrounds, split_portraits  # noqa: E402

PORTRAITS, BACKGROUNDS = ("cc0_portraits", "pif_portraits"), ("backgrounds", "backgrounds2")
PERSON = r"(\d+)$"  # comp_pub_03_017 shows the person of cc0_017
HELD_OUT = 0.15
ANNOTATED = "real_gt"  # pictures of others, to judge on alone
BACKBONE = "pretrained/mobilenet_v2-b0353104.pth"
JUDGED = 768  # pixels of the composites to judge on, as large as the portraits are
CALIBRATED = 48  # pictures
CUT_AT = "1x3x384x384"  # the size that tells what is lost with each group
QUANTIZED_AT = "1x3x512x512"  # the size of the use, at which ranges are taken
# What stays in float in INT8: what reads the picture and what all others read, and the gates, in which nothing averages
# out. ONNX Runtime's convolutions lose more, and it loses no time by more of them in float.
FIRST = ("backbone.model.features.0", "backbone.model.features.1")
GATES = "lr_branch.se_block"
FLOAT = {
    ".xml": (*FIRST, GATES),
    ".onnx": (*FIRST, GATES, *(f"backbone.model.features.{block}" for block in (2, 3, 4, 8, 9, 10, 11))),
}
CUT = ("--macs", "0.24x", "--round-to", "16")  # runtimes compute 16 channels at once; fewer would take as long
LEAN = ("--ratio", "f_branch.conv_f.0.*=0.5")  # it works at full size, where a runtime spends most of its time in INT8


@dataclass(frozen=True)
class Stage:
    """A run of `secateur train`.

    Attributes:
        name: of its folder.
        size: pixels of a sample.
        short: of a whole picture's short side in it.
        epochs: of all people.
        rate: the highest.
        batch: samples a step.
        words: further options.
        taught: whether the full network is its teacher.
    """

    name: str
    size: int
    short: tuple[int, int]
    epochs: int
    rate: float
    batch: int
    words: tuple[str, ...] = ()
    taught: bool = False

    def options(self, share: float) -> list[str]:
        """Return them for the command line; `share` shortens it."""
        words = ["--size", self.size, "--short", *self.short, "--epochs", max(1, round(self.epochs * share))]
        small = not torch.cuda.is_available() and "--only-semantic" not in self.words  # 24 GB take no more
        words += ["--rate", self.rate, "--batch", min(self.batch, MOST_WITHOUT_GPU) if small else self.batch]
        return [*map(str, words), *self.words]


MOST_WITHOUT_GPU = 16  # samples a step of the whole network
ENTROPY, SEMANTIC = ("--cross-entropy",), ("--only-semantic",)
FULL = (
    Stage("full-256", 256, (224, 420), 130, 1e-3, 8),
    Stage("full-384", 384, (320, 540), 60, 6e-4, 8),
    Stage("full-512", 512, (420, 660), 60, 4e-4, 4),
    Stage("semantic-512", 512, (420, 660), 85, 5e-4, 8, SEMANTIC),
    Stage("entropy-512", 512, (420, 660), 265, 8e-4, 32, ENTROPY),
    Stage("people-512", 512, (420, 660), 30, 4e-4, 32, SEMANTIC),
)
SMALL = (
    Stage("small-384", 384, (320, 540), 30, 8e-4, 8, ENTROPY, taught=True),
    Stage("small-semantic-512", 512, (420, 660), 100, 8e-4, 32, SEMANTIC),
    Stage("small-512", 512, (420, 660), 40, 5e-4, 16, ENTROPY, taught=True),
)
LAST = (Stage("lean-512", 512, (420, 660), 7, 4e-4, 16, ENTROPY, taught=True),)
FURTHER = (  # each from the last; what comes of them is averaged with it, by these shares
    (Stage("near-512", 512, (420, 660), 28, 4e-4, 16, ENTROPY, taught=True), 0.5),
    (Stage("lean-semantic-512", 512, (420, 660), 84, 4e-4, 32, (*SEMANTIC, *ENTROPY)), 0.25),
)
ROUNDED = ("--int8", "--keep-float", FIRST[1])
EIGHT_BITS = (Stage("int8-512", 512, (420, 660), 13, 3e-4, 16, (*ENTROPY, *ROUNDED), taught=True),)


@dataclass(frozen=True)
class Inputs:
    """The shared pictures, split by person."""

    folder: Path
    split: Split

    @classmethod
    def at(cls, folder: Path | None) -> Inputs:
        """Find them; where SECATEUR_DATA says, if no folder is given."""
        folder = Path(folder or os.environ.get("SECATEUR_DATA", ROOT / "../shared/data")).resolve()
        portraits, backgrounds = ([folder / name for name in names] for names in (PORTRAITS, BACKGROUNDS))
        return cls(folder, split_portraits(portraits, backgrounds, HELD_OUT, PERSON))

    @property
    def options(self) -> list[object]:
        """What every training of this recipe has in common."""
        words = [word for name in PORTRAITS for word in ("--data", self.folder / name)]
        words += [word for name in BACKGROUNDS for word in ("--backgrounds", self.folder / name)]
        return [*words, "--person", PERSON, "--held-out", HELD_OUT, "--resume"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "build/modnet")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--share", type=float, default=1.0, help="of the epochs, to try it out")
    given = parser.parse_args()
    inputs, out = Inputs.at(given.data), given.out
    keep_foregrounds(inputs.split)
    write_held_out(inputs.split, out / "held-out")
    write_calibration(inputs.split, out / "calibration")

    common = [*inputs.options, "--workers", given.workers]

    def trained(start: list[object], stages: Sequence[Stage], teacher: Path | None = None) -> Path:
        for stage in stages:
            taught = ["--teacher", teacher] if stage.taught else []
            run("train", *start, *taught, *common, *stage.options(given.share), "--out", out / stage.name)
            start = [out / stage.name / "model.safetensors"]
        return Path(str(start[0]))

    def cut(model: Path, name: str, *budget: str) -> list[object]:
        file = out / f"{name}.safetensors"
        if not file.exists():
            run("prune", model, "-o", file, *budget, "--input", CUT_AT, "--calibrate", out / "calibration")
        return [file]

    full = trained(["modnet", "--backbone", inputs.folder / BACKBONE], FULL)
    small = trained(cut(full, "cut", *CUT), SMALL, full)
    last = trained(cut(small, "lean", *LEAN), LAST, full)
    further = {trained([last], [stage], full): share for stage, share in FURTHER}
    average = out / "average.safetensors"
    write_average({last: 1 - sum(further.values()), **further}, average)
    small = trained([average], EIGHT_BITS, full)
    made = out / "weights"
    for name, model in (("modnet", full), ("modnet-small", small)):
        write_half(model, made / f"{name}.safetensors")
    for suffix in (".onnx", ".xml"):
        file = made / f"modnet-small-int8{suffix}"
        words = ["--int8", "--calibrate", out / "calibration", "--input", QUANTIZED_AT]
        kept = [word for layer in FLOAT[suffix] for word in ("--keep-float", layer)]
        run("export", made / "modnet-small.safetensors", "-o", file, *words, *kept)
    sets = [out / "held-out" / "portraits", out / "held-out" / "composites", inputs.folder / ANNOTATED]
    words = [word for folder in sets if folder.is_dir() for word in ("--data", folder)]
    eight = [made / f"modnet-small-int8{suffix}" for suffix in FLOAT]
    run("eval", full, small, *eight, *words, "--figure", out / "worst.png")
    stages = (*FULL, *SMALL, *LAST, *(stage for stage, _ in FURTHER), *EIGHT_BITS)
    draw_curves({stage.name: out / stage.name for stage in stages}, out / "curves.png")


def run(*words: object) -> None:
    """Run a command of secateur, and end when it fails."""
    line = [str(word) for word in words]
    print("secateur", shlex.join(line), flush=True)
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-m", "secateur.cli", *line], env=environment, check=False)
    if done.returncode < 0:
        sys.exit(
            f"It was killed (signal {-done.returncode}); where memory did not suffice, free some, and start again."
        )
    if done.returncode:
        sys.exit(done.returncode)


def write_average(shares: Mapping[Path, float], target: Path) -> None:
    """Write the average of networks that began as one (Wortsman et al., "Model soups", ICML 2022, arXiv 2203.05482)."""
    first, contents = load(next(iter(shares))), read(next(iter(shares)))
    states = [(load(path).state_dict(), share) for path, share in shares.items()]
    with torch.no_grad():
        for name, value in first.state_dict().items():
            if value.is_floating_point():
                value.copy_(sum(state[name] * share for state, share in states))
    save(target, first, contents.plan, contents.plans[:-1], contents.preprocessing)


def write_half(source: Path, target: Path) -> None:
    """Write a saved network again, in half the bytes."""
    contents = read(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    made = {"recipe": "recipes/modnet.py", "data": [*PORTRAITS, *BACKGROUNDS]}
    save(target, load(source).half(), contents.plan, contents.plans[:-1], contents.preprocessing, made)


def write_held_out(split: Split, folder: Path) -> None:
    """Write the people who are held out in their own pictures, and before backgrounds that are held out, too."""
    scene = Scene.plain(JUDGED, (0.95 * JUDGED, 1.1 * JUDGED), composites=1.0)
    composites = Composites(split.held_out, split.unseen, scene, seed=0, kept=foregrounds_folder())
    for name in ("portraits", "composites"):
        for part in ("image", "alpha"):
            (folder / name / part).mkdir(parents=True, exist_ok=True)
    for person in split.held_out:
        assert person.image is not None
        shutil.copy(person.image, folder / "portraits" / "image")
        shutil.copy(person.alpha, folder / "portraits" / "alpha")
    for number in range(3 * len(split.held_out)):
        sample = composites[number]
        image, matte = (np.rint(sample[name].numpy().transpose(1, 2, 0) * 255) for name in ("image", "matte"))
        name = f"{number:03}-{composites.person(number).name}.png"
        save_picture(folder / "composites" / "image" / name, image.astype(np.uint8), ".png")
        save_picture(folder / "composites" / "alpha" / name, matte[:, :, 0].astype(np.uint8), ".png")


def write_calibration(split: Split, folder: Path) -> None:
    """Write pictures of people who are trained on: half as they were taken, half before other backgrounds."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, share in (("taken", 0.0), ("composed", 1.0)):
        scene = Scene(512, (460, 600), composites=share, company=0.0, nobody=0.0, near=0.0)
        samples = Composites(split.people, split.backgrounds, scene, seed=1, kept=foregrounds_folder())
        for number in range(CALIBRATED // 2):
            image = np.rint(samples[number]["image"].numpy().transpose(1, 2, 0) * 255).astype(np.uint8)
            save_picture(folder / f"{name}-{number:03}.png", image, ".png")


if __name__ == "__main__":
    main()
