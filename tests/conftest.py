"""What every test stands on: one thread, torchvision made importable, optional data, slow tests on request."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest
import torch

from tests import torchvision_operators

DATA = Path(os.environ.get("SECATEUR_DATA", Path(__file__).parents[1] / "../shared/data")).resolve()


def pytest_configure() -> None:
    torch.set_num_threads(1)
    torchvision_operators.declare()
    hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine fails no test
    hypothesis.settings.load_profile("untimed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave slow tests out unless `-m` says which to run."""
    if config.getoption("markexpr"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep measurements of tests out of the user's cache."""
    os.environ["SECATEUR_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def data() -> Path:
    """Where the optional pictures and weights are."""
    if not DATA.is_dir():
        pytest.skip(f"no data at {DATA} (set SECATEUR_DATA to where it is)")
    return DATA
