"""`cut`: take the channels that a plan removes out of the user's own module."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from secateur.errors import CutError
from secateur.graph.provenance import rewritten
from secateur.graph.staging import module_at, tensor_infos
from secateur.planning.plans import Plan


def cut(model: nn.Module, plan: Plan, inplace: bool = False) -> nn.Module:
    """Return a copy of `model` without the channels that `plan` removes.

    The copy is of the same class; parameters shrink from (O, I, *k) to (O', I', *k), and the integers that the code
    reads (`groups`, sizes in views, bounds of slices) follow. Tied tensors stay tied; mode, device, dtype, hooks and
    `requires_grad` stay.

    Args:
        model: the full-size model that the plan was made for, or another checkpoint of it.
        plan: what is kept.
        inplace: cut `model` itself, and return it. Gradients that it has are dropped.

    Raises:
        CutError: the plan was made for another model; names the first tensor that differs.

    Example:
        >>> small = cut(model, plan)  # doctest: +SKIP
        >>> small.conv1.weight.shape  # doctest: +SKIP
        torch.Size([8, 3, 3, 3])
    """
    check_fits(model, plan)
    for name in plan.attributes:
        _integer(model, name)
    small = model if inplace else copied(model)
    for name, info in tensor_infos(small).items():
        if name in plan.keep or name in plan.scales:
            put(small, info.aliases, _shrunken(named_tensor(small, name), plan, name))
        else:
            named_tensor(small, name).grad = None  # as with those that are cut: they were of the full-size model
    rewrite_integers(small, plan.attributes)
    for path in {"", *(prefix for name in plan.keep for prefix in _prefixes(name))}:
        describe(module_at(small, path))
    return small


def _prefixes(name: str) -> list[str]:
    """Return the modules that a tensor lies in: a parametrised layer is not the one that holds its tensor."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def check_fits(model: nn.Module, plan: Plan) -> None:
    """Compare a model's tensors with a plan's fingerprint.

    Raises:
        CutError: a tensor is missing, unexpected or of another shape; names the first.
    """
    infos = tensor_infos(model).values()
    shapes = {alias: info.shape for info in infos for alias in info.aliases}
    remedy = "Pass the model that the plan was made for, or make a new plan."
    for info in infos:
        for alias in info.aliases[1:]:
            told = [(plan.keep[name], plan.scales.get(name)) for name in (info.name, alias) if name in plan.keep]
            if len(told) > 1 and told[0] != told[1]:
                raise CutError(
                    f"{info.name} and {alias} are one tensor in {type(model).__name__}, and two in the plan. {remedy}"
                )
    for name, shape in shapes.items():  # in the order of the model
        if tuple(shape) != plan.fingerprint.get(name, tuple(shape)):
            raise CutError(f"{name} has shape {tuple(shape)}, the plan expects {plan.fingerprint[name]}. {remedy}")
    missing = next((name for name in plan.fingerprint if name not in shapes), None)
    if missing is not None:
        raise CutError(f"{type(model).__name__} has no tensor {missing}, which the plan expects. {remedy}")
    unknown = next((name for name in shapes if name not in plan.fingerprint), None)
    if unknown is not None:
        raise CutError(f"The plan does not know the tensor {unknown} of {type(model).__name__}. {remedy}")


def copied(model: nn.Module) -> nn.Module:
    """Return a deep copy of a model.

    Raises:
        CutError: the model cannot be copied.
    """
    computed = [
        value for module in model.modules() for value in vars(module).values() if isinstance(value, torch.Tensor)
    ]
    try:
        return copy.deepcopy(
            model, {id(value): value.detach().clone() for value in computed if value.grad_fn is not None}
        )
    except Exception as error:
        raise CutError(
            f"The model cannot be copied ({type(error).__name__}: {error}). "
            "Cut it in place (inplace=True) or remove what cannot be copied from it."
        ) from error


def named_tensor(model: nn.Module, name: str) -> torch.Tensor:
    """Return a parameter or buffer by name."""
    path, _, key = name.rpartition(".")
    module = module_at(model, path)
    tensor = module._parameters[key] if key in module._parameters else module._buffers[key]
    assert tensor is not None
    return tensor


def put(model: nn.Module, names: Sequence[str], tensor: torch.Tensor) -> None:
    """Give a model another parameter or buffer, under each of its names."""
    for name in names:
        path, _, key = name.rpartition(".")
        module = module_at(model, path)
        store: dict[str, Any] = module._parameters if key in module._parameters else module._buffers
        store[key] = tensor


def _shrunken(tensor: torch.Tensor, plan: Plan, name: str) -> torch.Tensor:
    with torch.no_grad():
        data = pruned_values(tensor.detach(), plan, name).clone(memory_format=torch.preserve_format)
    if not isinstance(tensor, nn.Parameter):
        return data
    return type(tensor)(data, requires_grad=tensor.requires_grad)


def pruned_values(tensor: torch.Tensor, plan: Plan, name: str) -> torch.Tensor:
    """Return what a plan leaves of a tensor: the kept indices, times its scales."""
    axes = plan.keep.get(name, {})
    values = kept_values(tensor, axes)
    if tensor.is_meta:  # there is nothing to multiply
        return values
    for factors in _factors(tensor, plan, name):
        kept = factors[list(axes[0])] if 0 in axes else factors
        values = values * kept.reshape(-1, *(1,) * (values.ndim - 1))
    return values


def scale_factors(tensor: torch.Tensor, plan: Plan, name: str) -> torch.Tensor:
    """Return what a plan multiplies the rows of a full-size tensor by, to be broadcast with it."""
    product = torch.ones((), dtype=torch.float64, device=tensor.device)
    for factors in _factors(tensor, plan, name):
        product = product * factors.double().reshape(-1, *(1,) * (tensor.ndim - 1))
    return product


def _factors(tensor: torch.Tensor, plan: Plan, name: str) -> Iterator[torch.Tensor]:
    """Yield the factors of a full-size tensor's rows, one scale after the other."""
    for scale in plan.scales.get(name, ()):
        factors = torch.full(tensor.shape[:1], scale.factor, dtype=tensor.dtype, device=tensor.device)
        if scale.rows is not None:
            factors = torch.ones_like(factors)
            factors[list(scale.rows)] = scale.factor
        yield factors


def kept_values(tensor: torch.Tensor, axes: Mapping[Any, Any]) -> torch.Tensor:
    """Select the kept indices along every axis; along `"grouped"` the kept rows of each remaining group."""
    layout = (
        torch.channels_last if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last) else None
    )
    for axis, indices in axes.items():
        if axis != "grouped":
            tensor = tensor.index_select(axis, torch.tensor(indices, dtype=torch.int64, device=tensor.device))
    rows = axes.get("grouped")
    if rows:
        outputs = tensor.shape[0] // len(rows)
        index = torch.tensor(rows, dtype=torch.int64, device=tensor.device).repeat_interleave(outputs, dim=0)
        index = index.reshape(*index.shape, *(1,) * (tensor.ndim - 2)).expand(-1, -1, *tensor.shape[2:])
        tensor = tensor.gather(1, index)
    return tensor.contiguous(memory_format=layout) if layout is not None and not tensor.is_contiguous() else tensor


def rewrite_integers(model: nn.Module, attributes: Mapping[str, int]) -> None:
    """Give integers in attributes ("path.key", "path.key[0]") new values.

    Raises:
        CutError: the model has no such integer; names it.
    """
    for name, value in attributes.items():
        own, key, place = _integer(model, name)
        own[key] = rewritten(own[key], place, value)


def _integer(model: nn.Module, name: str) -> tuple[dict[str, Any], str, int | None]:
    """Find an integer of a model: among whose attributes, under which key, at which place of a list there."""
    path, _, last = name.rpartition(".")
    key, _, index = last.partition("[")
    with suppress(AttributeError, LookupError, ValueError):
        own, place = vars(module_at(model, path)), int(index.rstrip("]")) if index else None
        items = [own[key]] if place is None else own[key]
        if type(items) in (list, tuple) and type(items[place or 0]) is int:
            return own, key, place
    raise CutError(
        f"{type(model).__name__} has no integer {name}, which the plan rewrites. "
        "Pass the model that the plan was made for, or make a new plan."
    )


def describe(module: nn.Module) -> None:
    """Bring the sizes that torch's own layers keep for information in line with their weights."""
    for kind, sizes in SIZES.items():
        if isinstance(module, kind):
            for key, value in sizes(module).items():
                if isinstance(vars(module).get(key), (int, tuple)):
                    vars(module)[key] = value


def _weight(module: Any) -> torch.Tensor:
    """Return the weight that a layer keeps; with `torch.nn.utils.prune` the other one is computed from it in time."""
    kept = module._parameters.get("weight_orig")
    weight: torch.Tensor = module.weight if kept is None else kept
    return weight


def _convolution(module: Any) -> dict[str, int]:
    outputs, inputs = _weight(module).shape[:2]
    if module.transposed:
        return {"in_channels": outputs, "out_channels": inputs * module.groups}
    return {"in_channels": inputs * module.groups, "out_channels": outputs}


def _channel_norm(module: Any) -> dict[str, int]:
    tensor = _weight(module) if module.weight is not None else module.running_mean
    return {} if tensor is None else {"num_features": len(tensor)}


SIZES: dict[type[nn.Module], Any] = {
    nn.modules.conv._ConvNd: _convolution,
    nn.Linear: lambda module: {"in_features": _weight(module).shape[1], "out_features": _weight(module).shape[0]},
    nn.Embedding: lambda module: dict(zip(("num_embeddings", "embedding_dim"), _weight(module).shape, strict=True)),
    nn.modules.batchnorm._NormBase: _channel_norm,
    nn.LayerNorm: lambda module: {} if module.weight is None else {"normalized_shape": tuple(_weight(module).shape)},
    nn.GroupNorm: lambda module: {} if module.weight is None else {"num_channels": len(_weight(module))},
    nn.Bilinear: lambda module: dict(
        zip(("out_features", "in1_features", "in2_features"), _weight(module).shape, strict=True)
    ),
    nn.PReLU: lambda module: {"num_parameters": len(_weight(module))},
    nn.MultiheadAttention: lambda module: {"head_dim": module.embed_dim // module.num_heads},
}
