"""Whatever a picture was saved as, it is read upright, in RGB of 8 bits, with its transparency."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest

from secateur.errors import DataError
from secateur.matting.pictures import load_picture, read_alpha, read_rgb, save_picture
from secateur.models.pictures import prepared_pictures
from tests.matting.making import disc

Image = pytest.importorskip("PIL.Image")
PICTURE = disc(40, 60)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_camera_said(tmp_path, orientation):
    pixels = PICTURE.copy()
    pixels[:10, :10] = 255
    turned = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, 1), 7: pixels[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(pixels, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_rgb(tmp_path / "a.png"), pixels)


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "YCbCr", "RGBX"])
def test_colours_survive_their_mode(tmp_path, mode):
    Image.fromarray(PICTURE).convert(mode).save(tmp_path / "a.tif")
    assert np.abs(read_rgb(tmp_path / "a.tif").astype(int) - PICTURE).max() <= 6


def test_cmyk_from_a_jpeg_is_not_inverted(tmp_path):
    Image.fromarray(PICTURE).convert("CMYK").save(tmp_path / "a.jpg", quality=100, subsampling=0)
    assert np.abs(read_rgb(tmp_path / "a.jpg").astype(int) - PICTURE).max() <= 10


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_become_eight(tmp_path, suffix):
    ramp = np.linspace(0, 65535, 40 * 60).reshape(40, 60).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / f"a{suffix}")
    expected = np.round(ramp / 257).astype(int)
    assert np.abs(read_rgb(tmp_path / f"a{suffix}")[..., 1].astype(int) - expected).max() <= 1
    assert np.abs(read_alpha(tmp_path / f"a{suffix}").astype(int) - expected).max() <= 1


def test_floating_point_grey_of_0_to_1_fills_the_range(tmp_path):
    ramp = np.linspace(0, 1, 40 * 60).reshape(40, 60).astype(np.float32)
    Image.fromarray(ramp).save(tmp_path / "a.tif")
    assert read_alpha(tmp_path / "a.tif").max() == 255
    assert np.abs(read_alpha(tmp_path / "a.tif") - ramp * 255).max() <= 0.51


def test_a_palette_keeps_its_colours_and_its_hole(tmp_path):
    palette = Image.fromarray(PICTURE).quantize(2)
    palette.save(tmp_path / "a.gif", transparency=int(palette.getpixel((0, 0))))
    found = load_picture(tmp_path / "a.gif")
    assert np.abs(found.colours.astype(int) - PICTURE).max() <= 2
    assert found.alpha is not None
    assert found.alpha[0, 0] == 0
    assert found.alpha[20, 30] == 255


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_kept_beside_the_colours(tmp_path, mode):
    alpha = np.linspace(0, 255, 40 * 60).reshape(40, 60).astype(np.uint8)
    image = Image.fromarray(PICTURE).convert(mode[:-1])
    image.putalpha(Image.fromarray(alpha))
    image.save(tmp_path / "a.png")
    found = load_picture(tmp_path / "a.png")
    assert np.array_equal(found.alpha, alpha)
    assert np.array_equal(found.colours, np.asarray(Image.fromarray(PICTURE).convert(mode[:-1]).convert("RGB")))
    assert np.array_equal(read_alpha(tmp_path / "a.png"), alpha)


def test_of_an_animation_the_first_picture_is_taken_and_all_are_counted(tmp_path):
    first, *others = (Image.fromarray(np.full((8, 8, 3), shade, np.uint8)) for shade in (10, 100, 200))
    first.save(tmp_path / "a.gif", save_all=True, append_images=others)
    found = load_picture(tmp_path / "a.gif")
    assert found.frames == 3
    assert found.colours[0, 0, 0] == 10


def test_a_profile_goes_from_file_to_file(tmp_path):
    management = pytest.importorskip("PIL.ImageCms")
    profile = management.ImageCmsProfile(management.createProfile("sRGB")).tobytes()
    Image.fromarray(PICTURE).save(tmp_path / "a.jpg", icc_profile=profile)
    found = load_picture(tmp_path / "a.jpg")
    save_picture(tmp_path / "b.png", np.dstack((found.colours, found.colours[..., :1])), ".png", found.profile)
    assert load_picture(tmp_path / "b.png").profile == profile
    Image.fromarray(PICTURE).convert("L").save(tmp_path / "c.jpg", icc_profile=profile)
    assert load_picture(tmp_path / "c.jpg").profile is None


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".gif"])
def test_a_truncated_file_is_named(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (100, 100, 3), np.uint8)
    whole = io.BytesIO()
    Image.fromarray(noise).save(whole, {".jpg": "JPEG", ".tif": "TIFF"}.get(suffix, suffix[1:].upper()))
    (tmp_path / f"cut{suffix}").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    with pytest.raises(DataError, match=f"cut{suffix} cannot be read as a picture"):
        read_rgb(tmp_path / f"cut{suffix}")


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_named(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png cannot be read as a picture"):
        read_rgb(tmp_path / "a.png")
    with pytest.raises(DataError, match="The input cannot be read as a picture"):
        load_picture(content, "The input")


def test_a_picture_that_claims_to_be_enormous_is_refused(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6\n100000 100000\n255\n")
    with pytest.raises(DataError, match="too many"):
        read_rgb(tmp_path / "a.ppm")


def test_a_picture_beyond_pillows_own_limit_is_read_without_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_rgb(tmp_path / "a.png").shape == PICTURE.shape
    assert Image.MAX_IMAGE_PIXELS == 100


def test_sixteen_bits_keep_their_tones_where_a_model_is_calibrated(tmp_path):
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    (found,) = prepared_pictures([tmp_path / "deep.png"], (1, 3, 64, 64), (0, 0, 0), (1, 1, 1))
    np.testing.assert_allclose(found[0, 1].numpy(), ramp / 65535, atol=1 / 255)


@pytest.mark.parametrize(("mean", "std"), [((0, 0), (1, 1, 1)), ((0, 0, 0), (1, 0, 1)), ("imagenet", (1, 1, 1))])
def test_preprocessing_that_does_not_fit_the_channels_is_told(mean, std):
    with pytest.raises(DataError, match=r"mean=.*, std=.*, and its pictures have 3 channels"):
        list(prepared_pictures([], (1, 3, 64, 64), mean, std))
