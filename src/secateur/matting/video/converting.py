"""A video put through a network: decoded, predicted, finished and encoded, all of that at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from secateur.artifact.atomic import ensure_folder, fill_atomically
from secateur.errors import DataError
from secateur.matting.finishing import Finish
from secateur.matting.pictures import opaque, save_picture
from secateur.matting.predicting import Predictor
from secateur.matting.streaming import grouped, prefetched, spread
from secateur.matting.video.animations import Reader
from secateur.matting.video.reading import Frame
from secateur.matting.video.writing import OPAQUE, TRANSPARENT, Encoding, VideoWriter, writing

_FINISHERS = 2  # threads


@dataclass(frozen=True)
class _Finished:
    pixels: np.ndarray
    frame: Frame
    number: int  # from 1


def encoding_for(target: Path, finish: Finish) -> Encoding:
    """Return how frames are encoded for a file of this name.

    Raises:
        DataError: the suffix is not known, or its files hold no transparency.
    """
    able, suffix = TRANSPARENT if finish.has_alpha else OPAQUE, target.suffix.lower()
    if suffix in able:
        return able[suffix]
    if suffix in OPAQUE:
        raise DataError(
            f"{target} would hold no transparency: {suffix} has none. Give it {', '.join(able)}, or give a background."
        )
    raise DataError(f"{target} is no video that can be written. Give it one of {', '.join(able)}, or name a folder.")


def convert_video(
    reader: Reader,
    target: Path,
    predictor: Predictor,
    finish: Finish,
    batch: int = 1,
    told: Callable[[], object] = lambda: None,
) -> int:
    """Write a video as it is finished, with its sound and at its times, and return the number of its frames.

    Args:
        reader: the video, or an animated picture.
        target: the file; it is there whole or not at all.
        predictor: gives mattes.
        finish: makes of a matte what is wanted.
        batch: how many frames the network gets at once.
        told: called after each frame.

    Raises:
        DataError: the suffix is not known, or its files hold no transparency.
        ArtifactError: the file cannot be written.
        RuntimeUnfitError: the network fails.
    """
    encoding = encoding_for(target, finish)

    def fill(beside: Path) -> None:
        nonlocal count
        with writing(beside, encoding, reader.track, reader.sound) as writer:
            for _ in spread(partial(_encoded, writer), _finished(reader, predictor, finish, batch)):
                count += 1
                told()

    count = 0
    fill_atomically(target, fill)
    return count


def convert_to_pictures(
    reader: Reader,
    folder: Path,
    predictor: Predictor,
    finish: Finish,
    batch: int = 1,
    told: Callable[[], object] = lambda: None,
    resume: bool = False,
) -> int:
    """Write each frame of a video as a PNG, numbered from `000001.png`, and return how many were written.

    Arguments and errors are those of `convert_video`; with `resume`, pictures that are there stay as they are. Those
    that were written stay if a later one fails.
    """
    ensure_folder(folder)

    def wanted(number: int) -> bool:
        return not (resume and _numbered(folder, number).exists())

    count = 0
    for _ in spread(partial(_saved, folder), _finished(reader, predictor, finish, batch, wanted), _FINISHERS):
        count += 1
        told()
    return count


def _finished(
    reader: Reader,
    predictor: Predictor,
    finish: Finish,
    batch: int,
    wanted: Callable[[int], bool] = lambda _: True,
) -> Iterator[_Finished]:
    def seen() -> Iterator[tuple[Frame, np.ndarray, int]]:
        for number, frame in enumerate(reader.frames(), 1):
            if wanted(number):
                yield frame, predictor.prepare(opaque(frame.colours, frame.alpha)), number

    def predicted() -> Iterator[tuple[Frame, np.ndarray, int]]:
        with closing(grouped(prefetched(seen(), ahead=2 * batch), lambda _: None, batch, held=batch)) as groups:
            for group in groups:
                mattes = predictor.run([prepared for _, prepared, _ in group])
                yield from ((frame, matte, number) for (frame, _, number), matte in zip(group, mattes, strict=True))

    def finished(one: tuple[Frame, np.ndarray, int]) -> _Finished:
        frame, matte, number = one
        return _Finished(finish(frame.colours, matte, frame.alpha), frame, number)

    return spread(finished, predicted(), _FINISHERS, ahead=batch)


def _encoded(writer: VideoWriter, one: _Finished) -> None:
    writer.write(one.pixels, one.frame.time, one.frame.duration)


def _saved(folder: Path, one: _Finished) -> None:
    fill_atomically(_numbered(folder, one.number), lambda beside: save_picture(beside, one.pixels, ".png"))


def _numbered(folder: Path, number: int) -> Path:
    return folder / f"{number:06}.png"
