"""int8 graphs: scales against a brute search, zeros that stay zero, and what the graphs are made of."""

from functools import partial

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from quantized import quantized_copy

from compressor.models.batching import encode
from compressor.models.classifier import encoder_linears, load_classifier
from compressor.models.encoders.bert import BERT
from compressor.models.predictors import OnnxPredictor, TorchPredictor, predict
from compressor.system.console import SilentProgress
from exporters.onnx import encoder_initializers
from exporters.quantize import fake_quantize, fit_scale, fit_scales, quantize_dynamic, quantize_static
from exporters.quantize_rows import quantize_rows
from exporters.verify import check_zeros

MAX_LENGTH = 48


@pytest.fixture(scope="module")
def classifier(small_pruned_dir):
    return load_classifier(str(small_pruned_dir))


@pytest.fixture(scope="module")
def encoded(classifier, quotes):
    return encode(classifier.tokenizer, quotes.sample(40, 0), MAX_LENGTH)


@pytest.fixture(scope="module")
def scales(classifier, encoded):
    return fit_scales(classifier, encoded, 0, SilentProgress())


@pytest.fixture(scope="module")
def static_dir(small_artifact_dir, scales, tmp_path_factory):
    quantize = partial(quantize_static, scales=scales)
    return quantized_copy(small_artifact_dir, tmp_path_factory.mktemp("static"), quantize)


@pytest.fixture(scope="module")
def dynamic_dir(small_artifact_dir, tmp_path_factory):
    return quantized_copy(small_artifact_dir, tmp_path_factory.mktemp("dynamic"), quantize_dynamic)


@pytest.fixture(scope="module")
def rows_dir(small_artifact_dir, tmp_path_factory):
    return quantized_copy(small_artifact_dir, tmp_path_factory.mktemp("rows"), quantize_rows)


@settings(max_examples=50)
@given(
    seed=st.integers(0, 1000), outliers=st.integers(0, 3), size=st.floats(1, 100), unit=st.floats(1e-3, 1e3)
)
def test_the_fitted_scale_is_the_best_of_a_fine_search(seed, outliers, size, unit):
    values = torch.randn(400, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values[:outliers] *= size
    values *= unit
    largest = float(values.abs().max())

    def error(scale):
        return float((fake_quantize(values, scale) - values).square().sum())

    best = min(error(share * largest / 127) for share in np.linspace(0.1, 1, 1000))
    assert error(fit_scale(values)) <= 1.1 * best
    assert error(fit_scale(values)) <= error(largest / 127)


def test_clipping_pays_where_few_values_are_large():
    values = torch.cat([torch.linspace(-1, 1, 100_000), torch.tensor([1.5])])
    assert fit_scale(values) == pytest.approx(1 / 127, rel=0.02)


def test_values_without_any_size_have_a_scale():
    assert fit_scale(torch.zeros(10)) == 1.0


def test_scales_come_from_real_tokens_only(classifier, encoded):
    """Padding in the batch of the hook would widen the range; a text alone has none."""
    seen = {}
    name, linear = next(iter(encoder_linears(classifier.model).items()))
    handle = linear.register_forward_pre_hook(
        lambda _, inputs: seen.setdefault(name, []).append(inputs[0].shape)
    )
    fit_scales(classifier, encoded[:5], 0, SilentProgress())
    handle.remove()
    assert [shape[1] for shape in seen[name]] == [len(ids) for ids, _ in encoded[:5]]
    assert all(shape[0] == 1 for shape in seen[name])


def test_the_same_seed_gives_the_same_scales(classifier, encoded, scales):
    assert fit_scales(classifier, encoded, 0, SilentProgress()) == scales
    assert sorted(scales) == sorted(encoder_linears(classifier.model))


@pytest.mark.parametrize("kind", ["static_dir", "dynamic_dir", "rows_dir"])
def test_zeros_stay_zero_and_matrices_are_int8(kind, classifier, request):
    weights = encoder_initializers(request.getfixturevalue(kind) / "model.onnx", BERT)
    assert {weight.dtype for weight in weights.values()} == {torch.int8}
    linears = encoder_linears(classifier.model)
    check_zeros({name: linear.weight for name, linear in linears.items()}, weights, exact=False)
    for name, weight in weights.items():
        # What is not zero covers the whole range of each output channel.
        assert torch.equal(weight.abs().amax(dim=1), torch.full((len(weight),), 127, dtype=torch.int8)), name


def test_static_graphs_have_symmetric_scales_and_onnxs_own_operators(static_dir):
    graph = onnx.load(static_dir / "model.onnx")
    assert {node.domain for node in graph.graph.node} == {""}
    assert {(entry.domain, entry.version) for entry in graph.opset_import} == {("", 18)}
    values = {entry.name: numpy_helper.to_array(entry) for entry in graph.graph.initializer}
    nodes = [n for n in graph.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert nodes
    for node in nodes:
        assert (values[node.input[1]] > 0).all()
        assert values[node.input[2]].dtype == np.int8
        assert not values[node.input[2]].any()


def test_residuals_stay_float_and_readers_share_one_quantized_input(static_dir):
    graph = onnx.load(static_dir / "model.onnx").graph
    residuals = [node for node in graph.node if node.op_type in ("Add", "Sum")]
    assert {node.op_type for node in residuals} == {"Add", "Sum"}
    for node in residuals:
        assert not any(name.endswith("_dequantized") for name in node.input), node.name
    # Query, key and value read one tensor, so a layer has four inputs to quantize.
    layers = sum(name.endswith("query") for name in encoder_initializers(static_dir / "model.onnx", BERT))
    assert sum(node.op_type == "QuantizeLinear" for node in graph.node) == 4 * layers


@pytest.mark.parametrize(
    ("kind", "embeddings"), [("static_dir", False), ("dynamic_dir", True), ("rows_dir", True)]
)
def test_which_embeddings_are_int8(kind, embeddings, request):
    graph = onnx.load(request.getfixturevalue(kind) / "model.onnx").graph
    words = next(e for e in graph.initializer if "word_embeddings" in e.name and len(e.dims) == 2)
    assert (words.data_type in (TensorProto.INT8, TensorProto.UINT8)) == embeddings


@pytest.mark.parametrize("kind", ["static_dir", "dynamic_dir", "rows_dir"])
def test_labels_agree_with_pytorchs(kind, classifier, test_quotes, request):
    expected = predict(TorchPredictor(classifier), test_quotes, MAX_LENGTH).argmax(axis=1)
    found = predict(OnnxPredictor(request.getfixturevalue(kind), 2), test_quotes, MAX_LENGTH).argmax(axis=1)
    assert (expected == found).mean() >= 0.98
