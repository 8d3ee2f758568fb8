"""What TensorRT asks of a graph's types and of its quantization is found, with the place and the reason."""

import numpy as np
import onnx
import pytest
from damaged_graphs import QUERY, add_node, as_float32, graph_of, initializer, said, user_of
from onnx import TensorProto, helper, numpy_helper

from exporters.onnx_graph import constants, element_types, label, walk


def test_mixed_types_are_found(half_graph, failures):
    entry = initializer(half_graph, QUERY)
    entry.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(entry).astype(np.float32), QUERY))
    node = user_of(half_graph, QUERY)
    found = failures(half_graph)
    assert set(found) == {"strong typing", "float16"}
    assert said(found["strong typing"]) == (
        f"{node.name}: MatMul mixes types: {node.input[0]} is float16, {QUERY} is float32"
    )
    assert said(found["float16"]) == f"{node.name}: MatMul of float16, float32, not of float16"


def test_mixed_types_of_an_addition_and_of_a_choice_are_found(half_graph, failures):
    half_graph.graph.initializer.append(numpy_helper.from_array(np.float16(1), "one"))
    half_graph.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    add_node(half_graph, "Add", ["logits", "one"], ["sum"])
    add_node(half_graph, "Where", ["yes", "logits", "one"], ["choice"])
    found = failures(half_graph)
    assert set(found) == {"strong typing"}
    assert [finding.where for finding in found["strong typing"]] == ["new_Add", "new_Where"]


def test_a_tensor_without_a_type_is_found(half_graph, failures):
    half_graph.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    add_node(half_graph, "FastGelu", ["logits"], ["foreign"], domain="com.microsoft")
    add_node(half_graph, "Neg", ["foreign"])
    assert said(failures(half_graph)["strong typing"]) == "new_Neg: the type of 'foreign' cannot be inferred"


def quantized(zero_point=0, kind=np.int8, scale=0.1, *, omit=False, computed=False):
    """A graph whose activations and weight are quantized and dequantized."""
    zero = "" if omit else ", zero"
    model = graph_of(
        f"""scale_out = Neg(scale)
        q = QuantizeLinear(x, {"scale_out" if computed else "scale"}{zero})
        a = DequantizeLinear(q, scale{zero})
        b = DequantizeLinear(w8, scale, zero8)
        y = MatMul(a, b)""",
        19,
    )
    weight = np.zeros((8, 8), np.int8)
    for name, value in (
        ("scale", np.float16(scale)), ("zero", kind(zero_point)), ("zero8", np.int8(0)), ("w8", weight),
    ):  # fmt: skip
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
    return model


def test_symmetric_int8_passes(failures):
    assert failures(quantized()) == {}


@pytest.mark.parametrize(
    ("change", "checks", "reason"),
    [
        ({"zero_point": 3}, {"quantization"}, "1 of its zero points are not 0; quantize symmetrically"),
        ({"kind": np.uint8}, {"quantization", "operators"}, "is uint8; int8 alone is supported"),
        ({"scale": 0.0}, {"quantization"}, "its scale is not positive and finite"),
        ({"omit": True}, {"quantization", "operators"}, "has no zero point, which means uint8"),
        ({"computed": True}, {"quantization"}, "its scale is no constant of the graph"),
    ],
)
def test_other_quantization_is_found(failures, change, checks, reason):
    found = failures(quantized(**change))
    assert set(found) == checks
    assert "QuantizeLinear_2" in {finding.where for finding in found["quantization"]}
    assert reason in said(found["quantization"])


def test_int8_of_onnx_runtime_is_found_by_node(half_graph, failures, tmp_path):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    onnx.save(as_float32(half_graph), tmp_path / "float.onnx")
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "int8.onnx", weight_type=QuantType.QInt8)
    model = onnx.load(tmp_path / "int8.onnx")
    found = failures(model)
    expected = [n.name for n in model.graph.node if n.op_type in ("DynamicQuantizeLinear", "MatMulInteger")]
    assert len(expected) > 12
    reasons = {finding.where: finding.reason for finding in found["quantization"]}
    assert all("ONNX Runtime's int8" in reasons[name] for name in expected)
    assert "not 0; quantize symmetrically" in reasons["embedding_DequantizeLinear"]
    assert {finding.where for finding in found["operators"]} >= set(expected)


def test_types_and_constants_of_a_graph(half_graph):
    add_node(half_graph, "Constant", [], ["floats"], value_floats=[1.0, 2.0])
    add_node(half_graph, "Constant", [], ["whole"], value_int=3)
    known = constants(half_graph.graph)
    assert known["floats"].data_type == TensorProto.FLOAT
    assert numpy_helper.to_array(known["whole"]) == 3
    types = element_types(half_graph)
    assert all(name in types for node in walk(half_graph.graph) for name in node.output)
    # Whatever the arithmetic, what reads the logits gets float32.
    assert types["logits"] == TensorProto.FLOAT
    assert types[QUERY] == TensorProto.FLOAT16
    assert types["input_ids"] == TensorProto.INT64
    assert label(helper.make_node("Neg", ["a"], ["b"])) == "Neg -> b"
