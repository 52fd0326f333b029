"""Published data sets are read as they come: by the names of their folders, pictures and mattes paired by theirs."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from secateur.errors import DataError
from secateur.matting.compositing import kept_foreground
from secateur.matting.layouts import find_layout, find_portraits
from secateur.matting.pictures import read_pair
from secateur.matting.splitting import split_portraits
from tests.matting.data_sets import disc

NAMES = ["p_1", "p_10", "p_2"]
LAYOUTS = {
    "PPM-100": ("image", ".jpg", "matte", ".jpg", ()),
    "P3M-10k": ("blurred_image", ".jpg", "mask", ".png", ("facemask",)),
    "P3M-500-NP": ("original_image", ".jpg", "mask", ".png", ("trimap",)),
    "P3M-500-P": ("blurred_image", ".jpg", "mask", ".png", ("trimap",)),
    "AIM-500": ("original", ".jpg", "mask", ".png", ("trimap", "usr")),
    "Distinctions-646": ("FG", ".png", "GT", ".png", ("BG",)),
}


def write(folder, layout):
    """Write the data set, its mattes in the reverse order, and beside them folders of other pictures of these names."""
    people, of_people, mattes, of_mattes, others = LAYOUTS[layout]
    for part in (people, mattes, *others):
        (folder / part).mkdir()
    made = {name: disc(seed=seed) for seed, name in enumerate(NAMES)}
    for name, (picture, _) in made.items():
        Image.fromarray(picture).save(folder / people / f"{name}{of_people}", quality=100, subsampling=0)
        for other in others:
            Image.new("RGB", (64, 48), (1, 2, 3)).save(folder / other / f"{name}.png")
    for name in reversed(NAMES):
        Image.fromarray(made[name][1]).save(folder / mattes / f"{name}{of_mattes}", quality=100)
    return made


def sources(portrait):
    return [path.relative_to(path.parents[1]).as_posix() for path in (portrait.image, portrait.foreground) if path]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_data_set_is_found_and_read_in_pairs(tmp_path, layout):
    made = write(tmp_path, layout)
    people, of_people, mattes, of_mattes, _ = LAYOUTS[layout]
    portraits = find_portraits(tmp_path)
    assert [one.name for one in portraits] == NAMES
    for portrait in portraits:
        assert sources(portrait) == [f"{people}/{portrait.name}{of_people}"]
        assert portrait.alpha == tmp_path / mattes / f"{portrait.name}{of_mattes}"
        colours, alpha = read_pair(portrait)
        for found, wanted, suffix in zip((colours, alpha), made[portrait.name], (of_people, of_mattes), strict=True):
            assert np.abs(found.astype(int) - wanted).max() <= (12 if suffix == ".jpg" else 0)
    assert not find_layout(tmp_path).problems


def test_foregrounds_of_distinctions_are_the_peoples_own_colours_and_its_backgrounds_are_backgrounds(tmp_path):
    made = write(tmp_path, "Distinctions-646")
    split = split_portraits([tmp_path], [tmp_path / "BG"], 0.0, "(.*)")
    assert [path.parent.name for path in split.backgrounds] == ["BG"] * 3
    for person in split.people:
        assert person.image is None
        colours, alpha = kept_foreground(person, None)
        np.testing.assert_array_equal(colours, made[person.name][0])
        np.testing.assert_array_equal(alpha, made[person.name][1])


def test_of_two_folders_of_pictures_the_one_with_faces_is_taken(tmp_path):
    write(tmp_path, "P3M-500-NP")
    (tmp_path / "blurred_image").mkdir()
    for name in NAMES:
        Image.new("RGB", (64, 48)).save(tmp_path / "blurred_image" / f"{name}.jpg")
    assert [sources(one) for one in find_portraits(tmp_path)] == [[f"original_image/{name}.jpg"] for name in NAMES]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_picture_or_a_matte_alone_is_named(tmp_path, layout):
    write(tmp_path, layout)
    people, of_people, mattes, of_mattes, _ = LAYOUTS[layout]
    (tmp_path / mattes / f"p_10{of_mattes}").rename(tmp_path / mattes / f"p_11{of_mattes}")
    problems = {path.relative_to(tmp_path).as_posix(): why for path, why in find_layout(tmp_path).problems.items()}
    assert set(problems) == {f"{people}/p_10{of_people}", f"{mattes}/p_11{of_mattes}"}
    with pytest.raises(DataError, match=rf"p_10\{of_people} has no matte"):
        find_portraits(tmp_path)
