import numpy as np
import pytest
import torch

from secateur.errors import PlanError
from secateur.planning.criteria.evidence import CRITERIA, criterion
from secateur.planning.criteria.scoring import check_criterion, importances, normalised
from secateur.planning.outputs import outputs_of
from tests.planning.graphs import chain, graph_of, residual


def tensors_of(graph, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(info.shape, generator=generator) for name, info in graph.tensors.items()}


def judged(graph, tensors, *args, **kwargs):
    return importances(graph, outputs_of(graph), tensors, *args, **kwargs)


@pytest.mark.parametrize(("name", "order"), [("l1", 1), ("l2", 2), ("lp:3", 3), ("lp:0.5", 0.5)])
def test_norms_are_those_of_the_filters(name, order):
    graph = chain(16, 8)
    tensors = tensors_of(graph)
    filters = tensors["c1.weight"].double().reshape(8, -1)
    expected = (filters.abs() ** order).sum(dim=1) ** (1 / order)
    np.testing.assert_allclose(judged(graph, tensors, name)[1], expected)


def test_a_stream_is_judged_by_the_mean_of_its_writers():
    graph = residual(8, 12)
    tensors = tensors_of(graph)
    expected = (
        tensors["stem.weight"].double().abs().sum((1, 2, 3)) + tensors["b.weight"].double().abs().sum((1, 2, 3))
    ) / 2
    np.testing.assert_allclose(judged(graph, tensors)[0], expected)


def test_norm_parameters_do_not_count():
    graph = chain(16)
    tensors = tensors_of(graph)
    before = judged(graph, tensors)
    tensors["n0.weight"] *= 100
    np.testing.assert_array_equal(judged(graph, tensors)[0], before[0])


def test_a_group_that_no_weight_makes_is_judged_by_what_it_has():
    graph = graph_of(
        {"n.weight": (8,), "last.weight": (5, 8, 1, 1)},
        [("n", [("n.weight", 0, range(8)), ("last.weight", 1, range(8))])],
    )
    tensors = tensors_of(graph)
    expected = (tensors["n.weight"].abs() + tensors["last.weight"].abs().sum((0, 2, 3))) / 2
    np.testing.assert_allclose(judged(graph, tensors)[0], expected, rtol=1e-6)


def test_random_depends_on_the_seed_alone():
    graph = chain(16, 8)
    one, again, other = (
        judged(graph, tensors_of(graph, weights), "random", seed=seed) for weights, seed in ((0, 1), (5, 1), (0, 2))
    )
    np.testing.assert_array_equal(one[0], again[0])
    assert (one[0] != other[0]).all()
    assert (one[0][:8] != one[1]).all()


def test_random_needs_no_data():
    graph = chain(16)
    meta = {name: torch.empty(info.shape, device="meta") for name, info in graph.tensors.items()}
    assert len(judged(graph, meta, "random")[0]) == 16
    assert judged(graph, meta, "uniform")[0].tolist() == [1.0] * 16
    with pytest.raises(PlanError, match=r"c0\.weight has no data"):
        judged(graph, meta, "l1")


@pytest.mark.parametrize("values", [list(range(16)), np.arange(16), torch.arange(16, dtype=torch.bfloat16)])
@pytest.mark.parametrize("name", ["c0", "c0.weight", "n0"])
def test_given_scores_replace_the_criterion(name, values):
    graph = chain(16, 8)
    tensors = tensors_of(graph)
    found = judged(graph, tensors, scores={name: values})
    np.testing.assert_array_equal(found[0], np.arange(16))
    np.testing.assert_array_equal(found[1], judged(graph, tensors)[1])


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"c9": [1.0]}, "no layer or tensor of the model. Known: c0"),
        ({"c0": [1.0, 2.0]}, "have shape \\(2,\\), and it has 16 output channels"),
        ({"c0": [float("nan")] * 16}, "are not all finite"),
        ({"c0": ["a"] * 16}, "are no numbers"),
    ],
)
def test_scores_that_make_no_sense_are_refused(scores, message):
    with pytest.raises(PlanError, match=message):
        judged(chain(16, 8), tensors_of(chain(16, 8)), scores=scores)


def test_scores_of_protected_outputs_do_no_harm():
    graph = chain(16)
    assert len(judged(graph, tensors_of(graph), scores={"last": [1.0]})) == 1


def test_weights_that_are_not_finite_are_named():
    graph = chain(16, 8)
    tensors = tensors_of(graph)
    tensors["c1.weight"][3, 0, 0, 0] = float("nan")
    with pytest.raises(PlanError, match=r"c1 is not finite, because c1\.weight"):
        judged(graph, tensors)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("l3", "no criterion 'l3'. Known: "),
        ("rndom", "Did you mean random"),
        ("lp", "needs a power"),
        ("lp:x", "needs a power"),
        ("lp:-1", "needs a power"),
        ("l1:2", "takes nothing"),
        (3, "is no name"),
    ],
)
def test_a_misspelt_criterion_is_refused(name, message):
    with pytest.raises(PlanError, match=message):
        check_criterion(name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_dtype_are_ranked_in_float64(dtype):
    graph = chain(16)
    tensors = {name: tensor.to(dtype) for name, tensor in tensors_of(graph).items()}
    expected = tensors["c0.weight"].double().abs().sum((1, 2, 3))
    np.testing.assert_allclose(judged(graph, tensors)[0], expected)


def test_a_new_criterion_joins_with_one_function(monkeypatch):
    monkeypatch.setattr("secateur.planning.criteria.scoring.CRITERIA", CRITERIA)
    monkeypatch.delitem(CRITERIA, "norm weight", raising=False)

    @criterion("norm weight")
    def norm_weight(evidence):
        return next(evidence.rows(m)[:, 0].abs() for m in evidence.makers if m.tensor.startswith("n"))

    graph = chain(16)
    tensors = tensors_of(graph)
    np.testing.assert_allclose(judged(graph, tensors, "norm weight")[0], tensors["n0.weight"].abs(), rtol=1e-6)
    del CRITERIA["norm weight"]


def test_normalised_importances_have_a_mean_of_one():
    assert normalised(np.array([2.0, 4.0, 6.0])).mean() == 1
    assert normalised(np.zeros(3)).tolist() == [0, 0, 0]
