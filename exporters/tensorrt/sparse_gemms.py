"""Which matrix multiplications of a graph have weights that sparse tensor cores can take: 2:4 along K.

K is the axis that a multiplication sums over. Of each 4 values in a row along it at most 2 may be other
than zero. Being eligible is no promise of speed: TensorRT times sparse kernels against dense ones, and
takes them where they win.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from compressor.errors import UserError
from exporters.onnx_graph import GEMMS, attribute, constants, element_types, label, type_name, walk

GROUP = 4
KEPT = 2
# Rows and columns of sparse operands in NVIDIA's library for them, cuSPARSELt, are multiples of these.
MULTIPLES = {"float16": 16, "bfloat16": 16, "int8": 32}
# Zeros stay zeros through these, as long as zero points are 0.
_SEEN_THROUGH = ("Cast", "Identity", "QuantizeLinear", "DequantizeLinear", "Transpose")


@dataclass(frozen=True)
class GemmRow:
    """One MatMul or Gemm, and whether its weight can be multiplied sparsely.

    Attributes:
        weight: name of the initializer; None if both inputs are computed.
        k: length of the axis that is summed over.
        n: the other axis of the weight, the outputs.
        dtype: what is multiplied, int8 behind a DequantizeLinear.
        sparsity: share of zeros in the weight.
        groups: how many groups of 4 along K the weight has.
        broken_groups: how many of them hold more than 2 values that are not zero.
        eligible: whether there is no reason against it.
        reasons: why it is not eligible.
        notes: what may still keep TensorRT from sparse kernels.
    """

    node: str
    op: str
    weight: str | None
    k: int | None
    n: int | None
    dtype: str | None
    sparsity: float | None
    groups: int | None
    broken_groups: int | None
    eligible: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Weight:
    name: str
    values: NDArray[Any]
    quantized: bool = False


def sparse_gemms(model: ModelProto) -> list[GemmRow]:
    """Return a row for each MatMul and Gemm, in the graph's order.

    Raises:
        UserError: a weight's values are not in the graph itself.
    """
    known = constants(model.graph)
    makers = {name: node for node in walk(model.graph) for name in node.output}
    types = element_types(model)
    return [_row(node, known, makers, types) for node in walk(model.graph) if node.op_type in GEMMS]


def broken_groups(weight: NDArray[Any]) -> tuple[int, int]:
    """Count the groups of a weight `(..., K, N)`, and those that are not 2:4.

    Values that are left over where 4 does not divide K are in no group.
    """
    k, n = weight.shape[-2:]
    whole = k // GROUP
    grouped = weight[..., : whole * GROUP, :].reshape(*weight.shape[:-2], whole, GROUP, n)
    kept = np.count_nonzero(grouped, axis=-2)
    return int(kept.size), int(np.count_nonzero(kept > KEPT))


def _row(
    node: NodeProto, known: dict[str, TensorProto], makers: dict[str, NodeProto], types: dict[str, int]
) -> GemmRow:
    found = _oriented(node, known, makers)
    if found is None:
        return GemmRow(
            label(node), node.op_type, None, None, None, None, None, None, None, eligible=False,
            reasons=("both inputs are computed; sparse weights have to be constant",), notes=(),
        )  # fmt: skip
    k, n = found.values.shape[-2:]
    dtype = "int8" if found.quantized else type_name(types.get(node.input[0], TensorProto.UNDEFINED))
    groups, broken = broken_groups(found.values)
    reasons = []
    if dtype not in MULTIPLES:
        reasons.append(f"is {dtype}; sparse tensor cores multiply {', '.join(MULTIPLES)} by 2:4")
    if k % GROUP:
        reasons.append(f"K is {k}, which {GROUP} does not divide")
    if broken:
        reasons.append(f"not 2:4: {broken} of {groups} groups hold more than {KEPT} values that are not zero")
    multiple = MULTIPLES.get(dtype, 1)
    notes = tuple(
        f"{axis} is {length}, no multiple of {multiple}; sparse kernels may not take it"
        for axis, length in (("K", k), ("N", n))
        if length % multiple
    )
    return GemmRow(
        node=label(node),
        op=node.op_type,
        weight=found.name,
        k=k,
        n=n,
        dtype=dtype,
        sparsity=1.0 - int(np.count_nonzero(found.values)) / max(found.values.size, 1),
        groups=groups,
        broken_groups=broken,
        eligible=not reasons,
        reasons=tuple(reasons),
        notes=notes,
    )


def _oriented(node: NodeProto, known: dict[str, TensorProto], makers: dict[str, NodeProto]) -> _Weight | None:
    """Return the constant input of a multiplication as `(..., K, N)`, or None if there is none."""
    right = _weight(node.input[1], known, makers)
    if right is not None:
        transposed = bool(attribute(node, "transB"))
        values = right.values if right.values.ndim > 1 else right.values.reshape(-1, 1)
        return replace(right, values=values.swapaxes(-1, -2) if transposed else values)
    left = _weight(node.input[0], known, makers)
    if left is None:
        return None
    transposed = bool(attribute(node, "transA"))
    values = left.values if left.values.ndim > 1 else left.values.reshape(1, -1)
    return replace(left, values=values if transposed else values.swapaxes(-1, -2))


def _weight(name: str, known: dict[str, TensorProto], makers: dict[str, NodeProto]) -> _Weight | None:
    """Return the constant that a tensor is made of, through casts, transposes and quantization."""
    if name in known:
        if known[name].data_location == TensorProto.EXTERNAL:
            raise UserError(f"{name}: its values lie outside of the graph; load it with its external data")
        return _Weight(name, numpy_helper.to_array(known[name]))
    node = makers.get(name)
    if node is None or node.op_type not in _SEEN_THROUGH:
        return None
    inner = _weight(node.input[0], known, makers)
    if inner is None:
        return None
    if node.op_type == "Transpose":
        order = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "perm"), None)
        return replace(inner, values=inner.values.transpose(order))
    return replace(inner, quantized=inner.quantized or node.op_type == "DequantizeLinear")
