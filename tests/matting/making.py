"""Pictures, videos and a network that the tests make for themselves."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from secateur.matting.predicting import Predictor, open_predictor
from secateur.runtimes.network import Network

av = pytest.importorskip("av")

RED, BLUE = (250, 10, 10), (10, 10, 250)
SOUND_RATE = 48_000


class Redness(nn.Module):
    """A network whose matte is the red of the picture."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x[:, :1] + 1) / 2


def redness() -> Predictor:
    return open_predictor(Network.of_model("redness", Redness(), torch.zeros(1, 3, 64, 64)))


def disc(height: int, width: int, radius: float = 0.3) -> np.ndarray:
    """Return a red disc on blue, (height, width, 3)."""
    rows, columns = np.mgrid[:height, :width]
    inside = np.hypot(rows - height / 2, columns - width / 2) < radius * min(height, width)
    return np.where(inside[..., None], np.uint8(RED), np.uint8(BLUE))


def make_video(
    path: Path,
    times: Sequence[int] = tuple(range(0, 400, 40)),
    time_base: Fraction = Fraction(1, 1000),
    size: tuple[int, int] = (64, 96),
    codec: str = "libx264",
    sound: str | None = None,
    rotation: int = 0,
) -> None:
    """Write a video whose frames get brighter, with sound that beeps in its second half."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = time_base
        if codec == "libx264":
            stream.options = {"bf": "0"}
        if rotation:
            stream.set_display_rotation(rotation)
        track = None if sound is None else container.add_stream(sound, rate=SOUND_RATE, layout="mono")
        for number, time in enumerate(times):
            pixels = disc(*size)
            pixels[: size[0] // 4] = (20 * number % 256, 0, 0)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if track is not None:
            seconds = float(times[-1] * time_base)
            told = np.arange(int(seconds * SOUND_RATE))
            wave = np.where(told > len(told) // 2, np.sin(told * 0.05) * 8000, 0).astype(np.int16)
            for start in range(0, len(wave), 960):
                part = av.AudioFrame.from_ndarray(wave[None, start : start + 960], format="s16", layout="mono")
                part.sample_rate, part.pts, part.time_base = SOUND_RATE, start, Fraction(1, SOUND_RATE)
                container.mux(track.encode(part))
            container.mux(track.encode(None))


def times_of(path: Path) -> list[float]:
    """Return when the frames of a video are shown, in seconds."""
    with av.open(str(path)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


def frames_of(path: Path) -> list[np.ndarray]:
    """Return the frames of a video, in RGB."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def alphas_of(path: Path) -> list[np.ndarray]:
    """Return the transparency of a VP9 video's frames."""
    with av.open(str(path)) as container:
        decoder = av.CodecContext.create("libvpx-vp9", "r")
        found = [frame for packet in container.demux(video=0) for frame in decoder.decode(packet)]
        return [frame.to_ndarray(format="rgba")[..., 3] for frame in found]


def beep_of(path: Path) -> float:
    """Return when the sound of a video gets loud, in seconds."""
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            values = np.abs(frame.to_ndarray().astype(np.float64)).max(axis=0)
            loud = values > (2000 if frame.format.name.startswith("s16") else 0.06)
            if loud.any():
                return float(frame.pts * frame.time_base) + int(np.argmax(loud)) / frame.sample_rate
    raise AssertionError(f"{path} is silent")
