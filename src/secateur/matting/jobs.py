"""Pictures put through a network: read, predicted, finished and written, all of that at the same time."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from secateur.artifact.atomic import ensure_folder, fill_atomically
from secateur.errors import SecateurError
from secateur.matting.finishing import Finish
from secateur.matting.pictures import Picture, load_picture, opaque, save_picture
from secateur.matting.predicting import Predictor
from secateur.matting.streaming import grouped, spread

MOST_WORKERS = 4  # each holds a picture at full size


@dataclass(frozen=True)
class Job:
    """A picture and where its result goes: files, or bytes and an open stream, which gets a PNG."""

    source: Path | bytes
    target: Path | BinaryIO


@dataclass(frozen=True)
class Result:
    """What became of a job.

    Attributes:
        job: the job.
        size: height and width of the picture; None if it could not be read.
        seconds: what it took, its share of a batch included.
        frames: of the picture's file; this is the first.
        error: why there is no result.
    """

    job: Job
    size: tuple[int, int] | None
    seconds: float
    frames: int = 1
    error: SecateurError | None = None


@dataclass(frozen=True)
class _Work:
    job: Job
    seconds: float = 0.0
    picture: Picture | None = None
    prepared: np.ndarray | None = None
    matte: np.ndarray | None = None
    error: SecateurError | None = None


def run_jobs(jobs: Iterable[Job], predictor: Predictor, finish: Finish, batch: int = 1) -> Iterator[Result]:
    """Yield what becomes of jobs, one after the other; those that fail say why, and the rest is done.

    Args:
        jobs: the pictures.
        predictor: gives their mattes.
        finish: makes of a matte what is wanted.
        batch: how many pictures of the same size the network gets at once.

    Raises:
        RuntimeUnfitError: the network fails.
    """
    workers = max(1, min(MOST_WORKERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2))
    read = spread(partial(_read, predictor), jobs, workers=1, ahead=1)
    predicted = _predicted(read, predictor, batch)
    return spread(partial(_written, finish), predicted, workers, ahead=1)


def _read(predictor: Predictor, job: Job) -> _Work:
    start = time.perf_counter()
    try:
        picture = load_picture(job.source, None if isinstance(job.source, Path) else "The input")
        prepared = predictor.prepare(opaque(picture.colours, picture.alpha))
    except SecateurError as error:
        return _Work(job, time.perf_counter() - start, error=error)
    except MemoryError:
        return _Work(job, time.perf_counter() - start, error=_too_large(job))
    return _Work(job, time.perf_counter() - start, picture, prepared)


def _predicted(works: Iterable[_Work], predictor: Predictor, batch: int) -> Iterator[_Work]:
    def size(work: _Work) -> tuple[int, ...] | None:
        return None if work.prepared is None else work.prepared.shape

    with closing(grouped(works, size, batch, held=2 * batch)) as groups:
        for group in groups:
            ready = [work.prepared for work in group if work.prepared is not None]
            if not ready:  # they could not be read
                yield from group
                continue
            start = time.perf_counter()
            mattes = predictor.run(ready)
            share = (time.perf_counter() - start) / len(group)
            for work, matte in zip(group, mattes, strict=True):
                yield replace(work, matte=matte, prepared=None, seconds=work.seconds + share)


def _written(finish: Finish, work: _Work) -> Result:
    if work.picture is None or work.matte is None:
        return Result(work.job, None, work.seconds, error=work.error)
    start, picture, error = time.perf_counter(), work.picture, None
    try:
        pixels = finish(picture.colours, work.matte, picture.alpha)
        _save(work.job.target, pixels, picture.profile)
    except SecateurError as found:
        error = found
    except MemoryError:
        error = _too_large(work.job)
    return Result(
        work.job, picture.colours.shape[:2], work.seconds + time.perf_counter() - start, picture.frames, error
    )


def _too_large(job: Job) -> SecateurError:
    name = job.source if isinstance(job.source, Path) else "The input"
    return SecateurError(f"{name} does not fit into memory at full size. Make it smaller.")


def _save(target: Path | BinaryIO, pixels: np.ndarray, profile: bytes | None) -> None:
    if not isinstance(target, Path):
        whole = io.BytesIO()
        save_picture(whole, pixels, ".png", profile)
        try:
            target.write(whole.getvalue())
            target.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise SecateurError(f"The result cannot be written: {error.strerror}.") from None
        return
    ensure_folder(target.parent)
    fill_atomically(target, lambda beside: save_picture(beside, pixels, target.suffix.lower(), profile))
