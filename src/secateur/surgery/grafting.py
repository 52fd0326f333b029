"""`graft`: put a pruned part back into the network that holds the part at full size."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch import nn

from secateur.errors import GraftError, TraceError, nearest
from secateur.graph.calls import Call, calls_of, zeros_for
from secateur.graph.groups import Graph
from secateur.graph.staging import tensor_infos
from secateur.graph.tracing import trace
from secateur.planning.plans import Plan
from secateur.planning.rebasing import Conflict, part_names, rebased
from secateur.surgery.cutting import cut, kept_values, named_tensor, pruned_values, scale_factors
from secateur.surgery.proof import verify

Donor = nn.Module | Mapping[str, torch.Tensor]


def graft(
    host: nn.Module,
    plan: Plan,
    at: str,
    donor: Donor | None = None,
    example: Any = None,
    conflict: Conflict = "error",
    rest: Donor | None = None,
) -> tuple[nn.Module, Plan]:
    """Return a copy of `host` whose part at `at` is pruned as `plan` says, and the plan for the whole host.

    The plan was made for the part alone. In the host everything goes along that reads the removed channels or shares
    a residual stream with them. The cut is proved in the host on the host's own weights, as `verify` does; then the
    donor's weights and statistics take the place of the host's in the part.

    Args:
        host: a model that holds the full-size part; it is not changed.
        plan: what was cut of the part alone. Tensors that the host's part lacks (a classifier) are passed over.
        at: the name of the part in the host, such as `"backbone.model"`; any of its names, if it has several.
        donor: the pruned part with its trained weights, or its state dict; the host's own weights if left out.
        example: how the host is called, as for `trace`; if left out, as the part was when the plan was made.
        conflict: what happens where the host couples the part more tightly than it was alone: `"error"`; `"restore"`,
            the channels come back with the host's weights; `"extend"`, what they are coupled with goes, too.
        rest: a second donor, whose weights and statistics take the host's places outside of the part: another
            checkpoint of the host, at full size or as small as the host becomes; the host's own if left out.

    Raises:
        GraftError: there is no such part, it is not the one that was pruned, it is coupled more tightly (says with
            what), a donor does not fit, or the host does not run as the part did.
        TraceError: the host does not run on `example`.
        ProofError: the grafted host is not what its plan promises.

    Example:
        >>> small, plan = secateur.prune(backbone, x, ratio=0.5)  # doctest: +SKIP
        >>> host, host_plan = graft(host, plan, at="backbone", donor=small)  # doctest: +SKIP
    """
    _check_part(host, at)
    calls, graph = _traced(host, plan, example)
    whole = rebased(plan, graph, at, conflict)
    names = part_names(plan, graph, at)
    given = {} if donor is None else _given(donor, plan, {names[name] for name in host.state_dict() if name in names})
    small = cut(host, whole)
    proof = verify(host, small, whole, list(calls), graph=graph)
    if rest is not None:
        _take_rest(small, _tensors(rest), whole, but=names.keys())
    for name, own in names.items():
        if own in given:
            _transplant(named_tensor(host, name), named_tensor(small, name), given[own], (plan, own), (whole, name))
    own = donor is None and rest is None
    return small, whole.with_proof(proof if own else proof.before("replaced by the donor's"))


def _check_part(host: nn.Module, at: str) -> None:
    known = dict(host.named_modules(remove_duplicate=False))
    if at not in known:
        raise GraftError(f"{type(host).__name__} holds no module called {at!r}.{nearest(at, filter(None, known))}")


def _given(donor: Donor, plan: Plan, wanted: AbstractSet[str]) -> Mapping[str, torch.Tensor]:
    """Return the donor's tensors by every name; it must have those that are wanted.

    Raises:
        GraftError: one is missing, or has another shape than the plan leaves.
    """
    given = _tensors(donor)
    remedy = "Give the model that this plan was cut to, or leave donor out."
    for name in plan.fingerprint:
        left = plan.shape_after(name)
        if name in given and tuple(given[name].shape) != left:
            raise GraftError(
                f"The donor's {name} has shape {tuple(given[name].shape)}, the plan leaves {left}. {remedy}"
            )
        if name not in given and name in wanted:
            raise GraftError(f"The donor has no tensor {name}, which the part holds.{nearest(name, given)} {remedy}")
    return given


def _tensors(donor: Donor) -> Mapping[str, torch.Tensor]:
    if not isinstance(donor, nn.Module):
        return donor
    infos = tensor_infos(donor).values()
    return {alias: named_tensor(donor, info.name).detach() for info in infos for alias in info.aliases}


def _take_rest(small: nn.Module, given: Mapping[str, torch.Tensor], whole: Plan, but: AbstractSet[str]) -> None:
    """Write the second donor's tensors over the cut host's, all but some.

    Raises:
        GraftError: one is missing, or neither as the host's was nor as it is now; the host is as it was.
    """
    stored = small.state_dict().keys()
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    for info in tensor_infos(small).values():
        if but.isdisjoint(info.aliases) and not stored.isdisjoint(info.aliases):
            source = next((given[alias] for alias in info.aliases if alias in given), None)
            if source is None:
                raise GraftError(
                    f"The second donor has no tensor {info.name}, which the host holds outside of the part."
                    f"{nearest(info.name, given)} Give another checkpoint of the host."
                )
            before, now = tuple(whole.fingerprint[info.name]), tuple(info.shape)
            if tuple(source.shape) not in (before, now):
                raise GraftError(
                    f"The second donor's {info.name} has shape {tuple(source.shape)}; the host's was {before}, and is "
                    f"{now} now. Give another checkpoint of the host."
                )
            value = source if tuple(source.shape) == now else pruned_values(source, whole, info.name)
            found.append((named_tensor(small, info.name), value))
    with torch.no_grad():
        for target, value in found:
            target.copy_(value)


def _traced(host: nn.Module, plan: Plan, example: Any) -> tuple[tuple[Call, ...], Graph]:
    if example is not None:
        return calls_of(example), trace(host, example, attention=plan.attention)
    calls = calls_of(zeros_for(plan.calls)) if plan.calls else ()
    try:
        if calls:
            return calls, trace(host, list(calls), attention=plan.attention)
    except TraceError as error:
        raise GraftError(
            f"{type(host).__name__} does not run as the part did when the plan was made: {error} "
            "Say with example= how the host is called."
        ) from error
    raise GraftError("The plan does not say how the part was called. Say with example= how the host is called.")


def _transplant(
    full: torch.Tensor,
    target: torch.Tensor,
    given: torch.Tensor,
    alone: tuple[Plan, str],
    whole: tuple[Plan, str],
) -> None:
    """Write what the donor has of a tensor over the host's, wherever both kept it.

    Args:
        full: the host's tensor before the cut.
        target: the host's tensor after it; written to.
        given: the donor's tensor.
        alone: the part's plan, and what it calls the tensor.
        whole: the host's plan, and what it calls the tensor.
    """
    places = torch.arange(full.numel()).view(full.shape)
    theirs = kept_values(places, alone[0].keep.get(alone[1], {}))
    ours = kept_values(places, whole[0].keep.get(whole[1], {}))
    before, after = (scale_factors(full, plan, name) for plan, name in (alone, whole))
    canvas, from_donor = full.detach().flatten().clone(), torch.zeros(full.numel(), dtype=torch.bool)
    canvas[theirs.flatten().to(full.device)] = given.to(canvas).flatten()
    from_donor[theirs.flatten()] = True
    factors = torch.where(from_donor.view(full.shape).to(full.device), after / before, after)
    values = (
        (canvas.view(full.shape) * factors).to(full.dtype) if bool((factors != 1).any()) else canvas.view(full.shape)
    )
    with torch.no_grad():
        target.copy_(values.flatten()[ours.to(full.device)])
