from __future__ import annotations

import pytest
import torch
from torch import nn

from secateur.errors import ArtifactError
from secateur.models.registry import ZOO, entry_of, zoo_entry


@pytest.mark.parametrize("name", ZOO)
def test_every_model_runs_on_its_example(name):
    entry = zoo_entry(name)
    model, example = entry.build().to("meta"), entry.example().to("meta")
    assert model(example) is not None
    assert tuple(example.shape) == entry.example_shape


@pytest.mark.parametrize("name", ZOO)
def test_a_models_arguments_build_it_again(name):
    entry = zoo_entry(name)
    model = entry.build()
    again = entry.build(**model.arguments)
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }
    assert entry_of(again) is entry


def test_branches_cover_modnet():
    prefixes = tuple(f"{name}." for names in zoo_entry("modnet").branches.values() for name in names)
    assert all(key.startswith(prefixes) for key in zoo_entry("modnet").build().state_dict())


def test_pictures_are_prepared_channel_by_channel():
    entry = zoo_entry("mobilenetv2")
    pictures = torch.tensor(entry.mean).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    assert torch.equal(entry.prepared(pictures), torch.zeros(2, 3, 4, 4))
    assert torch.equal(zoo_entry("modnet").prepared(torch.ones(1, 3, 2, 2)), torch.ones(1, 3, 2, 2))


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(ArtifactError, match=r"no model 'mobilenet2'.*mean mobilenetv2"):
        zoo_entry("mobilenet2")


def test_a_users_subclass_is_no_model_of_the_zoo():
    class Mine(nn.Sequential):
        pass

    assert entry_of(Mine()) is None
