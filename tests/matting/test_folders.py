"""Folders: what is found, where results go, what fails, and how much memory it takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from secateur.errors import ArtifactError, DataError
from secateur.matting.finishing import Finish
from secateur.matting.folders import pictures_under, results_of
from secateur.matting.jobs import Job, run_jobs
from secateur.matting.pictures import read_rgb
from tests.matting.making import disc, redness

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("cv2")


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "in"
    for name in ("a.jpg", "deep/er/b.PNG", "deep/c.webp"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(disc(48, 64)).save(place / name)
    for name in ("notes.txt", "._a.jpg", ".cache/d.jpg"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"none")
    return place


def test_pictures_are_found_in_all_folders_but_hidden_ones(folder):
    found = [path.relative_to(folder).as_posix() for path in pictures_under(folder)]
    assert found == ["a.jpg", "deep/c.webp", "deep/er/b.PNG"]
    assert [path.name for path in pictures_under(folder, "*.jpg")] == ["a.jpg"]
    assert [path.name for path in pictures_under(folder, "deep/*.webp")] == ["c.webp"]
    assert len(pictures_under(folder, "")) == 3


def test_results_of_an_earlier_run_are_no_input(folder):
    (folder / "out").mkdir()
    Image.fromarray(disc(8, 8)).save(folder / "out" / "a.png")
    assert "a.png" not in [path.name for path in pictures_under(folder, without=folder / "out")]


@pytest.mark.parametrize(("pattern", "expected"), [(None, "no picture"), ("*.jpg", r"nothing like \*\.jpg")])
def test_a_folder_without_pictures_is_refused(tmp_path, pattern, expected):
    with pytest.raises(DataError, match=expected):
        pictures_under(tmp_path, pattern)
    with pytest.raises(DataError, match="no folder"):
        pictures_under(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.jpg", "b.jpg"], ["a.png", "b.png"]),
        (["a.jpg", "a.png", "x/a.jpg"], ["a.jpg.png", "a.png.png", "x/a.png"]),
        (["a.jpg", "a.jpg.gif", "a.png"], ["a.jpg.png", "a.jpg.gif.png", "a.png.png"]),
        (["my.holiday.jpg"], ["my.holiday.png"]),
    ],
)
def test_every_picture_has_a_result_of_its_own(names, expected):
    found = results_of([Path("in") / name for name in names], Path("in"), Path("out"))
    assert [path.relative_to("out").as_posix() for path in found] == expected


def test_no_picture_is_written_over(tmp_path):
    with pytest.raises(DataError, match="would be written over"):
        results_of([tmp_path / "a.png"], tmp_path, tmp_path)


@pytest.mark.parametrize("batch", [1, 4])
def test_one_broken_picture_stops_no_other(tmp_path, batch):
    jobs = []
    for number in range(12):
        source = tmp_path / f"{number:02}.png"
        Image.fromarray(disc(40 + 8 * (number % 3), 64)).save(source)
        jobs.append(Job(source, tmp_path / "out" / source.name))
    jobs[5].source.write_bytes(jobs[5].source.read_bytes()[:60])
    results = list(run_jobs(jobs, redness(), Finish(), batch))
    assert {result.job for result in results} == set(jobs)
    (failed,) = [result for result in results if result.error is not None]
    assert "05.png cannot be read" in str(failed.error)
    for job in jobs[:5] + jobs[6:]:
        with Image.open(job.target) as image:
            assert image.mode == "RGBA"
            pixels = np.asarray(image)
            height, width = pixels.shape[:2]
            assert (height, width) == read_rgb(job.source).shape[:2]
            assert pixels[height // 2, width // 2, 3] > 240
            assert pixels[0, 0, 3] < 12
    assert not jobs[5].target.exists()


def test_a_result_that_cannot_be_written_leaves_no_half_file(tmp_path, monkeypatch):
    def full(self, target, *_, **__):
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    source = tmp_path / "a.png"
    Image.fromarray(disc(40, 64)).save(source)
    monkeypatch.setattr(Image.Image, "save", full)
    (result,) = run_jobs([Job(source, tmp_path / "out" / "a.png")], redness(), Finish())
    assert isinstance(result.error, ArtifactError)
    assert "No space left" in str(result.error)
    assert not list((tmp_path / "out").iterdir())


MANY = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from secateur.matting.finishing import Finish
from secateur.matting.jobs import Job, run_jobs
from secateur.measurement.memory import peak
from tests.matting.making import disc, redness

folder, predictor = Path(sys.argv[1]), redness()
Image.fromarray(disc(600, 800)).save(folder / "a.jpg")
peaks = []
for count in (40, 400):
    jobs = (Job(folder / "a.jpg", folder / f"{number % 8}.png") for number in range(count))
    assert sum(result.error is None for result in run_jobs(jobs, predictor, Finish(), 2)) == count
    peaks.append(peak())
print(*peaks)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    root = Path(__file__).parents[2]
    found = subprocess.run(
        [sys.executable, "-c", MANY, str(tmp_path)],
        cwd=root, env={"PYTHONPATH": f"{root}:{root / 'src'}", "PATH": ""}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    few, many = map(int, found.stdout.split())
    assert many - few < 30 * 2**20


HUGE = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from secateur.matting.finishing import Finish
from secateur.matting.jobs import Job, run_jobs
from secateur.measurement.memory import peak
from tests.matting.making import redness

folder, predictor = Path(sys.argv[1]), redness()
before = peak()
(result,) = run_jobs([Job(folder / "huge.jpg", folder / "huge.png")], predictor, Finish())
assert result.error is None and result.size == (6000, 8400)
print((peak() - before) / 2**20)
"""


@pytest.mark.slow
def test_a_picture_of_50_megapixels_takes_less_than_a_gigabyte(tmp_path):
    root = Path(__file__).parents[2]
    small = Image.fromarray(disc(600, 840))
    small.resize((8400, 6000)).save(tmp_path / "huge.jpg")
    found = subprocess.run(
        [sys.executable, "-c", HUGE, str(tmp_path)],
        cwd=root, env={"PYTHONPATH": f"{root}:{root / 'src'}", "PATH": ""}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert float(found.stdout) < 1024


@pytest.mark.parametrize("output", [".", "..", "deep/.."])
def test_results_may_go_above_the_pictures(folder, output):
    assert len(pictures_under(folder, without=folder / output)) == 3


@pytest.mark.parametrize("pattern", ["**.jpg", "/data/*.jpg"])
def test_a_pattern_that_is_none_is_refused(folder, pattern):
    with pytest.raises(DataError, match=r"no pattern of paths in a folder.*'\*\.jpg'"):
        pictures_under(folder, pattern)


def test_a_picture_too_large_for_its_format_stops_no_other(tmp_path):
    Image.fromarray(disc(8, 17000)).save(tmp_path / "wide.png")
    Image.fromarray(disc(8, 60)).save(tmp_path / "small.png")
    jobs = [Job(tmp_path / f"{name}.png", tmp_path / f"{name}.webp") for name in ("wide", "small")]
    wide, small = run_jobs(jobs, redness(), Finish())
    assert "wide.webp cannot be written: WEBP holds no picture of 17000 x 8 pixels" in str(wide.error)
    assert small.error is None
    assert sorted(path.name for path in tmp_path.glob("*.webp")) == ["small.webp"]


def test_memory_that_one_picture_lacks_stops_no_other(tmp_path):
    class Short(type(redness())):
        def prepare(self, colours):
            if colours.shape[1] == 80:
                raise MemoryError
            return super().prepare(colours)

    predictor = redness()
    predictor.__class__ = Short
    for name, width in (("wide", 80), ("small", 60)):
        Image.fromarray(disc(40, width)).save(tmp_path / f"{name}.png")
    jobs = [Job(tmp_path / f"{name}.png", tmp_path / f"{name}-out.png") for name in ("wide", "small")]
    wide, small = run_jobs(jobs, predictor, Finish())
    assert "wide.png does not fit into memory" in str(wide.error)
    assert small.error is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_stream_that_takes_no_more_is_told(tmp_path):
    Image.fromarray(disc(40, 60)).save(tmp_path / "a.png")
    with Path("/dev/full").open("wb", buffering=0) as full:
        (found,) = run_jobs([Job(tmp_path / "a.png", full)], redness(), Finish())
    assert "The result cannot be written: No space left on device." in str(found.error)
