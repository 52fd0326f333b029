"""A video keeps its times, its way up and its sound, and shows the alpha; what is broken says so."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("cv2")

import av

from secateur.errors import DataError
from secateur.matting.finishing import Finish, plain
from secateur.matting.video.converting import convert_to_pictures, convert_video
from secateur.matting.video.reading import VideoReader
from tests.matting.making import alphas_of, beep_of, disc, frames_of, make_video, redness, times_of

VARIABLE = (0, 40, 80, 300, 310, 320, 900, 1000, 1400, 2000)  # milliseconds
GREEN = Finish(background=plain((0, 200, 0)))


def converted(source, target, finish, batch=1):
    with VideoReader(source) as reader:
        return convert_video(reader, target, redness(), finish, batch), reader


@pytest.mark.parametrize("batch", [1, 3])
def test_a_transparent_webm_has_alpha_and_says_so(tmp_path, batch):
    make_video(tmp_path / "in.mp4", size=(96, 128))
    count, _ = converted(tmp_path / "in.mp4", tmp_path / "out.webm", Finish(), batch)
    assert count == 10
    with av.open(str(tmp_path / "out.webm")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "vp9"
    assert b"\x53\xc0\x81\x01" in (tmp_path / "out.webm").read_bytes()  # Matroska's AlphaMode, 1
    alphas = alphas_of(tmp_path / "out.webm")
    assert len(alphas) == 10
    expected = disc(96, 128)[..., 0] > 128
    for alpha in alphas:
        assert alpha[expected].mean() > 225
        assert alpha[30:][~expected[30:]].mean() < 30
    colours = frames_of(tmp_path / "out.webm")[0]
    assert np.abs(colours[48, 64].astype(int) - (250, 10, 10)).max() < 25


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".mov"])
def test_variable_times_stay_to_the_millisecond(tmp_path, suffix):
    make_video(tmp_path / "in.mkv", VARIABLE)
    converted(tmp_path / "in.mkv", tmp_path / f"out{suffix}", GREEN)
    np.testing.assert_allclose(times_of(tmp_path / f"out{suffix}"), times_of(tmp_path / "in.mkv"), atol=1.1e-3)


def test_odd_frame_rates_do_not_drift(tmp_path):
    make_video(tmp_path / "in.mp4", tuple(range(0, 120 * 1001, 1001)), Fraction(1, 30000), size=(32, 32))
    converted(tmp_path / "in.mp4", tmp_path / "out.mp4", Finish("mask"))
    found, wanted = times_of(tmp_path / "out.mp4"), times_of(tmp_path / "in.mp4")
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("source", "target", "codec", "kept"),
    [
        (".mp4", ".mp4", "aac", "aac"),
        (".mp4", ".mkv", "aac", "aac"),
        (".mp4", ".webm", "aac", "opus"),
        (".webm", ".webm", "libopus", "opus"),
        (".mkv", ".mp4", "libopus", "opus"),
        (".mkv", ".mov", "flac", "aac"),
    ],
)
def test_the_sound_stays_where_it_was(tmp_path, source, target, codec, kept):
    video = "libvpx-vp9" if source == ".webm" else "libx264"
    make_video(tmp_path / f"in{source}", tuple(range(0, 3000, 100)), codec=video, sound=codec)
    converted(tmp_path / f"in{source}", tmp_path / f"out{target}", GREEN)
    with av.open(str(tmp_path / f"out{target}")) as container:
        assert [one.codec_context.name for one in container.streams.audio] == [kept]
    beeps = [beep_of(tmp_path / name) - times_of(tmp_path / name)[0] for name in (f"in{source}", f"out{target}")]
    assert abs(beeps[0] - beeps[1]) < 0.03


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_a_turned_video_comes_out_upright(tmp_path, rotation):
    make_video(tmp_path / "in.mp4", size=(64, 96), rotation=rotation)
    with VideoReader(tmp_path / "in.mp4") as reader:
        first = next(iter(reader.frames())).colours
        assert first.shape[:2] == reader.track.size == ((64, 96) if rotation == 180 else (96, 64))
    stored = frames_of(tmp_path / "in.mp4")[0]
    assert np.abs(first.astype(int) - np.rot90(stored, rotation // 90)).mean() < 3
    converted(tmp_path / "in.mp4", tmp_path / "out.mp4", GREEN)
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.height, frame.width) == first.shape[:2]
        assert frame.rotation == 0


def test_colours_come_back_as_they_were(tmp_path):
    for matrix in (1, 5):
        make_video(tmp_path / "in.mp4", (0, 40))
        with VideoReader(tmp_path / "in.mp4") as reader:
            object.__setattr__(reader.track, "matrix", matrix)
            convert_video(reader, tmp_path / "out.mp4", redness(), Finish(background=lambda colours, _: colours))
        with av.open(str(tmp_path / "out.mp4")) as container:
            frame = next(container.decode(video=0))
            assert frame.colorspace == matrix
        source, found = frames_of(tmp_path / "in.mp4")[0], frame.to_ndarray(format="rgb24", src_colorspace=matrix)
        wanted = source if matrix == 5 else None
        if wanted is not None:
            assert np.abs(found.astype(int) - wanted).mean() < 4


def test_odd_sides_are_kept_by_webm_and_made_even_for_chroma(tmp_path):
    make_video(tmp_path / "in.webm", (0, 40), size=(65, 97), codec="libvpx-vp9")
    converted(tmp_path / "in.webm", tmp_path / "out.mp4", GREEN)
    assert frames_of(tmp_path / "out.mp4")[0].shape == (66, 98, 3)


def test_frames_become_pictures_in_a_folder_and_those_there_are_left(tmp_path):
    from PIL import Image

    make_video(tmp_path / "in.mp4")
    with VideoReader(tmp_path / "in.mp4") as reader:
        assert convert_to_pictures(reader, tmp_path / "out", redness(), Finish()) == 10
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"{number:06}.png" for number in range(1, 11)]
    with Image.open(tmp_path / "out" / "000003.png") as image:
        assert image.mode == "RGBA"
    (tmp_path / "out" / "000004.png").unlink()
    with VideoReader(tmp_path / "in.mp4") as reader:
        assert convert_to_pictures(reader, tmp_path / "out", redness(), Finish(), resume=True) == 1


@pytest.mark.parametrize("source", ["in.mkv", "in.ts"])
def test_of_a_broken_video_what_was_decoded_is_kept_and_the_rest_is_told(tmp_path, source):
    make_video(tmp_path / source, tuple(range(0, 4000, 40)), size=(240, 320))
    whole = (tmp_path / source).read_bytes()
    (tmp_path / source).write_bytes(whole[: len(whole) // 2])
    count, reader = converted(tmp_path / source, tmp_path / "out.mp4", GREEN)
    assert 10 < count < 100
    assert len(times_of(tmp_path / "out.mp4")) == count
    if source == "in.mkv":
        assert "breaks off" in reader.damage


def test_garbage_in_the_middle_is_told(tmp_path):
    make_video(tmp_path / "in.mkv", tuple(range(0, 4000, 40)), size=(240, 320), codec="libvpx-vp9")
    whole = bytearray((tmp_path / "in.mkv").read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 3000] = bytes(3000)
    (tmp_path / "in.mkv").write_bytes(whole)
    count, reader = converted(tmp_path / "in.mkv", tmp_path / "out.mp4", GREEN)
    assert count > 20
    assert reader.damage


def test_a_sound_longer_than_the_pictures_is_no_damage(tmp_path):
    make_video(tmp_path / "in.mkv", tuple(range(0, 2000, 40)), sound="aac")
    _, reader = converted(tmp_path / "in.mkv", tmp_path / "out.mkv", GREEN)
    assert reader.damage is None


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: path.write_bytes(b"nothing of a video"), "cannot be read as a video|no frame"),
        (lambda path: path.write_bytes(b""), "cannot be read as a video"),
        (lambda path: None, "is not there"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path, make, expected):
    make(tmp_path / "in.mp4")
    with pytest.raises(DataError, match=expected):
        VideoReader(tmp_path / "in.mp4")


def test_a_video_without_frames_is_refused(tmp_path):
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        track = container.add_stream("flac", rate=48000, layout="mono")
        part = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), format="s16", layout="mono")
        part.sample_rate = 48000
        container.mux(track.encode(part))
        container.mux(track.encode(None))
    with pytest.raises(DataError, match="holds no video, only audio"):
        VideoReader(tmp_path / "sound.mkv")
    make_video(tmp_path / "in.mkv", (0, 40), size=(240, 320))
    whole = (tmp_path / "in.mkv").read_bytes()
    (tmp_path / "in.mkv").write_bytes(whole[:700])
    with pytest.raises(DataError, match=r"no frame that can be decoded|cannot be read as a video"):
        VideoReader(tmp_path / "in.mkv")


@pytest.mark.parametrize(
    ("target", "finish", "expected"),
    [
        ("out.mp4", Finish(), "would hold no transparency"),
        ("out.xyz", Finish(), "no video that can be written"),
        ("out.gif", GREEN, "no video that can be written"),
    ],
)
def test_a_target_that_cannot_hold_it_is_refused(tmp_path, target, finish, expected):
    make_video(tmp_path / "in.mp4", (0, 40))
    with pytest.raises(DataError, match=expected):
        converted(tmp_path / "in.mp4", tmp_path / target, finish)
    assert not (tmp_path / target).exists()


def test_an_error_in_the_middle_leaves_no_file_and_no_thread(tmp_path):
    make_video(tmp_path / "in.mp4", tuple(range(0, 4000, 40)))
    calls = []

    def failing(colours, matte):
        calls.append(1)
        if len(calls) == 20:
            raise DataError("twenty is enough")
        return colours

    with pytest.raises(DataError, match="twenty"):
        converted(tmp_path / "in.mp4", tmp_path / "out.mp4", Finish(background=failing))
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize("target", ["out.webm", "out.mp4"])
def test_a_video_in_rgb_is_written_with_a_matrix(tmp_path, target):
    with av.open(str(tmp_path / "in.mkv"), "w") as container:
        stream = container.add_stream("libx264rgb", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "rgb24"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(disc(64, 96), format="rgb24")))
        container.mux(stream.encode(None))
    converted(tmp_path / "in.mkv", tmp_path / target, Finish(background=lambda colours, _: colours))
    with av.open(str(tmp_path / target)) as container:
        frame = next(container.decode(video=0))
        assert frame.colorspace == 5
        assert np.abs(frame.to_ndarray(format="rgb24")[32, 48].astype(int) - (250, 10, 10)).max() < 25


def test_a_sound_of_a_rate_that_the_target_lacks_is_resampled(tmp_path):
    make_video(tmp_path / "in.mkv", tuple(range(0, 1000, 100)))
    with av.open(str(tmp_path / "in.mkv")) as source, av.open(str(tmp_path / "loud.mkv"), "w") as container:
        picture = container.add_stream_from_template(source.streams.video[0])
        track = container.add_stream("flac", rate=192_000, layout="mono")
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = picture
                container.mux(packet)
        part = av.AudioFrame.from_ndarray(np.zeros((1, 96_000), np.int16), format="s16", layout="mono")
        part.sample_rate, part.pts, part.time_base = 192_000, 0, Fraction(1, 192_000)
        for packet in (*track.encode(part), *track.encode(None)):
            container.mux(packet)
    converted(tmp_path / "loud.mkv", tmp_path / "out.mp4", GREEN)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.audio[0].rate == 48_000
