"""int8 graphs whose answer to a text does not depend on what shares its batch: a scale for each row.

A row is one token's vector. Its scale is the least with which all its values are among the 256 integers; an
input of 0 is one of them, the same for all rows of a tensor. Weights are symmetric with a
scale for each output column, so that a zero stays exactly zero. How they are rounded is told by the caller
(`exporters/rounding.py`), or they become the nearest integers. The products are of integers, hence exact: a
row's result is the same alone, in a batch, and with any number of threads. All operators are ONNX's own.

A Gemm node, such as a pooler's, sees one token of a text: it computes in float32, and only its weight is
stored in int8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from exporters.onnx_graph import replace_contents
from exporters.rounding import FittedWeight, column_scales

# Inputs are unsigned: signed ones make ONNX Runtime's integer product several times slower.
LARGEST_INPUT = 255
# Largest weight by the number of its bits.
LARGEST_WEIGHTS = {8: 127, 7: 63}
# Smaller tables stay float: they take no space, and rows that all texts share would carry an error into each.
LEAST_ROWS = 256


def quantize_rows(
    path: Path,
    weight_bits: int = 8,
    kept: Collection[str] = (),
    fitted: Mapping[str, FittedWeight] | None = None,
) -> None:
    """Make a graph's matrices and embeddings int8 in place, with a scale for each row of a matrix's input.

    Products of two activations stay float.

    Args:
        weight_bits: 8; or 7, with which the 16-bit sums of processors without VNNI cannot overflow.
        kept: names of weights that stay float.
        fitted: weights of as many bits that were fitted to texts, by name; all others are rounded to the
            nearest.
    """
    model = onnx.load(path)
    rewriter = _Rewriter(model, LARGEST_WEIGHTS[weight_bits], kept, fitted)
    for node in model.graph.node:
        rewriter.take(node)
    replace_contents(model, rewriter.nodes, rewriter.initializers())
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def quantizable(path: Path) -> list[str]:
    """The names of a graph's weights that `quantize_rows` makes int8, in the order in which data flows."""
    model = onnx.load(path)
    rewriter = _Rewriter(model, LARGEST_WEIGHTS[8])
    return list(dict.fromkeys(name for node in model.graph.node if (name := rewriter.weight_of(node))))


def quantized_columns(
    weight: NDArray[np.float32], largest: int = 127
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize a weight `(in, out)` symmetrically: int8 values, and float32 scales `(out,)`.

    Args:
        largest: value that the largest weight of a column becomes.
    """
    scale = column_scales(weight, largest)
    return np.rint(weight / scale).astype(np.int8), scale


def int8_weight(weight: TensorProto, fitted: Mapping[str, FittedWeight], largest: int = 127) -> FittedWeight:
    """Return a weight `(in, out)` as it was fitted, or rounded to the nearest if it was not.

    Args:
        fitted: by name.
        largest: value that the largest weight of a column becomes.
    """
    return fitted.get(weight.name) or FittedWeight(*quantized_columns(numpy_helper.to_array(weight), largest))


class _Rewriter:
    """Takes the nodes of a graph in their order and makes those of the int8 graph.

    Attributes:
        nodes: of the new graph.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        largest_weight: int,
        kept: Collection[str] = (),
        fitted: Mapping[str, FittedWeight] | None = None,
    ) -> None:
        self.nodes: list[NodeProto] = []
        self._kept = frozenset(kept)
        self._fitted = fitted or {}
        self._weights = {entry.name: entry for entry in model.graph.initializer}
        self._added: dict[str, TensorProto] = {}
        self._largest = largest_weight
        self._shapes = _leading_shapes(model)
        self._biases = _biases(model, self._weights)
        self._made: set[str] = set()

    def initializers(self) -> list[TensorProto]:
        """Return what the new nodes read; weights that others took the place of are left out."""
        read = {name for node in self.nodes for name in node.input}
        return [*(entry for entry in self._weights.values() if entry.name in read), *self._added.values()]

    def take(self, node: NodeProto) -> None:
        """Add a node, or what stands for it."""
        if node.output[0] in self._made:
            # A sum with a bias, which is made with the product.
            return
        weight = self.weight_of(node)
        if weight is None or weight in self._kept:
            self.nodes.append(node)
        elif node.op_type == "MatMul":
            self._multiply(node)
        elif node.op_type == "Gemm":
            self._store(node)
        else:
            self._look_up(node)

    def weight_of(self, node: NodeProto) -> str | None:
        """Return the name of the matrix or table that a node reads and that can be int8; None without one."""
        if node.op_type == "MatMul" and self._is_matrix(node.input[1]):
            return str(node.input[1])
        if node.op_type == "Gemm" and self._is_table(node.input[1]):
            return str(node.input[1])
        if node.op_type == "Gather" and self._is_table(node.input[0]):
            return str(node.input[0])
        return None

    def _is_matrix(self, name: str) -> bool:
        entry = self._weights.get(name)
        return entry is not None and entry.data_type == TensorProto.FLOAT and len(entry.dims) == 2

    def _is_table(self, name: str) -> bool:
        return self._is_matrix(name) and self._weights[name].dims[0] >= LEAST_ROWS

    def _multiply(self, node: NodeProto) -> None:
        """Multiply the quantized rows and columns, then by both scales, and add the bias if there is one."""
        (source, weight), output = node.input, node.output[0]
        matrix = self._weights[weight]
        fitted = int8_weight(matrix, self._fitted, self._largest)
        smoothed = self._smoothed(source, fitted.smoothing)
        rows = self._quantized_rows(smoothed, matrix.dims[0], fitted.zero_point)
        self._constant(f"{weight}_quantized", fitted.values)
        self._constant(f"{weight}_scale", fitted.scales)
        self._constant("int8_zero", np.array(0, np.int8))
        product, by_row, by_column = (f"{output}_{part}" for part in ("integer", "by_row", "by_column"))
        self._add(
            "MatMulInteger",
            [f"{rows}_quantized", f"{weight}_quantized", f"uint8_{fitted.zero_point}", "int8_zero"],
            product,
        )
        self._add("DequantizeLinear", [product, f"{rows}_scale"], by_row, axis=0)
        self._add("Mul", [by_row, f"{weight}_scale"], by_column)
        if output in self._biases:
            # Before the rows are put back into their texts: ONNX Runtime would fuse the sum with a GELU that
            # follows it, in a kernel that takes twice as long as the two.
            bias, result = self._biases[output]
            by_column = self._add("Add", [by_column, bias], f"{output}_sum")
            output = result
        self._add("Reshape", [by_column, self._shape(source, matrix.dims[1])], output)

    def _store(self, node: NodeProto) -> None:
        """Store a Gemm's weight in int8; runtimes make it float32 again when they load the graph."""
        source, weight, *bias = node.input
        if f"{weight}_float" not in self._made:
            matrix = numpy_helper.to_array(self._weights[weight])
            is_transposed = any(entry.name == "transB" and entry.i for entry in node.attribute)
            values, scale = quantized_columns(matrix.T if is_transposed else matrix)
            self._constant(f"{weight}_stored", np.ascontiguousarray(values.T if is_transposed else values))
            self._constant(f"{weight}_stored_scale", scale[:, None] if is_transposed else scale)
            whole = self._add("Cast", [f"{weight}_stored"], f"{weight}_whole", to=TensorProto.FLOAT)
            self._add("Mul", [whole, f"{weight}_stored_scale"], f"{weight}_float")
        product = NodeProto()
        product.CopyFrom(node)
        del product.input[:]
        product.input.extend([source, f"{weight}_float", *bias])
        self.nodes.append(product)

    def _smoothed(self, source: str, smoothing: NDArray[np.float32] | None) -> str:
        """Divide a tensor's channels, once for all that read it; return the name of what is quantized."""
        if smoothing is None:
            return source
        name = f"{source}_smoothed"
        if name not in self._made:
            self._constant(f"{source}_smoothing", (1 / smoothing).astype(np.float32))
            self._add("Mul", [source, f"{source}_smoothing"], name)
            self._shapes[name] = self._shapes.get(source, source)
        return name

    def _quantized_rows(self, source: str, width: int, zero_point: int) -> str:
        """Quantize a tensor `(..., width)` row by row, once for all that read it; return their stem."""
        rows, scale, quantized = (f"{source}_{part}" for part in ("rows", "scale", "quantized"))
        if quantized in self._made:
            return source
        self._constant(f"uint8_{zero_point}", np.array(zero_point, np.uint8))
        self._constant("last_axis", np.array([-1], np.int64))
        above, below = f"step_above_{zero_point}", f"step_below_{zero_point}"
        self._constant(above, np.array(1 / (LARGEST_INPUT - zero_point), np.float32))
        self._constant(below, np.array(-1 / zero_point, np.float32))
        # A row of zeros has any scale.
        self._constant("least_scale", np.array(np.finfo(np.float32).tiny, np.float32))
        self._constant(f"rows_of_{width}", np.array([-1, width], np.int64))
        self._add("Reshape", [source, f"rows_of_{width}"], rows)
        # Two reductions take less time than the absolute values of all and one.
        most = self._add("ReduceMax", [rows, "last_axis"], f"{source}_most", keepdims=0)
        least = self._add("ReduceMin", [rows, "last_axis"], f"{source}_least", keepdims=0)
        steps = (
            self._add("Mul", [most, above], f"{source}_above"),
            self._add("Mul", [least, below], f"{source}_below"),
        )
        self._add("Max", [*steps, "least_scale"], scale)
        self._add(
            "QuantizeLinear", [rows, scale, self._zero_points(source, scale, zero_point)], quantized, axis=0
        )
        return source

    def _zero_points(self, source: str, scale: str, zero_point: int) -> str:
        """One zero point a row, for all tensors of as many rows."""
        name = f"uint8_{zero_point}_of_{self._shapes.get(source, source)}"
        if name not in self._made:
            self._add("Expand", [f"uint8_{zero_point}", self._add("Shape", [scale], f"{name}_shape")], name)
        return name

    def _shape(self, source: str, width: int) -> str:
        """The shape of `source` with another last dimension, for all tensors of that shape."""
        leading = f"shape_of_{self._shapes.get(source, source)}"
        if leading not in self._made:
            self._add("Shape", [source], leading, end=-1)
        name = f"{leading}_{width}"
        if name not in self._made:
            self._constant(f"width_{width}", np.array([width], np.int64))
            self._add("Concat", [leading, f"width_{width}"], name, axis=0)
        return name

    def _look_up(self, node: NodeProto) -> None:
        """Rows of an int8 table, each with a scale of its own."""
        table, indices = node.input
        output = node.output[0]
        if f"{table}_rows" not in self._added:
            values, scale = quantized_columns(numpy_helper.to_array(self._weights[table]).T)
            self._constant(f"{table}_rows", np.ascontiguousarray(values.T))
            self._constant(f"{table}_row_scales", scale[:, None])
        self._add("Gather", [f"{table}_rows", indices], f"{output}_found")
        self._add("Gather", [f"{table}_row_scales", indices], f"{output}_found_scale")
        self._add("Cast", [f"{output}_found"], f"{output}_found_float", to=TensorProto.FLOAT)
        self._add("Mul", [f"{output}_found_float", f"{output}_found_scale"], output)

    def _constant(self, name: str, value: NDArray[np.generic]) -> None:
        if name not in self._added:
            self._added[name] = numpy_helper.from_array(value, name)

    def _add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node with one output, and return the name of that."""
        self._made.add(output)
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output


def _biases(model: onnx.ModelProto, weights: Mapping[str, TensorProto]) -> dict[str, tuple[str, str]]:
    """For each tensor that only a sum with a bias reads: the bias, and the name of the sum."""
    readers = Counter(name for node in model.graph.node for name in node.input)
    readers.update(output.name for output in model.graph.output)
    found = {}
    for node in model.graph.node:
        if node.op_type == "Add":
            for summand, bias in (node.input, reversed(node.input)):
                if bias in weights and len(weights[bias].dims) == 1 and readers[summand] == 1:
                    found[summand] = bias, node.output[0]
    return found


def _leading_shapes(model: onnx.ModelProto) -> dict[str, str]:
    """All dimensions but the last of each tensor of which the graph names them, as a word.

    The exporter names them; ONNX's own inference loses them in a Reshape.
    """
    found = {}
    for entry in (*model.graph.input, *model.graph.value_info):
        dims = [dim.dim_param or str(dim.dim_value) for dim in entry.type.tensor_type.shape.dim]
        if len(dims) > 1 and "0" not in dims:
            found[entry.name] = "_".join(dims[:-1])
    return found
