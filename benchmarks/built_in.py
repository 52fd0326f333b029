"""What each step of recovery wins back of MODNet at a quarter of its MACs, on people who were never trained on.

python benchmarks/built_in.py [--out build/modnet] [--epochs 5]

Wants what `python recipes/modnet.py --out OUT` left there. Four networks are trained for as many steps as each other,
with `secateur train`. They are kept in OUT/compared with all scores, so that a second run goes on where the first was
interrupted; delete that folder to begin anew. Writes docs/built-in.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import secateur  # noqa: E402
from recipes.modnet import ANNOTATED, ENTROPY, Inputs, Stage, run  # noqa: E402
from recipes.modnet import FULL as FULL_STAGES  # noqa: E402
from secateur.artifact.atomic import write_atomically  # noqa: E402
from secateur.artifact.reading import Contents, read  # noqa: E402
from secateur.artifact.shipped import shipped_int8  # noqa: E402
from secateur.calibration.batches import batches_of  # noqa: E402
from secateur.matting.evaluating import Matter, evaluate  # noqa: E402
from secateur.matting.layouts import Portrait, find_portraits  # noqa: E402
from secateur.matting.predicting import open_predictor  # noqa: E402
from secateur.measurement.statistics import compare_means  # noqa: E402
from secateur.models.pictures import pictures_in, prepared_pictures  # noqa: E402
from secateur.runtimes.deployment import RUNTIMES  # noqa: E402
from secateur.runtimes.machine import this_machine  # noqa: E402
from secateur.runtimes.network import Network  # noqa: E402
from secateur.runtimes.session import Options  # noqa: E402
from secateur.surgery.compensation.statistics import renew_statistics  # noqa: E402

SETS = ("portraits", "composites", "real")
FULL, SHIPPED = "full, `modnet`", "**`modnet-small`**, trained on further"
COMPENSATED = "+ compensation"
ARTICLE = "the article's recipe: L1, 80 % of the backbone alone"
EXAMPLE = (1, 3, 512, 512)
SCORES = "scores.jsonl"

PAGE = """# The built-in matting networks

Written by `python benchmarks/built_in.py --epochs {epochs}`; do not edit. Judged on {machine}.

`modnet` is MODNet with MobileNetV2; `modnet-small` was cut by `secateur prune --macs 0.24x --calibrate` out of
`modnet` before its last training, compensated, and taught by it. What they were trained on, and how:
[modnet.md](../src/secateur/weights/modnet.md), [modnet-small.md](../src/secateur/weights/modnet-small.md).

## What each step wins back

MAD (mean absolute difference of the matte, 0 to 1; thousandths, lower is better) at the published pre-processing
(short side 512), on {people} people who were never trained on: in their own pictures (portraits), and {composites}
times before backgrounds that were never trained on, either (composites); and on {real} pictures of other sets that were
annotated by hand (real). Which weights to ship was chosen by these same sets: the figures are a little too good. In
brackets, a multiple of the full network's, with its 95 % interval over the same pictures.
The median beside it: means are made by few pictures. The trained ones saw {steps} batches of {batch} at {size} pixels;
`modnet-small` saw more. *The article* pruned MODNet's backbone alone with NNI and put it back by hand; its recipe is
where secateur comes from.

| network | MACs, G | parameters, M | portraits | median | composites | median | real | median |
|---|---:|---:|---:|---:|---:|---:|---:|---:|
{rows}

{won}

## What they make of people

![Six people in their own pictures and before a background, and the mattes of six others](people.png)

Twelve of the 19 who are held out. Six may be shown (CC0-1.0, github.com/cjdowner/interfaces), of six others the mattes
alone; `python recipes/pictures.py` draws them. Plain outlines are good. Large dark curls are cut into, and hair before
something as dark is joined with it; flowers, a bird, a wooden screen that touch a person come along; the small network
draws hair coarser than it is; both lose the tip of a shoulder here and there.
"""


@dataclass(frozen=True)
class Judged:
    """A network's size, and its MAD of each picture by set."""

    macs: float
    parameters: float
    scores: dict[str, list[float]]


@dataclass(frozen=True)
class Comparison:
    """What is compared, in the folder where the recipe worked."""

    inputs: Inputs
    out: Path
    stage: Stage

    @property
    def folder(self) -> Path:
        return self.out / "compared"

    @property
    def full(self) -> Path:
        return self.out / FULL_STAGES[-1].name / "model.safetensors"

    def ways(self) -> Iterator[tuple[str, Callable[[], nn.Module | Path]]]:
        """Each network's name, and what makes it, or its file."""
        cut = read(self.out / "cut.safetensors")
        yield FULL, partial(secateur.load, self.full)
        yield "cut, no recovery", partial(self.cut, cut)
        yield "+ recalibration", partial(self.recalibrated, cut)
        yield COMPENSATED, partial(secateur.load, cut.path)
        yield "+ fine-tuning", partial(self.trained, "fine-tuned", cut.path)
        yield "+ distillation instead", partial(self.trained, "distilled", cut.path, "--teacher", self.full)
        yield "same size, from scratch", partial(self.trained, "scratch", cut.path, "--weights", "random")
        yield f"{ARTICLE}, fine-tuned", partial(self.article, trained=True)
        yield f"{ARTICLE}, not trained on", partial(self.article, trained=False)
        yield SHIPPED, partial(secateur.pretrained, "modnet-small")
        for suffix, runtime in RUNTIMES.items():
            if (file := shipped_int8("modnet-small", suffix)) is not None:
                yield f"`modnet-small`, INT8, {runtime}", partial(Path, file)

    def cut(self, contents: Contents) -> nn.Module:
        return secateur.cut(secateur.load(self.full), contents.plan)

    def recalibrated(self, contents: Contents) -> nn.Module:
        model, full = self.cut(contents), secateur.load(self.full)
        paths = pictures_in(self.out / "calibration")
        pictures = list(prepared_pictures(paths, EXAMPLE, (0.5,) * 3, (0.5,) * 3))
        batches = [torch.cat(pictures[start : start + 4]) for start in range(0, len(pictures), 4)]
        graph = secateur.trace(full, batches[0][:1])
        renew_statistics(model, batches_of(batches, full, graph.calls).to_fit)
        return model.eval()

    def article(self, trained: bool) -> nn.Module:
        start = self.folder / "article.safetensors"
        if not start.exists():
            host = secateur.load(self.full)
            _, of_part = secateur.prune(host.get_submodule("backbone"), torch.zeros(EXAMPLE), ratio=0.8, criterion="l1")
            model, plan = secateur.graft(host, of_part, at="backbone", conflict="restore")
            secateur.save(start, model, plan)
        return self.trained("article", start) if trained else secateur.load(start)

    def trained(self, name: str, start: object, *more: object) -> nn.Module:
        run("train", start, *more, *self.inputs.options, *self.stage.options(1.0), "--out", self.folder / name)
        return secateur.load(self.folder / name / "model.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "build/modnet")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--known", action="store_true", help="measure nothing: a page of what is known so far")
    given = parser.parse_args()
    stage = Stage("compared", 384, (320, 540), given.epochs, 8e-4, 4, ENTROPY)
    compared = Comparison(Inputs.at(given.data), given.out.resolve(), stage)
    compared.folder.mkdir(parents=True, exist_ok=True)
    folders = {name: compared.out / "held-out" / name for name in SETS[:2]}
    sets = {
        name: find_portraits(path) for name, path in {**folders, SETS[2]: compared.inputs.folder / ANNOTATED}.items()
    }
    ways, measured = dict(compared.ways()), known(compared.folder)
    found = {
        name: measured.get(name) or judged(name, make, sets, compared.folder)
        for name, make in ways.items()
        if name in measured or not given.known
    }
    steps = round(given.epochs * len(compared.inputs.split.people) / stage.batch)
    text = PAGE.format(
        machine=this_machine(),
        epochs=given.epochs,
        people=len(sets["portraits"]),
        composites=len(sets["composites"]),
        real=len(sets["real"]),
        steps=steps,
        batch=stage.batch,
        size=stage.size,
        rows="\n".join(row(name, one, found[FULL]) for name, one in found.items()),
        won=won_back(found),
    )
    write_atomically(ROOT / "docs" / "built-in.md", text.encode())


def known(folder: Path) -> dict[str, Judged]:
    """Return what was measured before."""
    file = folder / SCORES
    records = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    return {record.pop("name"): Judged(**record) for record in records}


def judged(
    name: str, make: Callable[[], nn.Module | Path], sets: Mapping[str, Sequence[Portrait]], folder: Path
) -> Judged:
    """Judge a network, and keep what was found."""
    made = make()
    matter = opened(name, made)
    scores = {part: evaluate(matter, own, ["MAD"]).values("MAD")[:, 0].tolist() for part, own in sets.items()}
    one = Judged(*costs(made), scores)
    with (folder / SCORES).open("a") as lines:
        lines.write(json.dumps({"name": name, **vars(one)}) + "\n")
    print(row(name, one, one), flush=True)
    return one


def opened(name: str, made: nn.Module | Path) -> Matter:
    if isinstance(made, Path):
        return open_predictor(Network.of_file(name, made), RUNTIMES[made.suffix], Options())
    return open_predictor(Network.of_model(name, made, torch.zeros(1, 3, 128, 128)), "torch", Options())


def costs(made: nn.Module | Path) -> tuple[float, float]:
    """Return GMAC at 512 x 512 and millions of parameters; a file's are those of the network it was made of."""
    model = secateur.pretrained("modnet-small") if isinstance(made, Path) else made
    parameters = sum(one.numel() for one in model.parameters())
    return secateur.trace(model, torch.zeros(EXAMPLE)).costs.macs() / 1e9, parameters / 1e6


def row(name: str, one: Judged, full: Judged) -> str:
    cells = [f"{one.macs:.2f}", f"{one.parameters:.2f}"]
    for part in SETS:
        ratio = compare_means(full.scores[part], one.scores[part]).ratio
        shown = "" if one is full else f" ({ratio.value:.2f}, {ratio.low:.2f} to {ratio.high:.2f})"
        cells += [f"{1e3 * np.mean(one.scores[part]):.1f}{shown}", f"{1e3 * np.median(one.scores[part]):.1f}"]
    return f"| {name} | " + " | ".join(cells) + " |"


def won_back(found: dict[str, Judged]) -> str:
    """Say what share of the loss compensation wins back before any training."""
    told = []
    for part in SETS:
        full, cut, mended = (np.mean(found[name].scores[part]) for name in (FULL, "cut, no recovery", COMPENSATED))
        told.append(f"{100 * (cut - mended) / (cut - full):.0f} % of what the cut lost on {part}")
    return f"Compensation, which takes norms' statistics anew, too, wins back {', '.join(told)}, before any training."


if __name__ == "__main__":
    main()
