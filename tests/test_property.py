"""Random small networks: whatever the coupling, every proof passes and the oracle agrees.

`SECATEUR_EXAMPLES=5000 pytest tests/test_property.py` looks further than the default run; so does
`benchmarks/random_networks.py`, in several processes.
"""

from __future__ import annotations

import os

import hypothesis
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

import secateur
from tests.generator import EXAMPLE, Network, Program, program
from tests.oracle import DeadOutputError, relative_error

EXAMPLES = int(os.environ.get("SECATEUR_EXAMPLES", "200"))


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Draw a network."""
    return program(lambda options: draw(st.sampled_from(options)))


@hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES == 200,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    program=programs(),
    ratio=st.sampled_from([0.3, 0.5, 0.8]),
    criterion=st.sampled_from(["l1", "random"]),
    ranking=st.sampled_from(["group", "global"]),
)
def test_random_networks_are_pruned_right(program, ratio, criterion, ranking):
    torch.manual_seed(0)
    model = Network(program).eval()
    graph = secateur.trace(model, EXAMPLE)
    plan = secateur.plan(graph, model, ratio=ratio, criterion=criterion, ranking=ranking, min_channels=1)
    small = secateur.cut(model, plan)
    secateur.verify(model, small, plan, EXAMPLE)  # and not `prune`, which would repair the plan
    try:
        error = relative_error(model, plan, small, EXAMPLE)
    except DeadOutputError:  # the average of an instance norm, for one, is the same for every input
        hypothesis.reject()
    assert error < 1e-9
