"""Training samples made on the fly: people, in their own pictures or before other backgrounds, with exact mattes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from secateur.artifact.atomic import ensure_folder, fill_atomically
from secateur.errors import ArtifactError, DataError
from secateur.matting.backgrounds import random_background
from secateur.matting.clothes import other_clothes
from secateur.matting.foregrounds import foreground_of
from secateur.matting.framing import Frame, near_by, random_frame
from secateur.matting.hair import fuller_hair
from secateur.matting.layouts import Portrait
from secateur.matting.pictures import read_alpha, read_pair, read_rgb, save_picture
from secateur.matting.tones import hidden_face, matched, random_grain, random_tone, saturated
from secateur.matting.trimaps import random_trimap

Sample = dict[str, torch.Tensor]
FARTHEST = 0.28
NEAREST = (1.3, 2.2)
_HAIR_NEAR_BY = 0.5  # share of those near by who get more hair


@dataclass(frozen=True)
class Scene:
    """How samples are made.

    Attributes:
        size: pixels of a sample's sides, a multiple of 32.
        short: the least and the largest short side of the whole picture in it, in pixels. What a network is used at
            belongs in here: people twice as large as those it was trained on are strangers to it.
        composites: share of the samples that are before another background; the others are pictures as they were
            taken.
        company: share of the composites with a second person.
        nobody: share of the samples that are a background alone.
        far: share of the composites with people farther away, down to FARTHEST of their size.
        near: share of the other samples with somebody who fills the picture, NEAREST times as large, so that its sides
            cut off hair and shoulders.
        hidden: share of the samples with a face that is blurred out of recognition.
        dressed: share of the samples with other clothes.
        haired: share of the samples with more hair; of those near by, half have it.
        grey: share of the samples without colours, as black-and-white film has them.
    """

    size: int = 512
    short: tuple[float, float] = (400, 640)
    composites: float = 0.7
    company: float = 0.12
    nobody: float = 0.015
    far: float = 0.35
    near: float = 0.15
    hidden: float = 0.12
    dressed: float = 0.35
    haired: float = 0.12
    grey: float = 0.08

    @classmethod
    def plain(cls, size: int, short: tuple[float, float], composites: float) -> Scene:
        """Return one of people near by, one in each sample, who stay as they are: to judge on."""
        return cls(size, short, composites, company=0, nobody=0, far=0, near=0, hidden=0, dressed=0, haired=0, grey=0)

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 32:
            raise DataError(f"Samples of {self.size} pixels are no good: a multiple of 32 is wanted.")
        if not 0 < self.short[0] <= self.short[1]:
            raise DataError(f"Short sides from {self.short[0]:g} to {self.short[1]:g} pixels: the least comes first.")


@dataclass(frozen=True)
class Composites(Dataset[Sample]):
    """Samples by number: the same number, seed, files and scene, the same sample, in any process.

    A sample has `image` (3, size, size) in [0, 1], `matte` (1, size, size) in [0, 1] and `trimap` of the same shape: 0
    and 1 where it is sure, 1/2 in a band of random width around the edge.

    Attributes:
        people: who is in them; every one comes once before anybody comes again.
        backgrounds: pictures without people.
        scene: how they are made.
        seed: decides everything else.
        kept: a folder for estimated foregrounds, which take a second each; see `splitting.keep_foregrounds`.
    """

    people: Sequence[Portrait]
    backgrounds: Sequence[Path] = ()
    scene: Scene = field(default_factory=Scene)
    seed: int = 0
    kept: Path | None = None

    def __getitem__(self, index: int) -> Sample:
        """Make a sample.

        Raises:
            DataError: a file is broken, or a matte is of another size than its picture.
        """
        rng = np.random.default_rng((self.seed, index))
        if rng.random() < self.scene.nobody:
            back = random_grain(random_background(self.backgrounds, self.scene.size, rng), rng)
            return _sample(back, np.zeros(back.shape[:2], np.uint8), rng)
        person = self.person(index)
        taken = person.image is not None and rng.random() >= self.scene.composites
        colours, alpha = self._taken(person, rng) if taken else self._composed(person, rng)
        if self.scene.grey and rng.random() < self.scene.grey:
            colours = saturated(colours, 0)
        return _sample(colours, alpha, rng)

    def person(self, index: int) -> Portrait:
        """Return who is in a sample, unless it shows nobody."""
        turn, place = divmod(index, len(self.people))
        order = np.random.default_rng((self.seed, 0, turn)).permutation(len(self.people))
        return self.people[order[place]]

    def _taken(self, person: Portrait, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return a picture as it was taken, with its matte, in another frame and light."""
        colours, alpha = read_pair(person)
        times = self._times_as_near(rng)
        frame = self._frame(alpha, times, rng, free=False)
        colours, alpha = self._changed(frame.of_picture(colours), frame.of_picture(alpha), True, times, rng)
        return random_grain(random_tone(colours, rng), rng), alpha

    def _composed(self, person: Portrait, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return a person before another background, with her matte; at times with somebody else behind her."""
        back = random_tone(random_background(self.backgrounds, self.scene.size, rng), rng)
        matte = np.zeros(back.shape[:2], np.uint8)
        people = [person]
        if rng.random() < self.scene.company:
            people.insert(0, self.people[int(rng.integers(len(self.people)))])
        for one in people:
            colours, alpha = self._placed(one, back, rng)
            share = alpha[..., None].astype(np.float32) / 255
            back = (back + (colours - back.astype(np.float32)) * share + 0.5).astype(np.uint8)
            matte = (255 - (255 - alpha.astype(np.float32)) * (255 - matte) / 255 + 0.5).astype(np.uint8)
        return random_grain(random_tone(back, rng, strength=0.4), rng), matte

    def _placed(self, person: Portrait, back: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        colours, alpha = kept_foreground(person, self.kept)
        farther = np.exp(rng.uniform(np.log(FARTHEST), 0)) if rng.random() < self.scene.far else 1.0
        times = self._times_as_near(rng) if farther == 1 else 1.0
        frame = self._frame(alpha, times, rng, free=True, farther=farther)
        colours, alpha = self._changed(frame.of_person(colours), frame.of_person(alpha), False, times, rng)
        return matched(random_tone(colours, rng), alpha, back, rng.uniform(0, 0.6)), alpha

    def _times_as_near(self, rng: np.random.Generator) -> float:
        """Return how many times as large as `short` says somebody is: 1, or more for those near by."""
        near = self.scene.near and rng.random() < self.scene.near
        return float(np.exp(rng.uniform(*np.log(NEAREST)))) if near else 1.0

    def _frame(
        self, alpha: np.ndarray, times: float, rng: np.random.Generator, free: bool, farther: float = 1.0
    ) -> Frame:
        least, most = (times * length for length in self.scene.short)
        return random_frame(alpha, round(times * self.scene.size), (least, most), rng, free, farther)

    def _changed(
        self, colours: np.ndarray, alpha: np.ndarray, behind: bool, times: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a person, at times in other clothes, with more hair, near by, or with a hidden face."""
        if rng.random() < self.scene.dressed:
            colours = other_clothes(colours, alpha, random_background(self.backgrounds, len(colours), rng), rng)
        haired = _HAIR_NEAR_BY if times > 1 else self.scene.haired
        if haired and rng.random() < haired:
            colours, alpha = fuller_hair(colours, alpha, behind, rng)
        if times > 1:
            colours, alpha = near_by(colours, alpha, self.scene.size, rng)
        return (hidden_face(colours, alpha, rng) if rng.random() < self.scene.hidden else colours), alpha


def kept_foreground(person: Portrait, folder: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Return a person's own colours (H, W, 3) and matte (H, W), both of uint8; estimated ones are kept in `folder`.

    Raises:
        DataError: a file is broken, or they are of different sizes.
        RuntimeMissingError: pymatting, which estimates them, is not installed.
    """
    if person.foreground is not None:
        return read_pair(Portrait(person.name, None, person.foreground, person.alpha))
    place = None if folder is None else folder / f"{_digest(person)}.png"
    if place is not None and place.exists():
        return read_rgb(place), read_alpha(person.alpha)
    colours, alpha = read_pair(person)
    found = foreground_of(colours, alpha.astype(np.float32) / 255)
    if place is not None:
        _keep(place, found)
    return found, alpha


def of_person(name: str, pattern: str) -> str:
    r"""Return who is in a picture by its file's name: what the pattern's first group finds, or else all of the name.

    Example:
        >>> of_person("comp_pub_03_017", r"(\d+)$"), of_person("anna-2", r"(\d{3})$")
        ('017', 'anna-2')
    """
    found = re.search(pattern, name)
    return name if found is None else found.group(found.re.groups and 1)


def is_held_out(who: str, share: float) -> bool:
    """Tell whether a person (or a picture) is kept from training; hangs on the name alone, not on who else is there."""
    return int.from_bytes(hashlib.sha256(who.encode()).digest()[:4], "big") < share * 2**32


def _sample(colours: np.ndarray, alpha: np.ndarray, rng: np.random.Generator) -> Sample:
    matte = alpha.astype(np.float32) / 255
    return {
        "image": torch.from_numpy(np.ascontiguousarray(colours.transpose(2, 0, 1))).float() / 255,
        "matte": torch.from_numpy(matte)[None],
        "trimap": torch.from_numpy(random_trimap(matte, rng))[None],
    }


def _digest(person: Portrait) -> str:
    read = hashlib.sha256()
    for path in (person.image, person.alpha):
        assert path is not None
        read.update(path.read_bytes())
    return read.hexdigest()[:32]


def _keep(place: Path, colours: np.ndarray) -> None:
    with suppress(ArtifactError):  # then it is estimated again; the training told of it at its start
        ensure_folder(place.parent)
        fill_atomically(place, lambda beside: save_picture(beside, colours, ".png"))
