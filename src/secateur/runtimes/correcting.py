"""After INT8: biases take back what the rounding of weights adds on average, and outputs are not rounded at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from secateur.runtimes.packages import require
from secateur.runtimes.samples import Open, Samples

NO_SHIFT = np.zeros(1, np.int8)


def correct_biases(quantized: Any, network: Any, samples: Samples, opened: Open) -> None:
    """Add to the bias of each convolution, in place, what its rounded weights have lost of the mean output.

    That is `(W - W') E[x]`, where x is what the convolution reads: empirical bias correction (Nagel et al., "Data-Free
    Quantization Through Weight Equalization and Bias Correction", ICCV 2019, arXiv 1906.04721, section 4.2).

    Args:
        quantized: the network in INT8, an ONNX model with pairs of QuantizeLinear and DequantizeLinear.
        network: the one that it was made of, whose nodes have the same names; what has none is left as it is.
        samples: what means are taken over.
        opened: opens an ONNX file that is given as bytes, and returns how it is run.
    """
    to_array, from_array = require("onnx").numpy_helper.to_array, require("onnx").numpy_helper.from_array
    weights = {one.name: one for one in network.graph.initializer}
    stored = {one.name: one for one in quantized.graph.initializer}
    made = {name: node for node in quantized.graph.node for name in node.output}
    uses = Counter(name for node in quantized.graph.node for name in node.input)
    named = Counter(node.name for node in network.graph.node if node.name)
    before = {
        node.name: node
        for node in network.graph.node
        if node.op_type == "Conv" and node.input[1] in weights and named[node.name] == 1
    }
    rounded = {
        node.name: [[stored[name] for name in made[one].input] for one in node.input[1:]]
        for node in quantized.graph.node
        if node.op_type == "Conv"
        and node.name in before
        and len(node.input) == 3
        and all(uses[one] == 1 and one in made and set(made[one].input) <= set(stored) for one in node.input[1:])
        and uses[made[node.input[2]].input[0]] == 1
    }
    means = _means(network, [before[name].input[0] for name in rounded], samples, opened) if rounded else {}
    for name, (weight, bias) in rounded.items():  # each as values, scale and zero point
        lost = to_array(weights[before[name].input[1]]) - _dequantized(*map(to_array, weight))
        share = lost.sum(axis=tuple(range(2, lost.ndim)))  # (O, I of a group)
        own = means[before[name].input[0]].reshape(-1, share.shape[1])  # (groups, I of a group)
        change = np.einsum("goi,gi->go", share.reshape(len(own), -1, share.shape[1]), own).ravel()
        values, scale = to_array(bias[0]), to_array(bias[1])
        bias[0].CopyFrom(from_array((values + np.rint(change / scale)).astype(values.dtype), bias[0].name))


def free_outputs(quantized: Any) -> None:
    """Take QuantizeLinear and DequantizeLinear off the outputs of a network in INT8, in place.

    Ranges are means over samples: what is larger would be cut off, such as the score of a class that is surely right.
    """
    graph = quantized.graph
    for output in graph.output:
        made = {name: node for node in graph.node for name in node.output}
        uses = [name for node in graph.node for name in node.input]
        last = made.get(output.name)
        if last is None or last.op_type != "DequantizeLinear":
            continue
        first = made.get(last.input[0])
        if first is None or uses.count(output.name) or uses.count(last.input[0]) > 1:
            continue
        source = first.input[0]
        if source not in made or uses.count(source) > 1:
            continue
        names = [output.name if name == source else name for name in made[source].output]
        made[source].output[:] = names
        graph.node.remove(last)
        graph.node.remove(first)
    read = {name for node in graph.node for name in node.input}
    for one in [one for one in graph.initializer if one.name not in read]:
        graph.initializer.remove(one)


def _means(network: Any, names: Sequence[str], samples: Samples, opened: Open) -> dict[str, np.ndarray]:
    """Return the mean of each channel of tensors (N, C, ...) over the samples."""
    helper, kinds = require("onnx").helper, require("onnx").TensorProto
    names = list(dict.fromkeys(names))
    probe = type(network)()
    probe.CopyFrom(network)
    del probe.graph.output[:]
    for name in names:
        probe.graph.node.append(helper.make_node("GlobalAveragePool", [name], [f"{name}/mean"]))
        probe.graph.output.append(helper.make_tensor_value_info(f"{name}/mean", kinds.FLOAT, None))
    run = opened(probe.SerializeToString())
    sums = [np.zeros(1)] * len(names)
    for sample in samples:
        sums = [
            one + found.reshape(*found.shape[:2]).mean(axis=0) for one, found in zip(sums, run(sample), strict=True)
        ]
    return {name: one / len(samples) for name, one in zip(names, sums, strict=True)}


def _dequantized(values: np.ndarray, scale: np.ndarray, zero: np.ndarray = NO_SHIFT) -> np.ndarray:
    """Return weights (O, ...) that are held in 8 bits by output channel."""
    shape = (-1, *[1] * (values.ndim - 1))
    return (values.astype(np.float32) - zero.reshape(shape)) * scale.reshape(shape)
