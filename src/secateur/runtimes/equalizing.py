"""Before INT8: tensors that a convolution reads side by side get one 8-bit scale, so they are brought to one range.

A picture beside features that are six times as large would keep 40 of its 256 levels.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from secateur.runtimes.packages import require
from secateur.runtimes.samples import Open, Samples

LEAST = 1.5  # times; below that a multiplication more is not worth it


@dataclass(frozen=True)
class _Join:
    """A concatenation of channels that a convolution alone reads."""

    concat: Any
    convolution: Any
    weight: Any


def equalized(path: Path, samples: Samples, opened: Open) -> bytes:
    """Return an ONNX file that computes the same, where tensors side by side before a convolution are of like ranges.

    A tensor is multiplied by 1 / s and its share of the weights by s, as SmoothQuant does by channel (Xiao et al., ICML
    2023, eq. 4, with alpha 1/2); the one with most channels stays as it is.

    Args:
        path: the file.
        samples: what ranges are taken on.
        opened: opens an ONNX file that is given as bytes, and returns how it is run.
    """
    onnx = require("onnx")
    model = onnx.load(str(path))
    joins = list(_joins(model.graph))
    if joins:
        ranges = _ranges(model, joins, samples, opened)
        for join in joins:
            _equalize(model.graph, join, [ranges[name] for name in join.concat.input])
    return model.SerializeToString()


def _joins(graph: Any) -> Iterator[_Join]:
    uses = Counter(_read(graph))
    weights = {one.name: one for one in graph.initializer}
    concats = {
        node.output[0]: node for node in graph.node if node.op_type == "Concat" and _attribute(node, "axis") == 1
    }
    for node in graph.node:
        if node.op_type != "Conv" or _attribute(node, "group") not in (None, 1):
            continue
        concat, weight = concats.get(node.input[0]), weights.get(node.input[1])
        if concat is None or weight is None or weight.data_type != require("onnx").TensorProto.FLOAT:
            continue
        if uses[concat.output[0]] == uses[weight.name] == 1:
            yield _Join(concat, node, weight)


def _read(graph: Any) -> Iterator[str]:
    """Yield the tensors that are read, as often as they are, also in branches and loops."""
    yield from (one.name for one in graph.output)
    for node in graph.node:
        yield from node.input
        for one in node.attribute:
            for inner in (one.g, *one.graphs):
                yield from _read(inner)


def _attribute(node: Any, name: str) -> int | None:
    return next((one.i for one in node.attribute if one.name == name), None)


def _ranges(model: Any, joins: Sequence[_Join], samples: Samples, opened: Open) -> dict[str, tuple[float, int]]:
    """Return, of every tensor that is joined, the largest absolute value over the samples, and its channels."""
    helper, kinds = require("onnx").helper, require("onnx").TensorProto
    names = list(dict.fromkeys(name for join in joins for name in join.concat.input))
    probe = type(model)()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    for name in names:
        probe.graph.node.extend(
            [
                helper.make_node("Abs", [name], [f"{name}/size"]),
                helper.make_node("ReduceMax", [f"{name}/size"], [f"{name}/largest"], keepdims=0),
                helper.make_node("Shape", [name], [f"{name}/shape"]),
            ]
        )
        probe.graph.output.append(helper.make_tensor_value_info(f"{name}/largest", kinds.FLOAT, []))
        probe.graph.output.append(helper.make_tensor_value_info(f"{name}/shape", kinds.INT64, [None]))
    run = opened(probe.SerializeToString())
    found = [run(sample) for sample in samples]
    return {
        name: (max(float(one[2 * place]) for one in found), int(found[0][2 * place + 1][1]))
        for place, name in enumerate(names)
    }


def _equalize(graph: Any, join: _Join, parts: Sequence[tuple[float, int]]) -> None:
    """Multiply what is joined by 1 / s, and the weights by s."""
    numpy_helper = require("onnx").numpy_helper
    weight = numpy_helper.to_array(join.weight)
    ends = np.cumsum([channels for _, channels in parts])
    shares = np.split(weight, ends[:-1], axis=1)
    scales = np.array([_scale(largest, share) for (largest, _), share in zip(parts, shares, strict=True)])
    scales /= scales[int(np.argmax([channels for _, channels in parts]))]
    scales[np.abs(np.log(scales)) < np.log(LEAST)] = 1.0
    for place in np.flatnonzero(scales != 1):
        _multiply(graph, join, int(place), 1 / scales[place])
    weight = np.concatenate([share * np.float32(scale) for share, scale in zip(shares, scales, strict=True)], axis=1)
    join.weight.CopyFrom(numpy_helper.from_array(weight, join.weight.name))


def _free_name(graph: Any, name: str) -> str:
    """Return the name, or one with a number where something begins with it."""
    taken = {one for node in graph.node for one in (node.name, *node.output)} | {one.name for one in graph.initializer}
    numbered = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(1)))
    return next(new for new in numbered if not any(one == new or one.startswith(f"{new}/") for one in taken))


def _scale(largest: float, weight: np.ndarray) -> float:
    strongest = float(np.abs(weight).max())
    return (largest / strongest) ** 0.5 if largest and strongest else 1.0


def _multiply(graph: Any, join: _Join, place: int, factor: float) -> None:
    onnx = require("onnx")
    name = _free_name(graph, f"{join.convolution.name or join.concat.output[0]}/scale_{place}")
    source = join.concat.input[place]
    graph.initializer.append(onnx.numpy_helper.from_array(np.float32(factor), f"{name}/factor"))
    node = onnx.helper.make_node("Mul", [source, f"{name}/factor"], [f"{name}/output"], name=name)
    graph.node.insert(list(graph.node).index(join.concat), node)
    join.concat.input[place] = f"{name}/output"
