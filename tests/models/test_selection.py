from __future__ import annotations

import sys

import pytest
from torch import nn

from secateur.errors import ArtifactError
from secateur.models import LeNet
from secateur.models.selection import select

SOURCE = """
import functools
from pathlib import Path
from torch import nn

class Net(nn.Module):
    pass

class Wide(nn.Module):
    def __init__(self, width):
        super().__init__()

class Deceptive:
    def __init__(self):
        Path("called").touch()

def build(width=3):
    return nn.Linear(width, 2)

def sized(width):
    return nn.Linear(width, 2)

def number():
    return 7

def broken():
    raise RuntimeError("no such weights")

three = nn.Linear(3, 3)
halved = functools.partial(sized, 4)
cached = functools.lru_cache(build)

class Holder:
    Net = Net
"""


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """A module `nets_of_mine` in the current directory."""
    (tmp_path / "nets_of_mine.py").write_text(SOURCE)
    (tmp_path / "failing_nets.py").write_text("import a_package_that_is_not_there")
    (tmp_path / "leaving_nets.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in ("nets_of_mine", "failing_nets", "leaving_nets"):
        sys.modules.pop(name, None)


def test_a_zoo_name_gives_the_model_and_what_is_known_of_it():
    selected = select("lenet")
    assert isinstance(selected.model, LeNet)
    assert selected.entry is not None
    assert selected.name == "lenet"


@pytest.mark.parametrize("name", ["Net", "build", "three", "halved", "cached", "Holder.Net"])
def test_a_users_own_model_is_found_in_the_current_directory(own_code, name):
    selected = select(f"nets_of_mine:{name}")
    assert isinstance(selected.model, nn.Module)
    assert selected.entry is None


def test_the_current_directory_does_not_stay_in_front(own_code):
    select("nets_of_mine:Net")
    assert sys.path[0] != str(own_code)
    assert sys.path[-1] == str(own_code)


@pytest.mark.parametrize("name", ["os:system", "os:abort", "builtins:exit", "builtins:open", "os:environ", "os:path"])
def test_what_is_no_model_is_refused_without_a_call(name):
    with pytest.raises(ArtifactError, match=r"was not called: it is no nn\.Module\. Name an nn\.Module"):
        select(name)


def test_a_class_of_something_else_is_not_called(own_code):
    with pytest.raises(ArtifactError, match="the class Deceptive, and was not called"):
        select("nets_of_mine:Deceptive")
    assert not (own_code / "called").exists()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("modnett", "no model 'modnett'. Did you mean modnet"),
        ("lenet.pth", "no model 'lenet.pth'"),
        ("nets_of_mine:", "no model's name"),
        ("nets of mine:Net", "no model's name"),
        ("nets_of_yours:Net", "no module 'nets_of_yours'"),
        ("nets_of_mine.deeper:Net", "no module 'nets_of_mine.deeper'"),
        ("nets_of_mine:Nett", "no 'Nett'. Did you mean Net"),
        ("nets_of_mine:Wide", "without arguments: it needs width"),
        ("nets_of_mine:sized", "without arguments: it needs width"),
        ("nets_of_mine:number", "returns an int, which is no nn.Module"),
        ("nets_of_mine:broken", "fails when it is called: RuntimeError: no such weights"),
        ("failing_nets:Net", "fails when it is imported: ModuleNotFoundError: No module named 'a_package"),
        ("leaving_nets:Net", "fails when it is imported: SystemExit: 3"),
    ],
)
def test_what_cannot_be_had_is_said_in_a_sentence(own_code, name, sentence):
    with pytest.raises(ArtifactError) as raised:
        select(name)
    assert sentence in str(raised.value)
