"""Softmax in a form whose result does not depend on the processor.

ONNX Runtime's kernel for Softmax adds in an order that depends on the width of the processor's registers. In
the graphs of int8 it was the only operator whose results differed between AVX2 and AVX512 (version 1.32). A
difference in the last bit then moves an activation to the next step, and later layers amplify that.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from exporters.onnx_graph import attribute, replace_contents

AXIS = "softmax_axis"


def fix_softmaxes(model: ModelProto) -> int:
    """Write each Softmax over the last axis of a float32 graph with operators that add in float64, in place.

    The sum of exponentials is rounded to float32 once. In float64 the order of its terms changes it by 1e-16
    of itself, which the rounding hides but for one row in some hundred million; so padding does not change it
    either. A product with the probabilities is divided in place of them, as it has fewer numbers.

    Returns:
        How many there were.
    """
    found = [node for node in model.graph.node if _is_over_last_axis(node)]
    if not found:
        return 0
    divided = _products(model, found)
    instead = {product: _divided_product(node, name) for product, (node, name) in divided.items()}
    whole = {node.output[0] for node in found} - {name for _, name in divided.values()}
    for node in found:
        name = node.output[0]
        last = [helper.make_node("Div", _quotient(name), [name])] if name in whole else []
        instead[name] = [*_exponentials(node), *last]
    nodes = [new for node in model.graph.node for new in instead.get(node.output[0], [node])]
    axis = numpy_helper.from_array(np.array([-1], np.int64), AXIS)
    replace_contents(model, nodes, [*model.graph.initializer, axis])
    return len(found)


def _is_over_last_axis(node: NodeProto) -> bool:
    return node.op_type == "Softmax" and attribute(node, "axis", -1) == -1


def _products(model: ModelProto, softmaxes: list[NodeProto]) -> dict[str, tuple[NodeProto, str]]:
    """Return the products `(probabilities, values)` that alone read a Softmax, and its output, by theirs."""
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    outputs = {entry.name for entry in model.graph.output}
    found = {}
    for softmax in softmaxes:
        name = softmax.output[0]
        match readers[name]:
            case [reader] if reader.op_type == "MatMul" and reader.input[0] == name and name not in outputs:
                found[reader.output[0]] = (reader, name)
    return found


def _exponentials(softmax: NodeProto) -> list[NodeProto]:
    """Return the nodes of the two sides of `_quotient`."""
    [scores], [name] = softmax.input, softmax.output
    exponentials, total = _quotient(name)
    make = helper.make_node
    return [
        make("ReduceMax", [scores, AXIS], [f"{name}_largest"], keepdims=1),
        make("Sub", [scores, f"{name}_largest"], [f"{name}_shifted"]),
        make("Exp", [f"{name}_shifted"], [exponentials]),
        make("Cast", [exponentials], [f"{name}_wide"], to=TensorProto.DOUBLE),
        make("ReduceSum", [f"{name}_wide", AXIS], [f"{name}_wide_sum"], keepdims=1),
        make("Cast", [f"{name}_wide_sum"], [total], to=TensorProto.FLOAT),
    ]


def _divided_product(product: NodeProto, softmax: str) -> list[NodeProto]:
    exponentials, total = _quotient(softmax)
    [output] = product.output
    return [
        helper.make_node("MatMul", [exponentials, product.input[1]], [f"{output}_undivided"], product.name),
        helper.make_node("Div", [f"{output}_undivided", total], [output]),
    ]


def _quotient(softmax: str) -> list[str]:
    """Return the names of a Softmax's exponentials and of their sum in each row."""
    return [f"{softmax}_exponentials", f"{softmax}_sum"]
