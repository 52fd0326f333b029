"""A file is written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from secateur.artifact.atomic import check_writable, fill_atomically, write_atomically
from secateur.errors import ArtifactError


def test_what_is_written_is_there_and_nothing_else(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.bin", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"new"


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "a.bin")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("raised", [KeyboardInterrupt, RuntimeError, OSError])
def test_failing_half_way_leaves_the_old_file(tmp_path: Path, raised: type[BaseException]) -> None:
    place = tmp_path / "a.bin"
    place.write_bytes(b"old")

    def fill(beside: Path) -> None:
        beside.write_bytes(b"ne")
        raise raised

    with pytest.raises((raised, ArtifactError)):
        fill_atomically(place, fill)
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    assert place.read_bytes() == b"old"


@pytest.mark.parametrize("name", ["missing/a.bin", ".", "a\0b", "x" * 300])
def test_paths_that_cannot_be_written_are_refused_beforehand(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match="cannot be written"):
        check_writable(tmp_path / name)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_closed_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ArtifactError, match="Permission denied"):
            check_writable(tmp_path / "a.bin")
    finally:
        tmp_path.chmod(0o700)


def test_devices_are_refused() -> None:
    with pytest.raises(ArtifactError, match="is no file"):
        check_writable("/dev/null")
