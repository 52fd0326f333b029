"""Who is trained on and who is held out: by person, never by picture."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import Dataset

from secateur.artifact.atomic import ensure_folder
from secateur.errors import ArtifactError, DataError
from secateur.matting.compositing import Composites, Sample, Scene, is_held_out, kept_foreground, of_person
from secateur.matting.layouts import Clip, Portrait, find_pictures, find_portraits
from secateur.measurement.cache import folder as cache_folder

_progress = logging.getLogger("secateur.progress")
_log = logging.getLogger("secateur")
ROUNDS = 2  # composites of each person that is held out


@dataclass(frozen=True)
class Split:
    """Portraits and backgrounds in two parts.

    Attributes:
        people, backgrounds: to train on.
        held_out, unseen: people and backgrounds that are not.
    """

    people: Sequence[Portrait]
    held_out: Sequence[Portrait]
    backgrounds: Sequence[Path]
    unseen: Sequence[Path]

    def training(self, scene: Scene, seed: int) -> Composites:
        """Return the samples to train on."""
        return Composites(self.people, self.backgrounds, scene, seed, foregrounds_folder())

    def validation(self, size: int, seed: int) -> dict[str, FirstOf]:
        """Return pictures of people who are held out, and composites of them before backgrounds that are, too."""
        if not self.held_out:
            return {}
        parts = {"portraits": (0.0, 1), "composites": (1.0, ROUNDS)}
        found = {}
        for name, (composites, rounds) in parts.items():
            scene = Scene.plain(size, (0.95 * size, 1.1 * size), composites)
            samples = Composites(self.held_out, self.unseen, scene, seed, foregrounds_folder())
            found[name] = FirstOf(samples, rounds * len(self.held_out))
        return found


@dataclass(frozen=True)
class FirstOf(Dataset[Sample]):
    """The first samples of many."""

    samples: Composites
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if index >= self.count:
            raise IndexError(index)
        return self.samples[index]


def split_portraits(
    data: Sequence[str | Path], backgrounds: Sequence[str | Path], held_out: float, person: str
) -> Split:
    """Return the portraits in some folders and the pictures in others, a share of both held out.

    Args:
        data: folders of portraits.
        backgrounds: folders of pictures without people.
        held_out: share of the people, and of the backgrounds; who is held out hangs on the names alone.
        person: a pattern that finds in a file's name who it is; the same person is on one side only.

    Raises:
        DataError: a folder is not as it should be, or nobody is left to train on.
    """
    portraits = [one for folder in data for one in find_portraits(folder)]
    apart = [_is_apart(one, held_out, person) for one in portraits]
    pictures = find_pictures(backgrounds) if backgrounds else []
    unseen = [is_held_out(path.stem, held_out) for path in pictures]
    people = [one for one, out in zip(portraits, apart, strict=True) if not out]
    if not people:
        raise DataError(f"All {len(portraits)} portraits are held out, and none is left. Hold out fewer (--held-out).")
    if held_out and not any(apart):
        _log.warning(
            "Of %d portraits none is held out, so that nothing tells how good a network gets: names decide who is, and "
            "none of these falls into a share of %g. Hold out more (--held-out).",
            len(portraits),
            held_out,
        )
    return Split(
        people,
        [one for one, out in zip(portraits, apart, strict=True) if out],
        [path for path, out in zip(pictures, unseen, strict=True) if not out],
        [path for path, out in zip(pictures, unseen, strict=True) if out],
    )


def only_held_out(subjects: Sequence[Portrait | Clip], share: float, person: str) -> list[Portrait | Clip]:
    """Return those that a training with the same share and pattern holds out.

    Raises:
        DataError: nobody is.
    """
    found = [one for one in subjects if _is_apart(one, share, person)]
    if not found:
        raise DataError(
            f"Of {len(subjects)} none is in the share of {share:g} that training holds out: names decide who is. Give "
            "the --held-out and --person of the training, or people that were never trained on, without --held-out."
        )
    return found


def _is_apart(one: Portrait | Clip, share: float, person: str) -> bool:
    return is_held_out(of_person(one.name, person), share)


def keep_foregrounds(split: Split) -> None:
    """Estimate the people's own colours now, so that making samples is fast."""
    try:
        ensure_folder(foregrounds_folder())
    except ArtifactError as error:
        _log.warning("People's own colours are estimated anew in each sample, which is slow: %s", error)
        return
    people = [*split.people, *split.held_out]
    for number, person in enumerate(people, 1):
        kept_foreground(person, foregrounds_folder())
        if number % 50 == 0:
            _progress.info("%d of %d people", number, len(people))


def foregrounds_folder() -> Path:
    """Return where estimated foregrounds are kept."""
    return cache_folder() / "foregrounds"
