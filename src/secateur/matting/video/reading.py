"""Frames out of a video: upright, in RGB, each with its time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import Self

from secateur.errors import DataError
from secateur.runtimes.packages import require

SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .m2ts .mts .wmv .flv .3gp .ogv".split()  # noqa: SIM905 - to be read
)
_RATE = Fraction(25)  # frames a second of a video that does not say
UNSPECIFIED = 2  # of matrices, primaries and transfers, by the numbers of ITU-T H.273
_NONE, _BT709, _BT601 = 0, 1, 5  # matrices between YUV and RGB; a video that is stored in RGB has none
_HIGH_DEFINITION = 720  # lines; from here on players take BT.709 where nothing is said
_LACKING = 0.5  # seconds that may lack at the end before it is said


@dataclass(frozen=True)
class Frame:
    """A frame.

    Attributes:
        colours: (height, width, 3) of uint8, upright.
        time: when it is shown, in units of the track's time base.
        duration: for how long, in the same units.
        alpha: (height, width) of uint8, if it is one of an animated picture with transparency.
    """

    colours: np.ndarray
    time: int
    duration: int
    alpha: np.ndarray | None = None


@dataclass(frozen=True)
class Track:
    """What a video is made of.

    Attributes:
        size: height and width, upright.
        time_base: seconds that the frames' times count.
        rate: frames a second, on average.
        count: how many frames there are, about; 0 if nobody knows.
        pixel_aspect: how wide a pixel is shown, to its height, upright.
        matrix: the matrix between YUV and RGB.
        primaries, transfer: what the colours stand for, by the numbers of ITU-T H.273.
    """

    size: tuple[int, int]
    time_base: Fraction
    rate: Fraction
    count: int
    pixel_aspect: Fraction
    matrix: int
    primaries: int
    transfer: int


class VideoReader:
    """A video that is open, read once from its beginning to its end.

    Attributes:
        path: the file.
        track: what it is made of.
        sound: the file that its sound is in: the same.
        damage: what could not be read; None while all could.

    Raises:
        DataError: it is no video, or no frame of it can be decoded.
        RuntimeMissingError: PyAV is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = self.sound = path
        self.damage: str | None = None
        self._av = require("av")
        self._container = self._opened()
        try:
            self._stream = self._video_stream()
            self._decoded = self._decode()
            first = next(self._decoded, None)
            if first is None:
                why = self.damage or "there is none"
                raise DataError(f"{path} has no frame that can be decoded: {why}. Give another file.")
        except BaseException:
            self._container.close()
            raise
        self._turns = round(first.rotation / 90) % 4  # counterclockwise
        self._width, self._height = first.width, first.height
        self.track = self._track(first)
        self._decoded = chain([first], self._decoded)

    def __enter__(self) -> Self:
        """Return the reader, to be closed with the body."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._container.close()

    def frames(self) -> Iterator[Frame]:
        """Yield the frames, in the order in which they are shown; where the file breaks off, so do they."""
        step = max(1, round(1 / (self.track.rate * self.track.time_base)))
        time, end = None, 0
        for frame in self._decoded:
            # What has no time is shown after what was before; what comes too early, right after it.
            time = end if frame.pts is None else frame.pts if time is None else max(frame.pts, time + 1)
            end = time + (frame.duration or step)
            yield Frame(self._upright(frame), time, end - time)
        self._check_length(end)

    def _opened(self) -> Any:
        if not self.path.is_file():
            raise DataError(f"{self.path} is not there. Check the path.")
        try:
            return self._av.open(str(self.path), metadata_errors="replace")
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise DataError(f"{self.path} cannot be read as a video: {_why(error)}. Give another file.") from error

    def _video_stream(self) -> Any:
        cover = self._av.stream.Disposition.attached_pic
        streams = [one for one in self._container.streams.video if not one.disposition & cover]
        if not streams or streams[0].codec_context is None:
            held = ", ".join(sorted({one.type for one in self._container.streams})) or "nothing"
            raise DataError(f"{self.path} holds no video, only {held}. Give another file.")
        streams[0].thread_type = "AUTO"
        return streams[0]

    def _decode(self) -> Iterator[Any]:
        broken = 0
        try:
            for packet in self._container.demux(self._stream):
                try:
                    yield from packet.decode()
                except self._av.FFmpegError as error:
                    broken += 1
                    self.damage = f"{broken} of its packets are broken ({_why(error)})"
        except (self._av.FFmpegError, OSError) as error:
            self.damage = f"it breaks off ({_why(error)})"
            with suppress(self._av.FFmpegError):  # what the decoder still holds
                yield from self._stream.codec_context.decode(None)

    def _track(self, first: Any) -> Track:
        stream, sideways = self._stream, self._turns % 2 == 1
        aspect = stream.sample_aspect_ratio or Fraction(1)
        rate = stream.average_rate or stream.guessed_rate or _RATE
        seconds = self._seconds()
        return Track(
            size=(first.width, first.height) if sideways else (first.height, first.width),
            time_base=stream.time_base,
            rate=rate,
            count=stream.frames or (round(seconds * rate) if seconds else 0),
            pixel_aspect=1 / aspect if sideways and aspect else aspect or Fraction(1),
            matrix=usual_matrix(first.height) if first.colorspace in (UNSPECIFIED, _NONE) else first.colorspace,
            primaries=first.color_primaries,
            transfer=first.color_trc,
        )

    def _upright(self, frame: Any) -> np.ndarray:
        colours = frame.to_ndarray(
            format="rgb24", width=self._width, height=self._height, src_colorspace=self.track.matrix, threads=1
        )
        return np.ascontiguousarray(np.rot90(colours, self._turns))

    def _seconds(self) -> Fraction | None:
        """Return how long the file says that the pictures last; None if it does not say."""
        if self._stream.duration:
            return self._stream.duration * self._stream.time_base
        # Matroska has one duration for all of its streams.
        alone = len(self._container.streams) == 1
        return Fraction(self._container.duration, self._av.time_base) if alone and self._container.duration else None

    def _check_length(self, end: int) -> None:
        """Say when the file promises more than came."""
        seconds, start = self._seconds(), (self._stream.start_time or 0) * self.track.time_base
        came = end * self.track.time_base - start
        if self.damage is None and seconds is not None and came < seconds - Fraction(_LACKING):
            self.damage = f"it breaks off after {float(came):.1f} of {float(seconds):.1f} s"


def usual_matrix(height: int) -> int:
    """Return the matrix between YUV and RGB of a video of so many lines that does not say."""
    return _BT709 if height >= _HIGH_DEFINITION else _BT601


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
