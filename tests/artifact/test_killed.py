"""A process that is killed while it saves leaves the old file or the new one, and at most one temporary file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.artifact.killing import NAME, deaths


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked")
def test_killed_while_saving_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    found = list(deaths(tmp_path, count=20))
    assert {death.file for death in found} <= {"old", "new"}
    assert all(death.left != "more" for death in found)
    left = [path.name for path in tmp_path.iterdir() if path.name != NAME]
    assert len(left) == sum(death.left != "nothing" for death in found)
    assert all(name.startswith(".") and name.endswith(".part.safetensors") for name in left)
