"""What is wrong with a data set is found, all of it, and nothing is found where nothing is wrong."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from secateur.matting.checking import check_data
from secateur.matting.layouts import find_layout
from secateur.matting.pictures import read_alpha
from tests.matting.data_sets import disc, write_set


@pytest.fixture
def folder(tmp_path):
    return write_set(tmp_path / "set", ["ann", "bob", "cid"])


def findings(folder):
    """Return what was found, by the file's place in the set, with whether it can be used."""
    checked = check_data(find_layout(folder))
    return {(str(one.path.relative_to(folder)), one.unusable): one.what for one in checked.findings}


def test_nothing_is_wrong_with_a_good_set(folder):
    checked = check_data(find_layout(folder))
    assert checked.findings == ()
    assert checked.unusable == 0
    assert checked.sizes == {(64, 48): 3}
    assert checked.depths == {"8 bits": 3}


def test_all_files_without_partners_are_listed(folder):
    for part, name in (("image", "dan"), ("image", "eve"), ("alpha", "fay")):
        shutil.copy(folder / part / "ann.png", folder / part / f"{name}.png")
    Image.open(folder / "image" / "bob.png").save(folder / "image" / "bob.jpg")
    found = findings(folder)
    assert "has no matte" in found["image/dan.png", True]
    assert "has no matte" in found["image/eve.png", True]
    assert "is the matte of no picture" in found["alpha/fay.png", True]
    assert "bob.png beside it have one name" in found["image/bob.jpg", True]


def test_broken_files_and_sizes_are_found(folder):
    (folder / "image" / "ann.png").write_bytes((folder / "image" / "ann.png").read_bytes()[:900])
    (folder / "alpha" / "bob.png").write_bytes(b"no picture")
    Image.new("L", (10, 20), 255).save(folder / "alpha" / "cid.png")
    found = findings(folder)
    assert "cannot be read" in found["image/ann.png", True]
    assert "cannot be read" in found["alpha/bob.png", True]
    assert "is 10x20" in found["alpha/cid.png", True]
    assert check_data(find_layout(folder)).unusable == 3


@pytest.mark.parametrize(
    ("changed", "unusable", "expected"),
    [
        (lambda matte: matte * 0, True, "0 everywhere"),
        (lambda matte: matte // 255, True, "mask of 0 and 1"),
        (lambda matte: matte * 0 + 255, False, "no background"),
        (lambda matte: (matte > 127) * np.uint8(255), False, "without soft edges"),
        (lambda matte: matte // 2, False, "up to 127 of 255"),
        (lambda matte: 255 - matte, False, "may be inverted"),
        (lambda matte: matte.astype(np.uint16) // 255, True, "mask of 0 and 1"),
    ],
)
def test_odd_values_of_mattes_are_found(folder, changed, unusable, expected):
    Image.fromarray(changed(disc()[1])).save(folder / "alpha" / "bob.png")
    assert expected in findings(folder)["alpha/bob.png", unusable]


def test_a_matte_of_16_bits_is_told_and_read_as_what_it_is(folder):
    matte = disc()[1]
    Image.fromarray(matte.astype(np.uint16) * 257).save(folder / "alpha" / "bob.png")
    checked = check_data(find_layout(folder))
    assert checked.findings == ()
    assert checked.depths == {"8 bits": 2, "16 bits": 1}
    np.testing.assert_array_equal(read_alpha(folder / "alpha" / "bob.png"), matte)


def test_a_mask_of_one_bit_is_read_as_black_and_white(folder):
    mask = disc()[1] > 127
    Image.fromarray(mask).save(folder / "alpha" / "bob.png")
    np.testing.assert_array_equal(read_alpha(folder / "alpha" / "bob.png"), mask * np.uint8(255))


def test_the_same_picture_twice_and_a_jpeg_for_a_matte_are_found(folder):
    shutil.copy(folder / "image" / "ann.png", folder / "image" / "cid.png")
    Image.open(folder / "alpha" / "bob.png").save(folder / "alpha" / "bob.jpg")
    (folder / "alpha" / "bob.png").unlink()
    found = findings(folder)
    assert "is the same file as" in found["image/cid.png", False]
    assert "is a JPEG" in found["alpha/bob.jpg", False]


def test_foregrounds_want_an_alpha_channel_where_there_are_no_mattes(tmp_path):
    (tmp_path / "fg").mkdir()
    picture, matte = disc()
    Image.fromarray(np.dstack([picture, matte])).save(tmp_path / "fg" / "ann.png")
    Image.fromarray(picture).save(tmp_path / "fg" / "bob.png")
    assert list(findings(tmp_path)) == [("fg/bob.png", True)]


@pytest.mark.parametrize("name", ["cc0_portraits", "real_gt", "composites_exact"])
def test_nothing_is_unusable_in_real_sets_and_no_matte_is_called_inverted(data, name):
    if not (data / name).is_dir():
        pytest.skip(f"no {data / name}")
    checked = check_data(find_layout(data / name))
    assert checked.unusable == 0
    assert not [str(one) for one in checked.findings if "inverted" in one.what]


def test_a_link_to_nowhere_is_a_finding(tmp_path):
    write_set(tmp_path, ["p0", "p1"])
    picture = next((tmp_path / "image").glob("p1.*"))
    picture.unlink()
    picture.symlink_to(tmp_path / "nowhere.png")
    found = check_data(find_layout(tmp_path)).findings
    assert any(one.unusable and one.path == picture for one in found)
