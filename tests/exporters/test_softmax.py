"""Softmax that adds in float64: float64's results, whatever the padding."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from compressor.models.classifier import Classifier
from exporters.onnx import export_graph
from exporters.softmax import fix_softmaxes

HEADS, WIDTH = 3, 5


def graph(*, also_read=False, axis=-1):
    """Attention of scores to values; `also_read` gives out the probabilities, too."""
    nodes = [
        helper.make_node("Softmax", ["scores"], ["p"], axis=axis),
        helper.make_node("MatMul", ["p", "values"], ["y"]),
    ]
    shapes = {"scores": "nn", "values": "nw", "y": "nw", "p": "nn"}
    entries = {
        name: helper.make_tensor_value_info(
            name, TensorProto.FLOAT, ["heads", *(WIDTH if size == "w" else size for size in shape)]
        )
        for name, shape in shapes.items()
    }
    outputs = [entries["y"], *([entries["p"]] if also_read else [])]
    made = helper.make_graph(nodes, "attention", [entries["scores"], entries["values"]], outputs)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


@pytest.fixture(scope="module")
def fixed():
    def fix(model):
        count = fix_softmaxes(model)
        onnx.checker.check_model(model, full_check=True)
        return count, model

    return fix


@pytest.fixture(scope="module")
def attention(fixed):
    count, model = fixed(graph())
    assert count == 1
    assert not any(node.op_type == "Softmax" for node in model.graph.node)
    return session(model)


def drawn(tokens, seed, spread):
    generator = np.random.default_rng(seed)
    scores = generator.normal(0, spread, (HEADS, tokens, tokens)).astype(np.float32)
    return scores, generator.normal(size=(HEADS, tokens, WIDTH)).astype(np.float32)


def expected(scores, values):
    """The products in float64."""
    wide = scores.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True) @ values


tokens = st.integers(1, 70)
seeds = st.integers(0, 2**31)


@settings(max_examples=60, deadline=None)
@given(tokens, seeds, st.sampled_from([0.1, 3.0, 100.0]))
def test_it_is_float64s_softmax(attention, count, seed, spread):
    scores, values = drawn(count, seed, spread)
    [found] = attention.run(None, {"scores": scores, "values": values})
    np.testing.assert_allclose(found, expected(scores, values), rtol=0, atol=3e-6)


@settings(max_examples=60, deadline=None)
@given(tokens, st.integers(1, 40), seeds)
def test_padding_does_not_change_a_bit(attention, count, padding, seed):
    scores, values = drawn(count, seed, 3.0)
    [alone] = attention.run(None, {"scores": scores, "values": values})
    wide = np.pad(scores, ((0, 0), (0, padding), (0, padding)))
    wide[..., count:] = np.finfo(np.float32).min
    other = np.pad(values, ((0, 0), (0, padding), (0, 0)), constant_values=7)
    [padded] = attention.run(None, {"scores": wide, "values": other})
    np.testing.assert_array_equal(padded[:, :count], alone)


@pytest.mark.parametrize("masked", [np.float32("-inf"), np.finfo(np.float32).min])
def test_masked_tokens_get_nothing(attention, masked):
    scores, values = drawn(9, 1, 3.0)
    scores[..., 4:] = masked
    [found] = attention.run(None, {"scores": scores, "values": values})
    np.testing.assert_allclose(found, expected(scores, values), rtol=0, atol=3e-6)


def test_probabilities_that_others_read_stay(fixed):
    _, model = fixed(graph(also_read=True))
    scores, values = drawn(9, 1, 3.0)
    product, probabilities = session(model).run(None, {"scores": scores, "values": values})
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(product, probabilities @ values, atol=1e-6)


def test_other_axes_stay(fixed):
    count, model = fixed(graph(axis=1))
    assert count == 0
    assert [node.op_type for node in model.graph.node] == ["Softmax", "MatMul"]


def test_no_softmax_is_left_in_an_encoder(half_classifier, tmp_path):
    path = tmp_path / "model.onnx"
    export_graph(Classifier(half_classifier.model.float(), None, "tiny"), path)
    half_classifier.model.half()
    before, after = onnx.load(path), onnx.load(path)
    assert fix_softmaxes(after) == sum(node.op_type == "Softmax" for node in before.graph.node) > 0
    assert not any(node.op_type == "Softmax" for node in after.graph.node)
    inputs = {entry.name: np.ones((2, 7), np.int64) for entry in before.graph.input}
    [expected_logits], [found] = session(before).run(None, inputs), session(after).run(None, inputs)
    np.testing.assert_allclose(found, expected_logits, atol=1e-5)
