"""`transfer`: an optimizer goes over to the pruned model, with what it remembers of the weights that stay."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn, optim

from secateur.errors import CutError
from secateur.graph.staging import tensor_infos
from secateur.graph.tracing import WRAPPERS
from secateur.planning.plans import Plan
from secateur.surgery.cutting import check_fits, kept_values, named_tensor, scale_factors

T = TypeVar("T", bound=optim.Optimizer)
Parameters = Mapping[str, torch.Tensor]
State = defaultdict[torch.Tensor, Any]

# What an optimizer remembers of every element of a parameter, and with which power of the gradient it grows.
_ADAM = {"exp_avg": 1, "exp_avg_sq": 2, "max_exp_avg_sq": 2}
POWERS: dict[type[optim.Optimizer], Mapping[str, int]] = {
    optim.SGD: {"momentum_buffer": 1},
    optim.Adam: _ADAM,
    optim.AdamW: _ADAM,
    optim.NAdam: _ADAM,
    optim.RAdam: _ADAM,
    optim.RMSprop: {"square_avg": 2, "grad_avg": 1, "momentum_buffer": 0},  # its momentum is of normalised gradients
}
REFUSED = {
    **WRAPPERS,
    "AveragedModel": (
        "The model is an AveragedModel. Pass the model that is trained; "
        "the average is cut by itself: `cut(ema.module, plan, inplace=True)`."
    ),
}


def transfer(optimizer: T, plan: Plan, model: nn.Module | Parameters, small: nn.Module, inplace: bool = False) -> T:
    """Return an optimizer for the pruned model that goes on where `optimizer` is.

    It is of the same class, with the same parameter groups, options, hooks and counts of steps; momenta and moments are
    cut like the weights. Training goes on as that of the full-size model would with the cut channels held at zero. Call
    it between two steps: gradients do not come along.

    Learning-rate schedulers, and whatever else holds the optimizer, go on with `inplace=True`. An average of the
    weights is cut like the model: `ema = cut(ema, plan)`, or for `torch.optim.swa_utils.AveragedModel`
    `cut(ema.module, plan, inplace=True)`. Compile, parametrise or wrap for several devices what comes out, afterwards.

    Where a plan multiplies rows of a weight by f so that the function stays (`plan.scales`: heads with fewer channels),
    their gradient g becomes g / f; averages of g and of g² are divided by f and f². From there on the trajectory is
    another one: for the same change of the function the rows would have to move by f times what they moved before, and
    they move by 1 / f times that with SGD, and by as much with the others (but for eps). Weight decay that is added to
    the gradient (not AdamW's) is averaged with it and cannot be told apart, so that its share is divided, too.

    Args:
        optimizer: SGD, Adam, AdamW, NAdam, RAdam or RMSprop of torch.optim, for some or all of the model's parameters.
        plan: what was kept.
        model: the full-size model that `optimizer` trains; if it was cut in place, what
            `dict(model.named_parameters())` was before.
        small: what `cut(model, plan)` returned.
        inplace: move `optimizer` itself over, and return it.

    Raises:
        CutError: the optimizer is of another class, remembers something else, or trains parameters that are not the
            model's; the plan is for another model; a model is wrapped; or a scheduler would stay behind.

    Example:
        >>> from secateur import cut, trace
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> optimizer = optim.AdamW(model.parameters())
        >>> plan = Plan.from_indices(trace(model, torch.zeros(1, 3)), {"0": [1, 6]})
        >>> optimizer = transfer(optimizer, plan, model, cut(model, plan))
        >>> optimizer.param_groups[0]["params"][0].shape
        torch.Size([6, 3])
    """
    _check_optimizer(optimizer, inplace)
    _check_models(plan, model, small)
    names = _names_of_trained(optimizer, plan, model)
    parameters = [[named_tensor(small, names[full]) for full in group["params"]] for group in optimizer.param_groups]
    state: State = defaultdict(dict)
    for full, name in names.items():
        if full in optimizer.state:
            state[named_tensor(small, name)] = _remembered(optimizer, full, plan, name)
    return _moved(optimizer, parameters, state) if inplace else _renewed(optimizer, parameters, state)


def _check_optimizer(optimizer: optim.Optimizer, inplace: bool) -> None:
    kind = type(optimizer)
    if kind not in POWERS:
        known = ", ".join(one.__name__ for one in POWERS)
        raise CutError(
            f"{kind.__module__}.{kind.__qualname__} is none of torch.optim's {known}, so it is not known how what it "
            "remembers is cut. If it wraps one of these, pass that; else make a new optimizer for the pruned model."
        )
    if not inplace and hasattr(optimizer.step, "_wrapped_by_lr_sched"):
        raise CutError(
            f"A learning-rate scheduler steers this {kind.__name__}, and would not steer a new one. "
            "Say inplace=True: the optimizer itself goes over to the pruned model, and its schedulers go on."
        )


def _check_models(plan: Plan, model: nn.Module | Parameters, small: nn.Module) -> None:
    for one in (model, small):
        _check_unwrapped(one)
    if model is small:
        raise CutError(
            "`model` and `small` are the same module, in which the full-size parameters have no names any more. "
            "For `model` pass what dict(model.named_parameters()) was before the cut."
        )
    if isinstance(model, nn.Module):
        check_fits(model, plan)
    shapes = {alias: info.shape for info in tensor_infos(small).values() for alias in info.aliases}
    remedy = "Pass what `cut` returned for this plan; wrap or parametrise it afterwards."
    for name in plan.fingerprint:
        if name not in shapes:
            raise CutError(f"The pruned {type(small).__name__} has no tensor {name}, which the plan knows. {remedy}")
        if shapes[name] != plan.shape_after(name):
            left = plan.shape_after(name)
            raise CutError(f"{name} of the pruned model has shape {shapes[name]}, the plan leaves {left}. {remedy}")


def _check_unwrapped(model: nn.Module | Parameters) -> None:
    for kind in type(model).__mro__:
        if kind.__module__.startswith("torch.") and kind.__name__ in REFUSED:
            raise CutError(REFUSED[kind.__name__])


def _names_of_trained(optimizer: optim.Optimizer, plan: Plan, model: nn.Module | Parameters) -> dict[torch.Tensor, str]:
    """Return what the model calls each parameter of an optimizer.

    Raises:
        CutError: the model does not hold it, or the plan knows no parameter of this name and shape.
    """
    named = model.named_parameters() if isinstance(model, nn.Module) else model.items()
    known, names = {parameter: name for name, parameter in named}, {}
    for number, group in enumerate(optimizer.param_groups):
        for parameter in group["params"]:
            shape, name = tuple(parameter.shape), known.get(parameter)
            if name is None:
                raise CutError(
                    f"Group {number} of {type(optimizer).__name__} has a parameter of shape {shape} that `model` does "
                    "not hold. Pass the model that the optimizer was made for; if it was cut in place, for `model` "
                    "what dict(model.named_parameters()) was before the cut."
                )
            if plan.fingerprint.get(name) != shape:
                expected = plan.fingerprint.get(name, "no such tensor")
                raise CutError(
                    f"{name} has shape {shape}, the plan expects {expected}. Pass what the plan was made for."
                )
            names[parameter] = name
    return names


def _remembered(optimizer: optim.Optimizer, full: torch.Tensor, plan: Plan, name: str) -> dict[str, Any]:
    """Return the state of a parameter, cut as the plan cuts the parameter.

    Raises:
        CutError: there is something that has neither the parameter's shape nor is one number.
    """
    powers, found = POWERS[type(optimizer)], {}
    for key, value in optimizer.state[full].items():
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else ()
        if key in powers and isinstance(value, torch.Tensor) and shape == tuple(full.shape):
            found[key] = _cut(value, plan, name, powers[key])
        elif shape in ((), (1,)):
            found[key] = copy.deepcopy(value)
        else:
            raise CutError(
                f"{type(optimizer).__name__} remembers {key!r} of {name}, of shape {shape}, and it is not known how "
                f"that is cut with a parameter of shape {tuple(full.shape)}. "
                "Make a new optimizer for the pruned model."
            )
    return found


def _cut(value: torch.Tensor, plan: Plan, name: str, power: int) -> torch.Tensor:
    """Return what stays of the average of a power of the gradient, for the weights as the plan multiplies them."""
    if power and plan.scales.get(name):
        value = (value / scale_factors(value, plan, name) ** power).to(value.dtype)
    return kept_values(value, plan.keep.get(name, {})).clone(memory_format=torch.preserve_format)


def _moved(optimizer: T, parameters: Sequence[list[torch.Tensor]], state: State) -> T:
    for group, own in zip(optimizer.param_groups, parameters, strict=True):
        group["params"] = own
    optimizer.state = state
    return optimizer


def _renewed(optimizer: T, parameters: Sequence[list[torch.Tensor]], state: State) -> T:
    new = type(optimizer).__new__(type(optimizer))
    bound = {"state", "param_groups", "step"}  # a `step` of its own would be the old optimizer's
    own = {key: copy.copy(value) for key, value in vars(optimizer).items() if key not in bound}
    groups = [
        {**copy.deepcopy({key: value for key, value in group.items() if key != "params"}), "params": params}
        for group, params in zip(optimizer.param_groups, parameters, strict=True)
    ]
    new.__setstate__({**own, "state": state, "param_groups": groups})
    return new
