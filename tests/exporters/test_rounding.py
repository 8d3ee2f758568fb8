"""int8 weights fitted to texts: what is observed, what the graph computes, and how near it comes."""

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from quantized import quantized_copy

from compressor.models.batching import encode
from compressor.models.classifier import encoder_linears, load_classifier
from compressor.models.predictors import OnnxPredictor, predict_encoded
from compressor.system.console import SilentProgress
from exporters.graph_forms import Calibration
from exporters.mixed import divergence
from exporters.quantize import fit_scales, quantize_static, quantize_weights
from exporters.quantize_rows import LARGEST_WEIGHTS, quantize_rows, quantized_columns
from exporters.rounding import (
    ZERO_POINTS,
    fit_weights,
    fit_zero_point,
    observe_inputs,
    smoothing_of,
    watch_inputs,
)

MAX_LENGTH = 32


@pytest.fixture(scope="module")
def classifier(small_pruned_dir):
    return load_classifier(str(small_pruned_dir), "cpu", attention="eager")


@pytest.fixture(scope="module")
def texts(classifier, quotes):
    """Token ids of texts to fit to, and of others."""
    encoded = encode(classifier.tokenizer, quotes.sample(160, 0), MAX_LENGTH)
    return encoded[:80], encoded[80:]


@pytest.fixture(scope="module")
def inputs(classifier, texts):
    return observe_inputs(classifier, texts[0], SilentProgress())


def test_inputs_are_those_of_all_tokens(classifier, texts, inputs, monkeypatch):
    seen = {name: [] for name in encoder_linears(classifier.model)}
    watch_inputs(classifier, texts[0], lambda name, rows: seen[name].append(rows), SilentProgress(), "")
    assert sorted(inputs) == sorted(seen)
    tokens = sum(len(ids) for ids, _ in texts[0])
    monkeypatch.setattr("exporters.rounding.TOKENS_AT_ONCE", 100)
    in_parts = observe_inputs(classifier, texts[0], SilentProgress())
    for name, rows in seen.items():
        wide = torch.cat(rows).double()
        assert len(wide) == tokens
        for found in (inputs[name], in_parts[name]):
            assert torch.allclose(found.square, wide.T @ wide, rtol=1e-4, atol=1e-4 * tokens)
            assert torch.equal(found.largest, wide.abs().amax(dim=0))
    # What shares its input is summed up once.
    assert len({id(own) for own in inputs.values()}) == 4 * 2


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), unit=st.sampled_from([1e-6, 1.0, 1e6]), dead=st.booleans())
def test_smoothed_channels_and_their_weights_are_of_one_size(seed, unit, dead):
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.rand(12, generator=generator, dtype=torch.float64).add(0.05) * unit
    weight = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    if dead:
        sizes[0], weight[1] = 0, 0
    smoothing = smoothing_of(sizes, weight)
    assert (smoothing > 0).all() and torch.isfinite(smoothing).all()
    ratio = (sizes / smoothing) / (weight.abs().amax(dim=1) * smoothing)
    assert torch.allclose(ratio[2:], torch.ones(10, dtype=torch.float64), rtol=1e-5)


def test_nothing_is_known_of_channels_that_are_all_zero():
    zeros = torch.zeros(4, dtype=torch.float64)
    assert torch.equal(smoothing_of(zeros, torch.zeros(4, 2, dtype=torch.float64)), torch.ones(4).double())


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), low=st.floats(0, 4), high=st.floats(0.01, 4))
def test_the_zero_point_gives_rows_the_smallest_steps(seed, low, high):
    generator = np.random.default_rng(seed)
    rows = generator.random((6, 1)) * np.array([-low, high])
    steps = [np.maximum(-rows[:, 0] / point, rows[:, 1] / (255 - point)) for point in ZERO_POINTS]
    best = ZERO_POINTS[int(np.argmin([np.square(own).mean() for own in steps]))]
    assert fit_zero_point(torch.from_numpy(rows)) == best


def test_neurons_have_a_low_zero_point(classifier, inputs):
    layout, model = classifier.layout, classifier.model
    for index in range(len(layout.blocks(model))):
        own = inputs[layout.block_prefix(index) + layout.linears.neurons_out]
        assert float(own.ranges[:, 0].min()) > -0.2 and fit_zero_point(own.ranges) < 100


def test_rows_of_zeros_say_nothing_of_the_zero_point():
    assert fit_zero_point(torch.zeros(0, 2)) == fit_zero_point(torch.zeros(3, 2)) == 128


def rows_of(directory, inputs, folder, bits):
    fitted = (
        fit_weights(directory / "model.onnx", inputs, LARGEST_WEIGHTS[bits], by_rows=True) if inputs else {}
    )
    return quantized_copy(directory, folder, lambda graph: quantize_rows(graph, bits, fitted=fitted))


def weights_of(directory, linears):
    """The int8 weight of each layer, and its scales `(out,)`."""
    found = {
        entry.name: numpy_helper.to_array(entry)
        for entry in onnx.load(directory / "model.onnx").graph.initializer
    }
    return {name: (found[f"{name}.weight_quantized"], found[f"{name}.weight_scale"]) for name in linears}


@pytest.mark.parametrize("bits", [8, 7])
@pytest.mark.parametrize("by_rows", [True, False])
def test_layers_outputs_on_other_texts_change_less_than_with_the_nearest_integers(
    bits, by_rows, classifier, small_artifact_dir, texts, inputs
):
    others = observe_inputs(classifier, texts[1], SilentProgress())
    largest = LARGEST_WEIGHTS[bits]
    fitted = fit_weights(small_artifact_dir / "model.onnx", inputs, largest, by_rows=by_rows)
    assert {own.smoothing is not None for own in fitted.values()} == {by_rows, False}
    found = nearest = 0.0
    for name, linear in encoder_linears(classifier.model).items():
        weight, square = linear.weight.detach().numpy().T, others[name].square.numpy()

        def loss(values, scales, divided, weight=weight, square=square):
            error = values * scales / divided[:, None] - weight
            return float(np.einsum("io,ij,jo->", error, square, error))

        own, ones = fitted[f"{name}.weight"], np.ones(len(weight))
        found += loss(own.values, own.scales, ones if own.smoothing is None else own.smoothing)
        nearest += loss(*quantized_columns(weight, largest), ones)
    assert found < 0.6 * nearest


def test_the_graph_computes_with_divided_inputs_what_it_did(small_artifact_dir, texts, inputs, tmp_path):
    expected = predict_encoded(OnnxPredictor(small_artifact_dir, 1), texts[1], 16)
    directory = rows_of(small_artifact_dir, inputs, tmp_path, 8)
    assert divergence(expected, predict_encoded(OnnxPredictor(directory, 1), texts[1], 16)) < 1e-3


def test_fitted_weights_keep_zeros_and_bits_and_share_what_is_divided(
    classifier, small_artifact_dir, inputs, tmp_path
):
    linears = encoder_linears(classifier.model)
    directory = rows_of(small_artifact_dir, inputs, tmp_path / "fitted", 7)
    for name, (values, scales) in weights_of(directory, linears).items():
        weight = linears[name].weight.detach().numpy().T
        assert not values[weight == 0].any(), name
        assert np.abs(values).max() == 63 and (scales > 0).all()
    counts = Counter(node.op_type for node in onnx.load(directory / "model.onnx").graph.node)
    # In each of two layers: one for query, key and value together, one for the neurons. And the zero point of
    # the neurons' outputs, once.
    plain = Counter(
        node.op_type
        for node in onnx.load(rows_of(small_artifact_dir, {}, tmp_path / "near", 7) / "model.onnx").graph.node
    )
    assert counts - plain == Counter({"Mul": 4, "Shape": 1, "Expand": 1}) and plain - counts == Counter()


def test_weights_that_stay_float_read_what_is_not_divided(small_artifact_dir, inputs, classifier, tmp_path):
    fitted = fit_weights(small_artifact_dir / "model.onnx", inputs, 127, by_rows=True)
    kept = next(iter(encoder_linears(classifier.model))) + ".weight"
    directory = quantized_copy(
        small_artifact_dir, tmp_path, lambda graph: quantize_rows(graph, kept=[kept], fitted=fitted)
    )
    (product,) = [
        node
        for node in onnx.load(directory / "model.onnx").graph.node
        if node.op_type == "MatMul" and node.input[1] == kept
    ]
    assert not product.input[0].endswith("_smoothed")


def test_the_forms_with_fixed_scales_take_fitted_weights(
    classifier, small_artifact_dir, texts, inputs, tmp_path
):
    fitted = fit_weights(small_artifact_dir / "model.onnx", inputs, 127, by_rows=False)
    assert all(own.smoothing is None for own in fitted.values())
    scales = fit_scales(classifier, texts[0], 0, SilentProgress())
    for name, form in (
        ("static", lambda graph: quantize_static(graph, scales, fitted)),
        ("weights", lambda graph: quantize_weights(graph, fitted)),
    ):
        found = weights_of(
            quantized_copy(small_artifact_dir, tmp_path / name, form), encoder_linears(classifier.model)
        )
        for layer, (values, own) in found.items():
            assert np.array_equal(values, fitted[f"{layer}.weight"].values)
            assert np.array_equal(own, fitted[f"{layer}.weight"].scales)


def test_layers_without_inputs_are_rounded_to_the_nearest(small_artifact_dir, inputs, tmp_path):
    name = next(iter(inputs))
    others = {other: own for other, own in inputs.items() if other != name}
    assert f"{name}.weight" not in fit_weights(small_artifact_dir / "model.onnx", others, 127, by_rows=True)


def test_a_graph_for_timing_has_the_same_nodes_and_the_nearest_integers(
    classifier, small_artifact_dir, inputs, tmp_path
):
    plain = rows_of(small_artifact_dir, inputs, tmp_path / "plain", 8)
    timed_inputs = Calibration(inputs).for_timing().inputs
    timed = rows_of(small_artifact_dir, timed_inputs, tmp_path / "timed", 8)
    first, second = (
        [(node.op_type, node.input, node.output) for node in onnx.load(own / "model.onnx").graph.node]
        for own in (plain, timed)
    )
    assert first == second
    smoothings = fit_weights(small_artifact_dir / "model.onnx", timed_inputs, 127, by_rows=True)
    for name, linear in encoder_linears(classifier.model).items():
        own, weight = smoothings[f"{name}.weight"], linear.weight.detach().numpy().T.astype(np.float64)
        weight = weight if own.smoothing is None else weight * own.smoothing[:, None]
        assert np.array_equal(own.values, np.rint(weight / own.scales)), name
