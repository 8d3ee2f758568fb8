"""Graphs for the checks of TensorRT, and ways to change them."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper, parser

QUERY = "bert.encoder.layer.0.attention.self.query.weight"


def said(findings):
    return " | ".join(f"{finding.where}: {finding.reason}" for finding in findings)


def add_node(model, op, inputs, outputs=("new",), **attributes):
    model.graph.node.append(helper.make_node(op, inputs, outputs, name=f"new_{op}", **attributes))


def initializer(model, name):
    return next(entry for entry in model.graph.initializer if entry.name == name)


def user_of(model, tensor):
    return next(node for node in model.graph.node if tensor in node.input)


def graph_of(body, version=18):
    """A graph `(ids) -> (y)` that looks ids up in float16 and goes on with `x (batch, sequence, 8)`."""
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : {version}]>
        made (int64[batch, sequence] ids) => (float16[batch, sequence, n] y) {{
            x = Gather(table, ids)
            {body}
        }}"""
    )
    values = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float16)
    for name in ("table", "w"):
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def as_float32(model):
    """The graph with all its floats, and its casts to them, in float32."""
    for entry in model.graph.initializer:
        if entry.data_type == TensorProto.FLOAT16:
            value = numpy_helper.to_array(entry).astype(np.float32)
            entry.CopyFrom(numpy_helper.from_array(value, entry.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    del model.graph.value_info[:]
    return model
