"""A bfloat16 graph with its arithmetic in float32, since no CPU kernel of ONNX Runtime takes bfloat16."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper


def widen(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a graph in which every bfloat16 tensor is a float32 one of the same value.

    What it computes is what the graph would without rounding between operators: it proves weights and
    wiring, and leaves the rounding to the hardware.
    """
    widened = onnx.ModelProto()
    widened.CopyFrom(model)
    graph = widened.graph
    for initializer in graph.initializer:
        _widen_tensor(initializer)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.BFLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                _widen_tensor(attribute.t)
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.BFLOAT16:
                attribute.i = TensorProto.FLOAT
    return widened


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.BFLOAT16:
        value = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
