"""Reading an ONNX graph: its nodes, its constants, the types of its tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

# Multiplications by a matrix, the weight or Gemm's B as second input.
GEMMS = ("MatMul", "Gemm")
# Shape inference reads small constants (shapes, axes); weights only cost it time and memory.
_LARGEST_READ = 1024
_PLAIN_VALUES = {
    "value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64,
}  # fmt: skip


def walk(graph: GraphProto) -> Iterator[NodeProto]:
    """Yield the nodes of a graph, and after each those of its branches and bodies."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from walk(attribute.g)
            for inner in attribute.graphs:
                yield from walk(inner)


def label(node: NodeProto) -> str:
    """Return what to call a node: its name, or its operator and first output where it has none."""
    return node.name or f"{node.op_type} -> {node.output[0] if node.output else '?'}"


def opset(model: ModelProto) -> int:
    """Return the version of the default operator set, 0 if the model imports none."""
    return max(
        (int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0
    )


def inputs(graph: GraphProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs that a caller has to give; old graphs list their weights as inputs too."""
    weights = {entry.name for entry in graph.initializer}
    return [entry for entry in graph.input if entry.name not in weights]


def attribute(node: NodeProto, name: str, default: int = 0) -> int:
    """Return an integer attribute of a node."""
    return next((int(entry.i) for entry in node.attribute if entry.name == name), default)


def constants(graph: GraphProto) -> dict[str, TensorProto]:
    """Return the tensors that are known before a run: initializers, and values of Constant nodes."""
    found = {entry.name: entry for entry in graph.initializer}
    for node in walk(graph):
        if node.op_type != "Constant":
            continue
        for entry in node.attribute:
            if entry.name == "value":
                found[node.output[0]] = entry.t
            elif entry.name in _PLAIN_VALUES:
                value = np.asarray(onnx.helper.get_attribute_value(entry), dtype=_PLAIN_VALUES[entry.name])
                found[node.output[0]] = numpy_helper.from_array(value)
    return found


def element_types(model: ModelProto) -> dict[str, int]:
    """Return the element type (`TensorProto.DataType`) of every tensor for which ONNX infers one.

    What the graph itself claims of its inner tensors is not believed.

    Raises:
        onnx.shape_inference.InferenceError: a node cannot be understood at all.
    """
    known: dict[str, int] = {}
    for graph in _graphs(infer(model, strict=False).graph):
        for entry in (*graph.input, *graph.value_info, *graph.output):
            if entry.type.tensor_type.elem_type:
                known.setdefault(entry.name, entry.type.tensor_type.elem_type)
        known.update({entry.name: entry.data_type for entry in graph.initializer})
    return known


def same_type_inputs(node: NodeProto, version: int) -> list[list[str]]:
    """Return the inputs of a node, grouped by the type variable of ONNX's schema that they share."""
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain.removeprefix("ai.onnx"))
    except onnx.defs.SchemaError:
        return []
    groups: dict[str, list[str]] = {}
    for position, name in enumerate(node.input):
        formal = schema.inputs[min(position, len(schema.inputs) - 1)]
        if name and formal.is_homogeneous:
            groups.setdefault(formal.type_str, []).append(name)
    return list(groups.values())


def type_name(elem_type: int) -> str:
    """Return a type's name as ONNX's documents have it, such as `float16`."""
    return "float32" if elem_type == TensorProto.FLOAT else TensorProto.DataType.Name(elem_type).lower()


def infer(model: ModelProto, *, strict: bool) -> ModelProto:
    """Return a copy without large weights, in which ONNX has inferred types and shapes.

    Raises:
        onnx.shape_inference.InferenceError: a node cannot be understood at all; or, if strict, the
            graph contradicts itself.
    """
    return onnx.shape_inference.infer_shapes(_without_weights(model), strict_mode=strict, data_prop=True)


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in walk(graph):
        for entry in node.attribute:
            if entry.type == AttributeProto.GRAPH:
                yield entry.g
            yield from entry.graphs


def _without_weights(model: ModelProto) -> ModelProto:
    light = ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph = light.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    # Inference does not know sparse ones.
    for sparse in model.graph.sparse_initializer:
        graph.initializer.add(name=sparse.values.name, data_type=sparse.values.data_type, dims=sparse.dims)
    for entry in model.graph.initializer:
        if math.prod(entry.dims) <= _LARGEST_READ:
            graph.initializer.append(entry)
        else:
            graph.initializer.add(name=entry.name, data_type=entry.data_type, dims=entry.dims)
    return light


def replace_contents(
    model: ModelProto, nodes: Iterable[NodeProto], initializers: Iterable[TensorProto]
) -> None:
    """Give a graph other nodes and initializers, in place; they may be its own."""
    for field, entries in ((model.graph.node, nodes), (model.graph.initializer, initializers)):
        copies = [type(entry).FromString(entry.SerializeToString()) for entry in entries]
        del field[:]
        field.extend(copies)
