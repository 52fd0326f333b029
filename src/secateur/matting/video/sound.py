"""The sound of a video, taken over into another one: as it is where the container may hold it, else encoded anew."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

from secateur.runtimes.packages import require

_MP4 = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus"})
# What containers hold, and what is encoded for them otherwise.
_HELD: dict[str, frozenset[str]] = {
    ".webm": frozenset({"opus", "vorbis"}),
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": frozenset({"aac", "mp3", "ac3", "alac", "pcm_s16le", "pcm_s24le"}),
}
_ENCODER = {".webm": "libopus", ".mp4": "aac", ".m4v": "aac", ".mov": "aac"}
_USUAL_RATE = 48_000  # Opus has no other
_AAC_RATES = frozenset({96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000})

_log = logging.getLogger("secateur")


class Sound:
    """The sound tracks of a file, written into a container as its pictures go on.

    The file is opened a second time, so that neither pictures nor sound wait in memory for each other.
    """

    def __init__(self, source: Path, container: Any, suffix: str) -> None:
        self._av, self._into = require("av"), container
        self._from = self._av.open(str(source), metadata_errors="replace")
        self._targets = {one.index: self._added(one, suffix) for one in self._from.streams.audio if one.codec_context}
        self._packets = self._demuxed()
        self._waiting = next(self._packets, None)

    def write_until(self, seconds: Fraction | None) -> None:
        """Write what begins before a time; None: all that is left."""
        while self._waiting is not None and (seconds is None or self._waiting.dts * self._waiting.time_base < seconds):
            self._write(self._waiting)
            self._waiting = next(self._packets, None)
        if seconds is None:
            for target, encodes in self._targets.values():
                if encodes and target.codec_context.is_open:
                    self._into.mux(target.encode(None))

    def close(self) -> None:
        """Close the file that it comes from."""
        self._from.close()

    def _added(self, stream: Any, suffix: str) -> tuple[Any, bool]:
        """Add a track for a track; tells whether it is encoded anew."""
        held = _HELD.get(suffix)
        if held is None or stream.codec_context.name in held:
            target, encodes = self._into.add_stream_from_template(stream), False
        else:
            encoder = _ENCODER[suffix]
            rate = stream.rate if encoder == "aac" and stream.rate in _AAC_RATES else _USUAL_RATE
            layout = "mono" if stream.channels == 1 else "stereo"
            target, encodes = self._into.add_stream(encoder, rate=rate, layout=layout), True
            _log.info("Sound: %s becomes %s, which %s holds.", stream.codec_context.name, encoder, suffix)
        target.metadata.update({key: value for key, value in stream.metadata.items() if key in ("language", "title")})
        return target, encodes

    def _demuxed(self) -> Iterator[Any]:
        streams = [one for one in self._from.streams.audio if one.index in self._targets]
        if streams:
            with suppress(self._av.FFmpegError, OSError):  # a broken end; the pictures tell of it
                yield from (packet for packet in self._from.demux(streams) if packet.dts is not None)

    def _write(self, packet: Any) -> None:
        target, encodes = self._targets[packet.stream.index]
        if not encodes:
            packet.stream = target
            self._into.mux(packet)
            return
        with suppress(self._av.InvalidDataError):  # a broken packet is a gap
            for frame in packet.decode():
                self._into.mux(target.encode(frame))
