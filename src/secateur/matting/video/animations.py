"""Frames out of an animated picture, a GIF, APNG, WebP or AVIF, through Pillow: FFmpeg decodes no animated WebP."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import count
from pathlib import Path

from typing_extensions import Self

from secateur.errors import DataError
from secateur.matting.pictures import Picture, open_image, picture_of, reading
from secateur.matting.video.reading import UNSPECIFIED, Frame, Track, VideoReader, usual_matrix
from secateur.runtimes.packages import require

_MOVING = frozenset({"AVIF", "GIF", "PNG", "WEBP"})  # several pictures in other formats are pages, layers, previews
_SHORTEST, _USUAL = 10, 100  # milliseconds: browsers show what is to last no longer than the first for the second


def is_animated(path: Path) -> bool:
    """Tell whether a file is a picture that moves.

    Raises:
        RuntimeMissingError: Pillow is not installed.
    """
    try:
        with reading(path), open_image(path) as image:
            return image.format in _MOVING and image.is_animated
    except DataError:
        return False


class AnimationReader:
    """An animated picture that is open, read as a `VideoReader` is.

    Attributes:
        path: the file.
        track: what it is made of; its rate is that of the first frame.
        sound: None: it has none.
        damage: what could not be read; None while all could.

    Raises:
        DataError: it is no picture, or its first frame cannot be decoded.
        RuntimeMissingError: Pillow is not installed.
    """

    sound = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: str | None = None
        with reading(path):
            self._image = open_image(path)
            try:
                # An APNG may begin with a picture for those who show no animations.
                self._start = 1 if getattr(self._image, "default_image", False) else 0
                self._count = self._counted()
                self.track = self._track(*self._decoded(self._start))
            except BaseException:
                self._image.close()
                raise

    def __enter__(self) -> Self:
        """Return the reader, to be closed with the body."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._image.close()

    def frames(self) -> Iterator[Frame]:
        """Yield the frames, in the order in which they are shown; where the file breaks off, so do they."""
        end = 0.0
        for number in range(self._start, self._count) if self._count else count(self._start):
            try:
                with reading(self.path):
                    picture, duration = self._decoded(number)
            except DataError as error:
                self.damage = f"it breaks off ({error.__cause__ or error})"
                return
            time, end = round(end), end + duration  # durations of an APNG are no whole milliseconds
            yield Frame(picture.colours, time, round(end) - time, picture.alpha)

    def _counted(self) -> int:
        """Return how many pictures there are, the first included; 0 if nobody knows."""
        try:
            with reading(self.path):
                return getattr(self._image, "n_frames", 1)
        except DataError:  # Pillow reads a GIF to its end for that, and it breaks off
            return 0

    def _decoded(self, number: int) -> tuple[Picture, float]:
        """Return a frame, upright, and for how many milliseconds it is shown."""
        self._image.seek(number)
        self._image.load()  # only now does a WebP say how long it lasts
        duration = self._image.info.get("duration") or 0
        picture = picture_of(require("PIL.ImageOps").exif_transpose(self._image))
        return picture, duration if duration > _SHORTEST else _USUAL

    def _track(self, first: Picture, duration: float) -> Track:
        return Track(
            size=first.size,
            time_base=Fraction(1, 1000),
            rate=1000 / Fraction(duration).limit_denominator(1000),
            count=max(0, self._count - self._start),
            pixel_aspect=Fraction(1),
            matrix=usual_matrix(first.size[0]),
            primaries=UNSPECIFIED,
            transfer=UNSPECIFIED,
        )


Reader = VideoReader | AnimationReader
