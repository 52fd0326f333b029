"""Training that can be stopped anywhere: the same curve and weights, or a reason why not."""

import time

import pytest
import torch
from torch import nn

from secateur.artifact.format import decode
from secateur.errors import ArtifactError, TrainingError
from secateur.training.fitting import fit
from secateur.training.recipe import Recipe
from secateur.training.speed import faster_precision, seconds_a_batch, seconds_a_step
from tests.training.toys import Lines, Slope, network, rows, start

BROKEN = """
import sys
from secateur.errors import DataError
from secateur.training.fitting import fit
from secateur.training.recipe import Recipe
from tests.training.toys import Lines, Slope, network

class Broken(Lines):
    def __getitem__(self, index):
        if index == 5:
            raise DataError("p5.jpg is broken. Take it out.")
        return super().__getitem__(index)

fit(network(), Broken(), Slope(), Recipe(steps=4, batch=4, workers=int(sys.argv[2])), sys.argv[1])
"""


class Slow(Lines):
    """The same, each a fiftieth of a second in the making."""

    def __getitem__(self, index):
        time.sleep(0.02)
        return super().__getitem__(index)


def test_training_makes_the_error_small(tmp_path):
    found = fit(network(), Lines(), Slope(), Recipe(steps=300, rate=1e-2, validate_every=100), tmp_path / "run")
    assert Slope().validate(found)["error"] < 0.05 * Slope().validate(network().eval())["error"]
    assert [row[0] for row in rows(tmp_path / "run", "validation.csv")] == ["step", "100", "200", "300"]


def test_the_best_average_comes_out(tmp_path):
    class Rising(Slope):
        told = 0

        def validate(self, model):
            self.told += 1
            return {"error": float(self.told)}

    recipe = Recipe(steps=60, rate=1e-2, validate_every=10, patience=2)
    found = fit(network(), Lines(), Rising(), recipe, tmp_path)
    assert rows(tmp_path)[-1][0] == "30"  # two validations after the first were no better
    first = fit(network(), Lines(), Slope(), Recipe(steps=60, rate=1e-2, validate_every=10, patience=2), tmp_path / "b")
    assert not torch.equal(found[0].weight, first[0].weight)


def test_what_is_no_number_ends_training_with_the_step_and_the_batch(tmp_path):
    class Broken(Lines):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return {**sample, "value": sample["value"] * float("nan")} if index == 13 else sample

    with pytest.raises(TrainingError, match=r"At step 4 the losses are no numbers \(error nan\).*diverged"):
        fit(network(), Broken(), Slope(), Recipe(steps=10, batch=4), tmp_path)
    from safetensors.torch import load_file

    assert load_file(tmp_path / "diverged.safetensors")["value"].isnan().sum() == 1


def test_a_validation_that_is_no_number_ends_training_with_a_checkpoint(tmp_path):
    class Judging(Slope):
        def validate(self, model):
            return {"error": float("nan")}

    with pytest.raises(TrainingError, match=r"After step 5 the validation gives error nan.*--resume goes on"):
        fit(network(), Lines(), Judging(), Recipe(steps=10, batch=4, validate_every=5), tmp_path)
    assert len(rows(tmp_path)) == 1 + 5
    fit(network(), Lines(), Slope(), Recipe(steps=10, batch=4, validate_every=5), tmp_path, True)
    assert len(rows(tmp_path)) == 1 + 10


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"precision": "fp16"}, "precision='fp16' is not known. Say one of fp32, bf16"),
        ({"warmup": -1}, "warmup=-1 makes no sense"),
        ({"slower": {"bakbone": 0.1}}, "slower has 'bakbone', with which no parameter begins"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(words, expected, tmp_path):
    with pytest.raises(TrainingError, match=expected):
        fit(network(), Lines(), Slope(), Recipe(steps=2, batch=4, **words), tmp_path)


def test_networks_for_volumes_are_trained_too(tmp_path):
    class Volumes(Lines):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return {**sample, "point": sample["point"].view(2, 1, 1, 1)}

    class Near(Slope):
        def validate(self, model):
            return {}

    net = nn.Sequential(nn.Conv3d(2, 4, 1), nn.Flatten(), nn.Linear(4, 1))
    assert fit(net, Volumes(), Near(), Recipe(steps=2, batch=4), tmp_path) is not None


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    fit(network(), Lines(), Slope(), Recipe(steps=4, batch=4), tmp_path)
    with pytest.raises(TrainingError, match=r"trained with batch=4, not 2. Resume"):
        fit(network(), Lines(), Slope(), Recipe(steps=4, batch=2), tmp_path, resume=True)
    other = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
    with pytest.raises(TrainingError, match=r"another network: model\.0\.weight is \(16, 2\), and \(8, 2\) is wanted"):
        fit(other, Lines(), Slope(), Recipe(steps=4, batch=4), tmp_path, resume=True)


def test_an_interruption_saves_the_last_whole_step(tmp_path):
    def stop(stand):
        if stand.step == 5:
            raise KeyboardInterrupt

    recipe = Recipe(steps=8, batch=4)
    with pytest.raises(KeyboardInterrupt):
        fit(network(), Lines(), Slope(), recipe, tmp_path / "a", on_step=stop)
    resumed = fit(network(), Lines(), Slope(), recipe, tmp_path / "a", resume=True)
    whole = fit(network(), Lines(), Slope(), recipe, tmp_path / "b")
    assert torch.equal(resumed[0].weight, whole[0].weight)
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


class Interrupted(Slope):
    """Ctrl-C comes in the middle of a step or of a validation, which are counted."""

    def __init__(self, where, count):
        self.where, self.left = where, count

    def losses(self, model, batch):
        found = super().losses(model, batch)
        self.count("losses")
        return found

    def validate(self, model):
        self.count("validate")
        return super().validate(model)

    def count(self, where):
        self.left -= where == self.where
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("where", "count", "kept"), [("losses", 5, 4), ("validate", 2, 3)])
def test_an_interruption_in_the_middle_leaves_no_trace(where, count, kept, tmp_path):
    def made():
        return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))

    torch.manual_seed(1)
    start = made().state_dict()
    recipe = Recipe(steps=8, batch=4, save_every=3, validate_every=2)

    def run(folder, task, resume=False):
        network = made()
        network.load_state_dict(start)
        return fit(network, Lines(), task, recipe, folder, resume)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a", Interrupted(where, count))
    assert decode((tmp_path / "a" / "checkpoint.safetensors").read_bytes(), "")[1]["step"] == kept
    resumed, whole = run(tmp_path / "a", Slope(), resume=True).state_dict(), run(tmp_path / "b", Slope()).state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())
    assert rows(tmp_path / "a") == rows(tmp_path / "b")
    assert rows(tmp_path / "a", "validation.csv") == rows(tmp_path / "b", "validation.csv")


def test_an_interruption_while_a_checkpoint_is_read_leaves_it_as_it_is(tmp_path, monkeypatch):
    recipe = Recipe(steps=4, batch=4)
    fit(network(), Lines(), Slope(), recipe, tmp_path)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()

    def stop(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(torch, "set_rng_state", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(network(), Lines(), Slope(), recipe, tmp_path, resume=True)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_a_new_run_takes_the_place_of_an_old_one_at_once(tmp_path):
    def stop(stand):
        raise SystemExit  # as if it had been killed: nothing is saved

    recipe = Recipe(steps=6, batch=4)
    fit(network(), Lines(), Slope(), recipe, tmp_path)
    with pytest.raises(SystemExit):
        fit(network(), Lines(), Slope(), recipe, tmp_path, on_step=stop)
    resumed = fit(network(), Lines(), Slope(), recipe, tmp_path, resume=True)
    whole = fit(network(), Lines(), Slope(), recipe, tmp_path / "b")
    assert torch.equal(resumed[0].weight, whole[0].weight)
    assert len(rows(tmp_path)) == 7


def test_other_data_are_told_when_it_is_resumed(tmp_path):
    recipe = Recipe(steps=4, batch=4, setting={"size": 64, "data": "12 files"})
    fit(network(), Lines(), Slope(), recipe, tmp_path)
    other = Recipe(steps=4, batch=4, seed=1, setting={"size": 96, "data": "12 files"})
    with pytest.raises(TrainingError, match=r"trained with seed=0, not 1; size=64, not 96. Resume"):
        fit(network(), Lines(), Slope(), other, tmp_path, resume=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_sample_is_told_in_its_own_words(workers, tmp_path):
    run = start(BROKEN, tmp_path, workers)  # it forks, which a process that ran other libraries may not survive
    told = run.communicate(timeout=120)[1]
    assert run.returncode == 1
    assert told.splitlines()[-1] == "secateur.errors.DataError: p5.jpg is broken. Take it out."


def test_a_full_disk_ends_training_and_leaves_the_last_checkpoint(tmp_path):
    """Stands for a full disk: no file may grow beyond so many bytes."""
    resource = pytest.importorskip("resource")
    had = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoint = tmp_path / "a" / "checkpoint.safetensors"

    def fill(stand):
        if stand.step == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (checkpoint.stat().st_size // 2, had[1]))

    recipe = Recipe(steps=8, batch=4, save_every=2)
    try:
        with pytest.raises(ArtifactError, match=r"checkpoint\.safetensors cannot be written"):
            fit(network(), Lines(), Slope(), recipe, tmp_path / "a", on_step=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, had)
    resumed = fit(network(), Lines(), Slope(), recipe, tmp_path / "a", resume=True)
    whole = fit(network(), Lines(), Slope(), recipe, tmp_path / "b")
    assert torch.equal(resumed[0].weight, whole[0].weight)
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


@pytest.mark.parametrize("place", ["samples", "network"])
def test_what_does_not_fit_into_memory_is_told_with_a_batch_that_may(place, tmp_path):
    huge = 2**46

    class Large(Lines):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return {**sample, "more": torch.empty(huge)} if place == "samples" else sample

    class Wide(Slope):
        def losses(self, model, batch):
            return {"error": torch.empty(huge).mean()}

    with pytest.raises(TrainingError, match=r"A batch of 4 does not fit into memory\. .*--batch 2\."):
        fit(network(), Large(), Wide(), Recipe(steps=2, batch=4), tmp_path)


@pytest.mark.parametrize(("workers", "least"), [(0, 0.16), (1, 0.16), (4, 0.04)])
def test_samples_that_take_long_to_make_are_counted_in(workers, least):
    taken = seconds_a_batch(network(), Slow(), Slope(), Recipe(steps=1, batch=8, workers=workers))
    assert taken >= least


class Emulated(Slope):
    """Slow in bfloat16, as on a processor that has none."""

    def __init__(self):
        self.steps = {True: 0, False: 0}

    def losses(self, model, batch):
        narrow = torch.is_autocast_enabled("cpu")
        self.steps[narrow] += 1
        time.sleep(0.5 if narrow else 0.01)
        return super().losses(model, batch)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the task is slow on the CPU alone")
def test_a_precision_that_is_far_slower_is_given_up_after_a_step():
    task = Emulated()
    assert seconds_a_step(network(), Lines(), task, Recipe(steps=1, batch=2, precision="bf16"), enough=0.1) > 0.5
    assert task.steps == {True: 1, False: 0}


@pytest.mark.skipif(torch.cuda.is_available(), reason="the task is slow on the CPU alone")
def test_the_faster_precision_is_found():
    task = Emulated()
    assert faster_precision(network(), Lines(), task, Recipe(steps=1, batch=2)) == "fp32"
    assert task.steps[True] <= 1


def test_a_step_that_does_not_fit_into_memory_is_told_where_it_is_timed():
    class Wide(Slope):
        def losses(self, model, batch):
            return {"error": torch.empty(2**46).mean()}

    with pytest.raises(TrainingError, match=r"A batch of 4 does not fit into memory. Take a smaller one: --batch 2"):
        seconds_a_step(network(), Lines(), Wide(), Recipe(steps=1, batch=4))
