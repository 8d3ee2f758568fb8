"""The forms of a graph in which ONNX Runtime's kernels for CPUs are fast; what it computes stays the same.

ONNX Runtime fuses a residual sum and the layer normalization after it into one kernel, which on CPUs takes
several times as long as the two together; a Sum in place of the Add is left alone. Its GELU is one kernel
where PyTorch's exporter leaves five nodes, and is found if the factor of one half comes last.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from exporters.onnx_graph import constants
from exporters.softmax import fix_softmaxes


def suit_cpu_kernels(path: Path, *, any_processor: bool = False) -> None:
    """Rewrite the residual sums and GELUs of a graph in place, with ONNX's own operators.

    Args:
        any_processor: also its Softmaxes, so that processors agree on them; see `exporters.softmax`.
    """
    model = onnx.load(path)
    sum_residuals(model)
    halve_gelus_last(model)
    if any_processor:
        fix_softmaxes(model)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def sum_residuals(model: ModelProto) -> int:
    """Make each Add whose result is normalized a Sum, in place; bit for bit the same. Returns how many."""
    normalized = {node.input[0] for node in model.graph.node if node.op_type == "LayerNormalization"}
    found = [node for node in model.graph.node if node.op_type == "Add" and node.output[0] in normalized]
    for node in found:
        node.op_type = "Sum"
    return len(found)


def halve_gelus_last(model: ModelProto) -> int:
    """Make each x * (0.5 * (1 + erf(x / sqrt 2))) an (x * (1 + erf(x / sqrt 2))) * 0.5, in place.

    A factor of one half is exact wherever it stands, but for numbers so small that they have no half.

    Returns:
        How many there were.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    readers = Counter(name for node in model.graph.node for name in node.input)
    readers.update(output.name for output in model.graph.output)
    scalars = {
        name: numpy_helper.to_array(tensor)
        for name, tensor in constants(model.graph).items()
        if math.prod(tensor.dims) == 1
    }
    count = 0
    for outer in model.graph.node:
        for x, halved in _both_orders(outer, "Mul"):
            inner = makers.get(halved)
            if inner is None or readers[halved] != 1:
                continue
            for half, shifted in _both_orders(inner, "Mul"):
                if _is(scalars, half, 0.5) and _is_shifted_erf(shifted, x, makers, scalars):
                    inner.input[:] = [x, shifted]
                    outer.input[:] = [halved, half]
                    count += 1
    return count


def _is_shifted_erf(
    name: str, x: str, makers: Mapping[str, NodeProto], scalars: Mapping[str, NDArray[np.generic]]
) -> bool:
    """Whether a tensor is 1 + erf(x / sqrt 2)."""
    for one, bent in _both_orders(makers.get(name), "Add"):
        erf = makers.get(bent)
        if _is(scalars, one, 1.0) and erf is not None and erf.op_type == "Erf":
            scaled = makers.get(erf.input[0])
            return (
                scaled is not None
                and scaled.op_type == "Div"
                and scaled.input[0] == x
                and _is(scalars, scaled.input[1], math.sqrt(2))
            )
    return False


def _both_orders(node: NodeProto | None, operator: str) -> list[tuple[str, str]]:
    """The two inputs of a node of that operator, in both orders; nothing for other nodes."""
    if node is None or node.op_type != operator:
        return []
    first, second = node.input
    return [(first, second), (second, first)]


def _is(scalars: Mapping[str, NDArray[np.generic]], name: str, value: float) -> bool:
    """Whether a tensor is that number, as exactly as its type holds it."""
    return name in scalars and bool((scalars[name] == np.asarray(value, scalars[name].dtype)).all())
