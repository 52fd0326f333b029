"""Frames into a video, each at its time, with the sound of another one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from secateur.matting.video.reading import Track
from secateur.matting.video.sound import Sound
from secateur.runtimes.packages import require


@dataclass(frozen=True)
class Encoding:
    """How frames are encoded."""

    codec: str
    pixels: str
    options: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


_VP9_OPTIONS = {
    # Constant quality at the speed of a live encoder: the network is to be what takes the time.
    "crf": "28", "b": "0", "deadline": "realtime", "cpu-used": "8", "row-mt": "1", "lag-in-frames": "0",
    "auto-alt-ref": "0",  # the encoder's frames that are never shown have no alpha
}  # fmt: skip
# Without B-frames, no stream begins before zero, and none is shifted to make up for it.
_H264 = Encoding("libx264", "yuv420p", {"crf": "18", "preset": "superfast", "bf": "0"})
_VP9 = Encoding("libvpx-vp9", "yuv420p", _VP9_OPTIONS)
_VP9_ALPHA = Encoding("libvpx-vp9", "yuva420p", _VP9_OPTIONS, {"alpha_mode": "1"})
_PRORES = Encoding("prores_ks", "yuva444p10le", {"profile": "4"})

TRANSPARENT = {".webm": _VP9_ALPHA, ".mkv": _VP9_ALPHA, ".mov": _PRORES}
OPAQUE = {".mp4": _H264, ".m4v": _H264, ".mov": _H264, ".mkv": _H264, ".webm": _VP9}
_PLAYED_WHILE_LOADED = (".mp4", ".m4v", ".mov")
_LIMITED = 1  # the range of luma, 16 to 235
_FORMATS = {1: "gray", 3: "rgb24", 4: "rgba"}


class VideoWriter:
    """A video that is being written.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, container: Any, encoding: Encoding, track: Track) -> None:
        self._av, self._container, self._track = require("av"), container, track
        self.sound: Sound | None = None
        # Chroma has half the size: an odd side gets its last line twice.
        even = encoding.pixels != "yuva444p10le"
        self._padding = [(0, side % 2 if even else 0) for side in track.size]
        height, width = (side + more for side, (_, more) in zip(track.size, self._padding, strict=True))
        self._stream = container.add_stream(encoding.codec, rate=track.rate, options=dict(encoding.options))
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, encoding.pixels
        self._stream.metadata.update(encoding.metadata)
        self._stream.time_base = track.time_base
        context = self._stream.codec_context
        context.time_base, context.sample_aspect_ratio = track.time_base, track.pixel_aspect
        context.colorspace, context.color_range = track.matrix, _LIMITED
        context.color_primaries, context.color_trc = track.primaries, track.transfer

    def write(self, pixels: np.ndarray, time: int, duration: int) -> None:
        """Write pixels (height, width[, 3 or 4]) of uint8 at a time of the track's."""
        if any(more for _, more in self._padding):
            pixels = np.pad(pixels, self._padding + [(0, 0)] * (pixels.ndim - 2), mode="edge")
        kind = _FORMATS[1 if pixels.ndim == 2 else pixels.shape[2]]
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=kind).reformat(
            format=self._stream.pix_fmt, dst_colorspace=self._track.matrix, dst_color_range=_LIMITED, threads=1
        )
        frame.pts, frame.time_base, frame.duration = time, self._track.time_base, duration
        if self.sound is not None:
            self.sound.write_until(time * self._track.time_base)
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write what the encoder still holds, and the rest of the sound."""
        self._container.mux(self._stream.encode(None))
        if self.sound is not None:
            self.sound.write_until(None)


@contextmanager
def writing(path: Path, encoding: Encoding, track: Track, source: Path | None) -> Iterator[VideoWriter]:
    """Open a video to be written, with the sound of the file `source`, if any, and complete it after the body.

    Raises:
        OSError: it cannot be written.
    """
    av = require("av")
    options = {"movflags": "+faststart"} if path.suffix.lower() in _PLAYED_WHILE_LOADED else {}
    try:
        with av.open(str(path), "w", options=options) as container:
            writer = VideoWriter(container, encoding, track)
            sound = None if source is None else Sound(source, container, path.suffix.lower())
            with nullcontext() if sound is None else closing(sound) as writer.sound:
                yield writer
                writer.finish()
    except av.FFmpegError as error:
        raise OSError(error.errno or 0, error.strerror or str(error)) from error
