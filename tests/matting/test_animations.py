"""An animated picture is read frame by frame, each as long as it is shown; what is broken says so."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("cv2")

from PIL import Image, features

from secateur.errors import DataError
from secateur.matting.finishing import Finish, plain
from secateur.matting.video.animations import AnimationReader, is_animated
from secateur.matting.video.converting import convert_to_pictures, convert_video
from secateur.matting.video.reading import Frame
from tests.matting.making import RED, alphas_of, disc, frames_of, redness, times_of

DURATIONS = (40, 300, 100, 60)
MOVING = [".gif", ".png", ".webp"]
GREEN = Finish(background=plain((0, 200, 0)))


def radii(count=4):
    return [0.15 + 0.08 * number for number in range(count)]


def animate(path, durations=DURATIONS, transparent=False, **options):
    """Write red discs on blue that grow; with `transparent`, the blue is see-through."""
    pictures = [Image.fromarray(disc(60, 80, radius)) for radius in radii(len(durations))]
    if transparent:
        for picture in pictures:
            picture.putalpha(picture.getchannel("R").point(lambda red: 255 if red > 128 else 0))
    lossless = {"lossless": True} if path.suffix == ".webp" else {}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=list(durations), **lossless, **options)
    return path


def frames_in(path) -> list[Frame]:
    with AnimationReader(path) as reader:
        found = list(reader.frames())
        assert reader.damage is None
    return found


def red_share(colours):
    return (colours[..., 0] > 128).mean()


@pytest.mark.parametrize("suffix", MOVING)
def test_frames_come_in_order_each_for_as_long_as_it_is_shown(tmp_path, suffix):
    found = frames_in(animate(tmp_path / f"in{suffix}"))
    assert [(frame.time, frame.duration) for frame in found] == [(0, 40), (40, 300), (340, 100), (440, 60)]
    for frame, radius in zip(found, radii(), strict=True):
        assert np.abs(frame.colours.astype(int) - disc(60, 80, radius)).max() <= 6


@pytest.mark.skipif(not features.check("avif"), reason="Pillow was built without AVIF")
def test_an_avif_moves(tmp_path):
    found = frames_in(animate(tmp_path / "in.avif"))
    assert [frame.duration for frame in found] == list(DURATIONS)
    assert red_share(found[0].colours) < red_share(found[3].colours)


@pytest.mark.parametrize("suffix", MOVING)
def test_what_is_to_last_no_time_is_shown_as_browsers_do(tmp_path, suffix):
    found = frames_in(animate(tmp_path / f"in{suffix}", (0, 10, 20, 500)))
    assert [frame.duration for frame in found] == [100, 100, 20, 500]


def test_an_apng_of_sixty_frames_a_second_does_not_drift(tmp_path):
    path = animate(tmp_path / "in.png", [1000 / 60] * 6)
    with AnimationReader(path) as reader:
        assert reader.track.rate == 60
        assert [frame.time for frame in reader.frames()] == [0, 17, 33, 50, 67, 83]


@pytest.mark.parametrize("target", ["out.webm", "out.mp4", "out.mov"])
def test_frames_may_last_an_hour(tmp_path, target):
    path = animate(tmp_path / "in.webp", (3_600_000, 100))
    with AnimationReader(path) as reader:
        assert reader.track.rate * 3600 == 1
        assert convert_video(reader, tmp_path / target, redness(), GREEN) == 2
    np.testing.assert_allclose(times_of(tmp_path / target), [0, 3600], atol=1e-3)


def test_the_picture_for_those_who_show_no_animation_is_no_frame(tmp_path):
    path = tmp_path / "in.png"
    pictures = [Image.fromarray(disc(60, 80, radius)) for radius in (0.1, 0.3, 0.4)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=50, default_image=True)
    found = frames_in(path)
    assert len(found) == 2
    assert (found[0].colours == disc(60, 80, 0.3)).all()


def test_frames_come_upright(tmp_path):
    orientation = Image.Exif()
    orientation[0x0112] = 6
    path = animate(tmp_path / "in.webp", exif=orientation)
    with AnimationReader(path) as reader:
        assert reader.track.size == (80, 60)
        assert {frame.colours.shape for frame in reader.frames()} == {(80, 60, 3)}


@pytest.mark.parametrize("suffix", MOVING)
@pytest.mark.parametrize("target", ["out.webm", "out.mov", "out.mkv"])
def test_an_animated_picture_becomes_a_transparent_video_at_its_times(tmp_path, suffix, target):
    path, told = animate(tmp_path / f"in{suffix}"), []
    with AnimationReader(path) as reader:
        assert convert_video(reader, tmp_path / target, redness(), Finish(), 3, lambda: told.append(1)) == 4
        assert len(told) == reader.track.count == 4
    np.testing.assert_allclose(times_of(tmp_path / target), [0, 0.04, 0.34, 0.44], atol=1e-3)
    if target == "out.webm":
        for alpha, radius in zip(alphas_of(tmp_path / target), radii(), strict=True):
            inside = disc(60, 80, radius)[..., 0] > 128
            assert alpha[inside].mean() > 220
            assert alpha[~inside].mean() < 35


@pytest.mark.parametrize("suffix", MOVING)
def test_frames_become_pictures_in_a_folder(tmp_path, suffix):
    with AnimationReader(animate(tmp_path / f"in{suffix}")) as reader:
        assert convert_to_pictures(reader, tmp_path / "out", redness(), Finish("mask")) == 4
    with Image.open(tmp_path / "out" / "000004.png") as image:
        inside = disc(60, 80, radii()[3])[..., 0] > 128
        assert np.asarray(image)[inside].mean() > 230


@pytest.mark.parametrize("suffix", MOVING)
def test_what_is_transparent_stays_so(tmp_path, suffix):
    path = animate(tmp_path / f"in{suffix}", transparent=True)
    all_kept = Finish(GREEN.kind, GREEN.background, lambda colours, _: np.ones(colours.shape[:2], np.float32))
    with AnimationReader(path) as reader:
        convert_video(reader, tmp_path / "out.mov", redness(), all_kept)
    for colours, radius in zip(frames_of(tmp_path / "out.mov"), radii(), strict=True):
        inside = disc(60, 80, radius)[..., 0] > 128
        assert np.abs(colours[30, 40].astype(int) - RED).max() < 30
        assert colours[inside, 0].mean() > 200
        assert colours[~inside, 1].mean() > 170


def test_the_network_sees_grey_under_what_is_transparent(tmp_path):
    pictures = [Image.new("RGBA", (64, 64), (250, 10, 10, alpha)) for alpha in (255, 0)]
    pictures[0].save(tmp_path / "in.png", save_all=True, append_images=pictures[1:], duration=50, blend=0)
    seen = []

    def noting(colours, matte):
        seen.append(float(matte.mean()))
        return np.zeros(colours.shape[:2], np.float32)

    with AnimationReader(tmp_path / "in.png") as reader:
        convert_to_pictures(reader, tmp_path / "out", redness(), Finish("mask", refinement=noting))
    np.testing.assert_allclose(sorted(seen), [0.5, 0.98], atol=0.01)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("suffix", MOVING[:2])
def test_where_it_breaks_off_the_frames_before_are_kept(tmp_path, suffix, share):
    whole = animate(tmp_path / f"in{suffix}").read_bytes()
    (tmp_path / f"in{suffix}").write_bytes(whole[: int(len(whole) * share)])
    with AnimationReader(tmp_path / f"in{suffix}") as reader:
        count = convert_video(reader, tmp_path / "out.mp4", redness(), GREEN)
    assert 1 <= count < 4
    assert len(times_of(tmp_path / "out.mp4")) == count
    assert "breaks off" in reader.damage


@pytest.mark.parametrize("kept", [0, 20, 60])
@pytest.mark.parametrize("suffix", MOVING)
def test_what_has_no_frame_is_refused(tmp_path, suffix, kept):
    path = animate(tmp_path / f"in{suffix}")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=f"in{suffix} cannot be read as a picture"):
        AnimationReader(path)


@pytest.mark.parametrize("suffix", MOVING)
def test_what_moves_is_told_from_what_does_not(tmp_path, suffix):
    assert is_animated(animate(tmp_path / f"moving{suffix}"))
    Image.fromarray(disc(60, 80)).save(tmp_path / f"still{suffix}")
    assert not is_animated(tmp_path / f"still{suffix}")
    (tmp_path / f"broken{suffix}").write_bytes(b"none")
    assert not is_animated(tmp_path / f"broken{suffix}")


def test_pages_do_not_move(tmp_path):
    pages = [Image.fromarray(disc(60, 80, radius)) for radius in (0.1, 0.3)]
    pages[0].save(tmp_path / "in.tif", save_all=True, append_images=pages[1:])
    with Image.open(tmp_path / "in.tif") as image:
        assert image.is_animated  # as Pillow calls it
    assert not is_animated(tmp_path / "in.tif")
