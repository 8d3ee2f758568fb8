"""What can be told of a graph before TensorRT sees it: checks, each with all nodes that fail it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from exporters.onnx_graph import (
    GEMMS,
    constants,
    element_types,
    infer,
    inputs,
    label,
    opset,
    same_type_inputs,
    type_name,
    walk,
)
from exporters.tensorrt.operators import (
    CONSTANT_INPUT,
    FIRST_OUTPUT_ONLY,
    SUPPORTED_TYPES,
    TYPED_INPUT,
    TYPED_OUTPUT,
    UNTYPED,
)

if TYPE_CHECKING:
    from exporters.tensorrt.profile import Profile

OPSETS = range(9, 21)
# What ONNX Runtime's quantizer writes; TensorRT wants QuantizeLinear and DequantizeLinear instead.
RUNTIME_INT8 = frozenset(
    {"ConvInteger", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat",
     "QAttention", "QGemm", "QLinearConv", "QLinearMatMul"}
)  # fmt: skip
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
# trtexec separates names and shapes by colons and commas.
_PLAIN_NAME = re.compile(r"[\w./-]+")
_LISTED = 5


@dataclass(frozen=True)
class Finding:
    """One thing that TensorRT would stumble over.

    Attributes:
        where: name of a node, input or initializer, or of the graph as a whole.
    """

    where: str
    reason: str


@dataclass(frozen=True)
class Check:
    """The outcome of one check: all findings, and what else is worth knowing."""

    name: str
    findings: tuple[Finding, ...]
    note: str = ""

    @property
    def status(self) -> Literal["pass", "fail"]:
        """A check passes if nothing was found."""
        return "fail" if self.findings else "pass"


def static_checks(
    model: ModelProto, profile: Profile, max_position_embeddings: int, *, half: bool = True
) -> list[Check]:
    """Check a graph for TensorRT 10 and later, strongly typed.

    A pass is no promise that an engine builds; a fail is a reason why it would not, or why it would
    not be the engine that was meant.

    Args:
        profile: the shapes that the engine is to take.
        max_position_embeddings: longest sequence of the model, in tokens.
        half: whether the graph is to be in float16 throughout.
    """
    known = {
        name: tensor
        for name, tensor in constants(model.graph).items()
        if tensor.data_location != TensorProto.EXTERNAL
    }
    types: dict[str, int] = {}
    unknown: tuple[Finding, ...] = ()
    try:
        types = element_types(model)
    except onnx.shape_inference.InferenceError:
        unknown = (Finding(_name(model), "types cannot be inferred, since the graph is no valid ONNX"),)
    checks = [
        Check("valid ONNX", tuple(_validity(model))),
        Check("default domain", tuple(_domains(model))),
        Check("opset", tuple(_opset(model)), f"opset {opset(model)}"),
        Check("operators", tuple(_operators(model, types, known)), _operator_note(model)),
        Check("dense weights", tuple(_dense_weights(model))),
        Check("inputs", tuple(_inputs(model))),
        Check("profile", tuple(_profile(profile, max_position_embeddings))),
        Check("quantization", tuple(_quantization(model, known))),
        Check("strong typing", unknown or tuple(_strong_typing(model, types))),
    ]
    if half:
        checks.append(Check("float16", unknown or tuple(_half_precision(model, types)), _float_note(model)))
    return checks


def _validity(model: ModelProto) -> Iterator[Finding]:
    try:
        onnx.checker.check_model(model)
        infer(model, strict=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        yield Finding(_name(model), " ".join(str(error).split()))


def _domains(model: ModelProto) -> Iterator[Finding]:
    for node in walk(model.graph):
        if node.domain not in ("", "ai.onnx"):
            yield Finding(label(node), f"{node.domain}::{node.op_type} is not of ONNX's default domain")
    for function in model.functions:
        yield Finding(function.name, f"is a function of the model's own, of domain {function.domain!r}")


def _opset(model: ModelProto) -> Iterator[Finding]:
    version = opset(model)
    if version not in OPSETS:
        yield Finding(_name(model), f"opset {version} is not from {OPSETS[0]} to {OPSETS[-1]}")


def _operators(model: ModelProto, types: dict[str, int], known: dict[str, TensorProto]) -> Iterator[Finding]:
    for node in walk(model.graph):
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type not in SUPPORTED_TYPES:
            yield Finding(label(node), f"{node.op_type} is not supported")
            continue
        for tensor in _typed_tensors(node):
            elem_type = types.get(tensor)
            allowed = SUPPORTED_TYPES[node.op_type]
            if elem_type is not None and TensorProto.DataType.Name(elem_type) not in allowed:
                yield Finding(label(node), f"{node.op_type} of {type_name(elem_type)} is not supported")
        position = CONSTANT_INPUT.get(node.op_type)
        if position is not None and len(node.input) > position:
            name = node.input[position]
            if name and name not in known:
                yield Finding(label(node), f"input {name!r} of {node.op_type} has to be a constant")
        if node.op_type in FIRST_OUTPUT_ONLY and any(node.output[1:]):
            yield Finding(label(node), f"only the first output of {node.op_type} is supported")


def _typed_tensors(node: NodeProto) -> list[str]:
    """Return the tensors whose type decides whether TensorRT has the operator."""
    if node.op_type in UNTYPED:
        return []
    position = TYPED_INPUT.get(node.op_type, 0)
    tensors = [node.input[position]] if len(node.input) > position else []
    if node.op_type in TYPED_OUTPUT:
        # Only Cast has a meaning for both.
        tensors = [*(tensors if node.op_type == "Cast" else []), node.output[0]]
    return tensors


def _operator_note(model: ModelProto) -> str:
    nodes = list(walk(model.graph))
    return f"{len(nodes)} nodes of {len({node.op_type for node in nodes})} operators"


def _dense_weights(model: ModelProto) -> Iterator[Finding]:
    for sparse in model.graph.sparse_initializer:
        yield Finding(sparse.values.name, "is a sparse initializer; TensorRT reads dense ones only")
    for node in walk(model.graph):
        if node.op_type == "Constant" and any(entry.name == "sparse_value" for entry in node.attribute):
            yield Finding(label(node), "holds a sparse value; TensorRT reads dense ones only")
    for name, tensor in constants(model.graph).items():
        if tensor.data_location == TensorProto.EXTERNAL:
            yield Finding(name, "has its values in a file outside of the graph")


def _inputs(model: ModelProto) -> Iterator[Finding]:
    entries = inputs(model.graph)
    if not entries:
        yield Finding(_name(model), "has no inputs")
    axes: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        kind = entry.type.tensor_type
        if kind.elem_type not in (TensorProto.INT32, TensorProto.INT64):
            yield Finding(entry.name, f"is {type_name(kind.elem_type)}, not int32 or int64")
        if not _PLAIN_NAME.fullmatch(entry.name):
            yield Finding(entry.name, "has a name that trtexec's shapes cannot hold")
        if not kind.HasField("shape") or len(kind.shape.dim) != 2:
            rank = len(kind.shape.dim) if kind.HasField("shape") else "unknown"
            yield Finding(entry.name, f"has rank {rank}, not 2 (batch and sequence)")
            continue
        for position, dim in enumerate(kind.shape.dim):
            if dim.HasField("dim_value"):
                yield Finding(entry.name, f"axis {position} is fixed at {dim.dim_value}")
            elif not dim.dim_param:
                yield Finding(entry.name, f"axis {position} has no name")
        axes[entry.name] = tuple(dim.dim_param for dim in kind.shape.dim)
    first = next(iter(axes), "")
    for name, names in axes.items():
        if all(names) and all(axes[first]) and names != axes[first]:
            yield Finding(name, f"has the axes {_listed(names)}, {first} has {_listed(axes[first])}")


def _profile(profile: Profile, max_position_embeddings: int) -> Iterator[Finding]:
    problem = profile.problem(max_position_embeddings)
    if problem:
        yield Finding("profile", problem)


def _quantization(model: ModelProto, known: dict[str, TensorProto]) -> Iterator[Finding]:
    for node in walk(model.graph):
        if node.op_type in RUNTIME_INT8:
            yield Finding(
                label(node),
                f"{node.op_type} is ONNX Runtime's int8; TensorRT takes QuantizeLinear and DequantizeLinear",
            )
        elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            for reason in _quantization_problems(node, known):
                yield Finding(label(node), reason)


def _quantization_problems(node: NodeProto, known: dict[str, TensorProto]) -> Iterator[str]:
    scale = known.get(node.input[1]) if len(node.input) > 1 else None
    if scale is None:
        yield "its scale is no constant of the graph"
    else:
        values = numpy_helper.to_array(scale).astype(np.float64)
        if not (np.isfinite(values).all() and (values > 0).all()):
            yield "its scale is not positive and finite"
    if len(node.input) < 3 or not node.input[2]:
        output = {entry.name: entry.i for entry in node.attribute}.get("output_dtype", 0)
        if node.op_type == "QuantizeLinear" and output != TensorProto.INT8:
            yield "has no zero point, which means uint8; int8 alone is supported"
        return
    zero_point = known.get(node.input[2])
    if zero_point is None:
        yield "its zero point is no constant of the graph"
        return
    if zero_point.data_type != TensorProto.INT8:
        yield f"is {type_name(zero_point.data_type)}; int8 alone is supported"
    nonzero = int(np.count_nonzero(numpy_helper.to_array(zero_point)))
    if nonzero:
        yield f"{nonzero} of its zero points are not 0; quantize symmetrically"


def _strong_typing(model: ModelProto, types: dict[str, int]) -> Iterator[Finding]:
    """Find inputs of a node that ONNX wants of one type and that are not; nothing casts them silently."""
    for node in walk(model.graph):
        groups = same_type_inputs(node, opset(model))
        for name in (name for names in groups for name in names):
            if name not in types:
                yield Finding(label(node), f"the type of {name!r} cannot be inferred")
        for names in groups:
            found = {name: types[name] for name in names if name in types}
            if len(set(found.values())) > 1:
                parts = _listed([f"{name} is {type_name(kind)}" for name, kind in found.items()])
                yield Finding(label(node), f"{node.op_type} mixes types: {parts}")


def _half_precision(model: ModelProto, types: dict[str, int]) -> Iterator[Finding]:
    for node in walk(model.graph):
        if node.op_type in GEMMS:
            found = [types[name] for name in node.input if name in types]
            if any(kind != TensorProto.FLOAT16 for kind in found):
                kinds = _listed(sorted({type_name(kind) for kind in found}))
                yield Finding(label(node), f"{node.op_type} of {kinds}, not of float16")


def _float_note(model: ModelProto) -> str:
    sizes: dict[int, int] = {}
    others = []
    for tensor in model.graph.initializer:
        if tensor.data_type in _FLOATS:
            sizes[tensor.data_type] = sizes.get(tensor.data_type, 0) + math.prod(tensor.dims)
            if tensor.data_type != TensorProto.FLOAT16:
                others.append(tensor.name)
    total = sum(sizes.values())
    if not total:
        return "no initializer holds floats"
    note = f"{sizes.get(TensorProto.FLOAT16, 0) / total:.1%} of {total:,} float weights are float16"
    return f"{note}; not: {_listed(others)}" if others else note


def _listed(names: Iterable[str]) -> str:
    """Return the first names and how many more there are."""
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _name(model: ModelProto) -> str:
    return model.graph.name or "graph"
