"""int8 by rows: against float64, alone against in a batch, and what the graph is made of."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from quantized import quantized_copy

from compressor.models.batching import encode
from compressor.models.invariance import measure_invariance
from compressor.models.predictors import OnnxPredictor
from exporters.quantize import quantize_dynamic
from exporters.quantize_rows import LARGEST_WEIGHTS, quantize_rows, quantized_columns
from exporters.rounding import FittedWeight

EPSILON = float(np.finfo(np.float32).eps)


def linear_graph(weight: np.ndarray, bias: np.ndarray | None, swapped: bool = False) -> onnx.ModelProto:
    """x `(texts, tokens, in)` times a weight `(in, out)`, plus a bias if there is one."""
    nodes = [helper.make_node("MatMul", ["x", "layer.weight"], ["y" if bias is None else "product"])]
    initializers = [numpy_helper.from_array(weight, "layer.weight")]
    if bias is not None:
        summands = ["layer.bias", "product"] if swapped else ["product", "layer.bias"]
        nodes.append(helper.make_node("Add", summands, ["y"]))
        initializers.append(numpy_helper.from_array(bias, "layer.bias"))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "sequence", width])
        for name, width in zip("xy", weight.shape, strict=True)
    ]
    graph = helper.make_graph(nodes, "linear", ends[:1], ends[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def quantized(
    model: onnx.ModelProto, folder, weight_bits: int = 8, fitted=None
) -> onnxruntime.InferenceSession:
    path = folder / "linear.onnx"
    path.write_bytes(model.SerializeToString())
    quantize_rows(path, weight_bits, fitted=fitted)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def row_scales(x: np.ndarray, zero_point: int) -> np.ndarray:
    """The least scale of each row with which its values are among the 256 integers, as float32 holds it."""
    above = x.max(axis=-1, keepdims=True) * np.float32(1 / (255 - zero_point))
    below = x.min(axis=-1, keepdims=True) * np.float32(-1 / zero_point)
    return np.maximum(np.maximum(above, below), np.finfo(np.float32).tiny)


def reference(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, bits: int, zero_point: int
) -> np.ndarray:
    """The same in float64, with the scales as float32 holds them."""
    values, columns = quantized_columns(weight, LARGEST_WEIGHTS[bits])
    rows = row_scales(x, zero_point)
    rounded = np.rint(x / rows).clip(-zero_point, 255 - zero_point).astype(np.float64)
    product = rounded @ values.astype(np.float64) * rows.astype(np.float64) * columns.astype(np.float64)
    return product if bias is None else product + bias


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 40), st.integers(1, 20)),
    unit=st.sampled_from([1e-6, 1.0, 1e4]),
    has_bias=st.booleans(),
    bits=st.sampled_from([7, 8]),
    zero_point=st.sampled_from([1, 20, 128, 254]),
)
def test_a_linear_layer_is_the_reference(tmp_path_factory, seed, shape, unit, has_bias, bits, zero_point):
    texts, tokens, width, outputs = shape
    generator = np.random.default_rng(seed)
    x = (generator.standard_normal((texts, tokens, width)) * unit).astype(np.float32)
    x[0, 0] = 0
    weight = generator.standard_normal((width, outputs)).astype(np.float32)
    weight[:, 0] = 0
    bias = generator.standard_normal(outputs).astype(np.float32) if has_bias else None
    values, columns = quantized_columns(weight, LARGEST_WEIGHTS[bits])
    fitted = {"layer.weight": FittedWeight(values, columns, None, zero_point)} if zero_point != 128 else None
    model = linear_graph(weight, bias, swapped=bool(seed % 2))
    session = quantized(model, tmp_path_factory.mktemp("g"), bits, fitted)
    found = session.run(None, {"x": x})[0]
    expected = reference(x, weight, bias, bits, zero_point)
    # One rounding the other way, where a value is half-way between two, is a step of its row and column.
    step = row_scales(x, zero_point) * columns * LARGEST_WEIGHTS[bits]
    assert found.shape == (texts, tokens, outputs)
    assert (np.abs(found - expected) <= step + 16 * EPSILON * (np.abs(expected) + step * width)).all()
    exact = np.abs(found - expected) <= 16 * EPSILON * (np.abs(expected) + step * width)
    assert exact.mean() > 0.9


def test_the_error_is_within_the_steps_of_both_scales(tmp_path):
    generator = np.random.default_rng(0)
    x = generator.standard_normal((2, 5, 64)).astype(np.float32)
    weight = generator.standard_normal((64, 32)).astype(np.float32)
    found = quantized(linear_graph(weight, None), tmp_path).run(None, {"x": x})[0]
    rows = np.abs(x).max(axis=-1, keepdims=True) / 254
    columns = np.abs(weight).max(axis=0) / 254
    bound = np.abs(x).sum(-1, keepdims=True) * columns + rows * np.abs(weight).sum(0) + 64 * rows * columns
    assert (np.abs(found - x @ weight) <= bound + 1e-5).all()


def test_a_row_does_not_depend_on_the_others(tmp_path):
    generator = np.random.default_rng(0)
    x = generator.standard_normal((8, 6, 48)).astype(np.float32)
    x[3] *= 1000
    weight = generator.standard_normal((48, 24)).astype(np.float32)
    session = quantized(linear_graph(weight, np.ones(24, np.float32)), tmp_path)
    together = session.run(None, {"x": x})[0]
    for place in range(8):
        alone = session.run(None, {"x": x[place : place + 1]})[0]
        assert np.array_equal(alone[0], together[place])


def test_a_weight_may_be_read_twice_and_as_a_table(tmp_path):
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((300, 300)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["shared.weight", "ids"], ["x"]),
        helper.make_node("MatMul", ["x", "shared.weight"], ["once"]),
        helper.make_node("MatMul", ["once", "shared.weight"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tied",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "sequence", 300])],
        [numpy_helper.from_array(weight, "shared.weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    ids = generator.integers(300, size=(2, 5))
    found = quantized(model, tmp_path).run(None, {"ids": ids})[0]
    expected = weight[ids] @ weight @ weight
    assert np.abs(found - expected).mean() < 0.02 * np.abs(expected).mean()
    names = {entry.name for entry in onnx.load(tmp_path / "linear.onnx").graph.initializer}
    assert "shared.weight" not in names


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_gemm_computes_with_weights_that_are_stored_in_int8(tmp_path, transposed, has_bias):
    generator = np.random.default_rng(0)
    x = generator.standard_normal((3, 272)).astype(np.float32)
    weight = generator.standard_normal((272, 300)).astype(np.float32) * np.geomspace(
        1e-3, 1e3, 300, dtype="f4"
    )
    bias = generator.standard_normal(300).astype(np.float32)
    stored = np.ascontiguousarray(weight.T) if transposed else weight
    inputs = ["x", "pooler.weight", "pooler.bias"] if has_bias else ["x", "pooler.weight"]
    graph = helper.make_graph(
        [helper.make_node("Gemm", inputs, ["y"], transB=int(transposed))],
        "pooler",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 272])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 300])],
        [numpy_helper.from_array(stored, "pooler.weight"), numpy_helper.from_array(bias, "pooler.bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    found = quantized(model, tmp_path, 7).run(None, {"x": x})[0]
    # Eight bits whatever the products of others take: nothing is added up in 16 bits here.
    values, columns = quantized_columns(weight, LARGEST_WEIGHTS[8])
    added = bias.astype(np.float64) if has_bias else 0.0
    expected = x.astype(np.float64) @ (values * columns.astype(np.float64)) + added
    assert (
        np.abs(found - expected) <= 300 * EPSILON * (np.abs(x).sum(-1, keepdims=True) * columns * 127 + 10)
    ).all()
    assert (tmp_path / "linear.onnx").stat().st_size < 1.1 * weight.size


def test_small_heads_stay_float(artifacts):
    names = {entry.name for entry in onnx.load(artifacts["rows"] / "model.onnx").graph.initializer}
    assert "classifier.weight" in names


@pytest.fixture(scope="module")
def artifacts(small_artifact_dir, tmp_path_factory):
    """Folders of the small model's graph in int8, by rows and with one scale a batch."""
    return {
        "rows": quantized_copy(small_artifact_dir, tmp_path_factory.mktemp("rows"), quantize_rows),
        "dynamic": quantized_copy(small_artifact_dir, tmp_path_factory.mktemp("dynamic"), quantize_dynamic),
    }


@pytest.mark.parametrize(("name", "depends"), [("rows", False), ("dynamic", True)])
def test_whether_the_answer_depends_on_the_batch(artifacts, name, depends, test_quotes):
    alone, together = (OnnxPredictor(artifacts[name], threads) for threads in (1, 2))
    found = measure_invariance(alone, together, encode(alone.tokenizer, test_quotes.sample(48, 0), 48), 0)
    assert (found.examples, found.batch_size, found.shuffles) == (48, 16, 3)
    if depends:
        assert found.worst_batch_shift > 1e-3
    else:
        assert found.worst_batch_shift <= 1e-4
        assert found.batch_disagreement == 0


def test_readers_share_one_quantized_input_and_the_operators_are_onnxs_own(artifacts):
    graph = onnx.load(artifacts["rows"] / "model.onnx")
    assert {node.domain for node in graph.graph.node} == {""}
    counts = {kind: sum(node.op_type == kind for node in graph.graph.node) for kind in
              ("QuantizeLinear", "MatMulInteger", "Expand")}  # fmt: skip
    layers = counts["MatMulInteger"] // 6
    # Query, key and value read one tensor; all tensors of a batch have as many rows.
    assert counts == {"QuantizeLinear": 4 * layers, "MatMulInteger": 6 * layers, "Expand": 1}
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 18)]


def test_seven_bits_keep_the_sums_of_two_products_in_sixteen():
    weight = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    values, _ = quantized_columns(weight, LARGEST_WEIGHTS[7])
    assert np.abs(values).max() == 63
    # The widest unsigned input, twice, as the instructions without VNNI add them.
    assert 2 * 255 * 63 < 2**15
