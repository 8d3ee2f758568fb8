"""Layers without attention or feed-forward part: nothing of them is left in the graph, in any precision."""

import shutil
from collections import Counter
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_checkpoints import make_checkpoint

from compressor.inspection.stage import inspect_directory
from compressor.models.batching import pad
from compressor.models.classifier import encoder_weights, load_classifier, save_classifier
from compressor.models.encoders.bert import BERT
from compressor.models.openvino import OpenVinoPredictor
from compressor.models.predictors import OnnxPredictor
from compressor.models.structure import (
    remove_attention,
    remove_feed_forward,
    remove_heads,
    remove_neurons,
    set_neuron_count,
)
from compressor.options import ColumnsConfig, ExportConfig, RunConfig
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from compressor.validation.measure.flops import encoder_flops
from exporters.cpu_kernels import suit_cpu_kernels
from exporters.onnx import encoder_initializers, export_graph
from exporters.packed import pack_directory, unpack_directory
from exporters.quantize import fit_scales, quantize_dynamic, quantize_static, quantize_weights
from exporters.quantize_rows import quantize_rows
from exporters.shrink import layer_widths, shrink
from exporters.stage import export_directory
from exporters.texts import ExportTexts

LAYERS, HEADS, NEURONS, HIDDEN = 3, 2, 16, 8
# Layers without attention, and without a feed-forward part.
CASES = {
    "attention": ((0,), ()),
    "feed-forward": ((), (2,)),
    "one each": ((0,), (1,)),
    "both of a layer": ((1,), (1,)),
    "all attention": ((0, 1, 2), ()),
    "all feed-forward": ((), (0, 1, 2)),
    "all": ((0, 1, 2), (0, 1, 2)),
}
# What runs each form of a graph.
RUNTIMES = {
    "fp32": (OnnxPredictor, OpenVinoPredictor),
    "int8": (OnnxPredictor,),
    "int8-static": (OnnxPredictor, OpenVinoPredictor),
    "int8-dynamic": (OnnxPredictor,),
    "openvino": (OpenVinoPredictor,),
}
# Of a MatMul and what int8 makes of it.
PRODUCTS = ("MatMul", "MatMulInteger", "Gemm", "FusedMatMul")


@pytest.fixture(scope="module")
def dense_dir(tmp_path_factory):
    return make_checkpoint(
        tmp_path_factory.mktemp("dense"),
        num_hidden_layers=LAYERS,
        intermediate_size=NEURONS,
        initializer_range=0.5,
    )


def without(dense_dir, no_attention, no_feed_forward):
    """A classifier whose biases are not 0, so that what stays of a block is seen."""
    classifier = load_classifier(str(dense_dir), attention="eager")
    generator = torch.Generator().manual_seed(2)
    for name, parameter in classifier.model.named_parameters():
        if name.endswith("bias"):
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    for index in no_attention:
        remove_attention(classifier.model, index)
    for index in no_feed_forward:
        remove_feed_forward(classifier.model, index)
    set_neuron_count(classifier.model)
    return classifier


TEXTS = [
    ([2, *np.random.default_rng(0).integers(5, 15, n).tolist(), 3], [0] * (n + 2)) for n in (1, 9, 4, 20, 13)
]


def expected_logits(classifier):
    with torch.no_grad():
        return classifier.model(**pad(TEXTS, 0)).logits.numpy()


@pytest.fixture(scope="module")
def graphs(dense_dir, tmp_path_factory):
    """A function from a case to its classifier and the directory of its graph in float32, made once."""

    @cache
    def made(case):
        classifier = without(dense_dir, *CASES[case])
        return classifier, write_graph(classifier, tmp_path_factory.mktemp("graph"))

    return made


def write_graph(classifier, folder):
    """Write the float32 graph of an artifact, and what a predictor reads beside it; return the folder."""
    classifier.model.config.save_pretrained(folder)
    classifier.tokenizer.save_pretrained(folder)
    export_graph(shrink(classifier), folder / "model.onnx")
    suit_cpu_kernels(folder / "model.onnx")
    return folder


def quantize(graph, classifier, form):
    if form == "int8":
        quantize_rows(graph)
    elif form == "int8-static":
        quantize_static(graph, fit_scales(shrink(classifier), TEXTS, 0, SilentProgress()))
    elif form == "int8-dynamic":
        quantize_dynamic(graph)
    elif form == "openvino":
        quantize_weights(graph)


def products(graph):
    counts = Counter(node.op_type for node in onnx.load(graph).graph.node)
    return sum(counts[name] for name in PRODUCTS)


# Query, key, value, output, scores and contexts; and both of the feed-forward part.
OF_ATTENTION, OF_FEED_FORWARD, OF_HEAD = 6, 2, 2


@pytest.mark.parametrize("form", RUNTIMES)
@pytest.mark.parametrize("case", CASES)
def test_no_product_of_a_block_that_is_gone_is_left_and_answers_stay(graphs, tmp_path, case, form):
    no_attention, no_feed_forward = CASES[case]
    classifier, exported = graphs(case)
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    graph = tmp_path / "model.onnx"
    quantize(graph, classifier, form)
    assert products(graph) == (
        OF_ATTENTION * (LAYERS - len(no_attention))
        + OF_FEED_FORWARD * (LAYERS - len(no_feed_forward))
        + OF_HEAD
    )
    loaded = onnx.load(graph)
    operators = Counter(node.op_type for node in loaded.graph.node)
    assert operators["Softmax"] == LAYERS - len(no_attention)
    assert operators["Erf"] == LAYERS - len(no_feed_forward)
    assert operators["LayerNormalization"] == 2 * LAYERS + 1
    # Nothing is left in the weights either, nor without elements.
    assert all(0 not in entry.dims for entry in loaded.graph.initializer)
    expected = expected_logits(classifier)
    tolerance = 1e-5 if form == "fp32" else 0.15
    for runtime in RUNTIMES[form]:
        predictor = runtime(tmp_path, threads=1)
        found = predictor.logits(pad(TEXTS, 0))
        assert np.abs(found - expected).max() <= tolerance, predictor.runtime


@pytest.mark.parametrize("case", CASES)
def test_what_is_counted_of_a_graph_is_what_is_left(graphs, case):
    no_attention, no_feed_forward = CASES[case]
    classifier, exported = graphs(case)
    weights = encoder_initializers(exported / "model.onnx", BERT)
    assert set(weights) == set(encoder_weights(shrink(classifier).model))
    flops = encoder_flops(BERT, weights, 1, 10)
    per_attention = 2 * 10 * 4 * HIDDEN * HIDDEN + 2 * 2 * 10 * 10 * HIDDEN
    attention = per_attention * (LAYERS - len(no_attention))
    feed_forward = 2 * 10 * 2 * HIDDEN * NEURONS * (LAYERS - len(no_feed_forward))
    assert flops.all_weights == flops.nonzero_weights == attention + feed_forward
    assert [(widths.heads, widths.neurons) for widths in layer_widths(shrink(classifier).model)] == [
        (HEADS * (index not in no_attention), NEURONS * (index not in no_feed_forward))
        for index in range(LAYERS)
    ]


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    widths=st.lists(
        st.tuples(st.integers(0, HEADS), st.integers(0, NEURONS)), min_size=LAYERS, max_size=LAYERS
    )
)
def test_graphs_of_any_widths_give_the_models_answers(dense_dir, tmp_path_factory, widths):
    absent = [[i for i, own in enumerate(widths) if not own[part]] for part in (0, 1)]
    classifier = without(dense_dir, *absent)
    for index, (heads, neurons) in enumerate(widths):
        if heads:
            remove_heads(classifier.model, index, range(heads, HEADS))
        if neurons:
            remove_neurons(classifier.model, index, range(neurons, NEURONS))
    set_neuron_count(classifier.model)
    folder = write_graph(classifier, tmp_path_factory.mktemp("graph"))
    found = OnnxPredictor(folder, threads=1).logits(pad(TEXTS, 0))
    np.testing.assert_allclose(found, expected_logits(classifier), atol=1e-5)
    head = HIDDEN // HEADS
    counted = {
        name: tuple(weight.shape)
        for name, weight in encoder_initializers(folder / "model.onnx", BERT).items()
    }
    expected = {}
    for index, (heads, neurons) in enumerate(widths):
        (qkv, (outer,), (inner,), (last,)) = BERT.group_names(index)
        expected |= dict.fromkeys(qkv, (heads * head, HIDDEN)) | {outer: (HIDDEN, heads * head)}
        expected |= {inner: (neurons, HIDDEN), last: (HIDDEN, neurons)}
    assert counted == {name: shape for name, shape in expected.items() if 0 not in shape}


# the stages ---------------------------------------------------------------------------------------


@pytest.fixture
def texts_file(tmp_path):
    lines = [f"a {word} film of {other} charm" for word in ("fine", "dull") for other in ("great", "empty")]
    path = tmp_path / "texts.tsv"
    path.write_text("text\n" + "\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("case", "precision", "layers"),
    [
        ("one each", "int8", 6 * LAYERS - 4 - 2),
        ("one each", "fp16", 6 * LAYERS - 4 - 2),
        ("all", "int8-static", 0),
    ],
)
def test_the_export_stage_takes_such_models(dense_dir, tmp_path, texts_file, case, precision, layers):
    classifier = without(dense_dir, *CASES[case])
    model, artifact = tmp_path / "pruned", tmp_path / "artifact"
    save_classifier(classifier, model)
    record = export_directory(
        str(model),
        str(texts_file),
        ExportConfig(
            target="tensorrt" if precision == "fp16" else "onnx",
            precision=precision,
            parity_examples=4,
            parity_agreement=0.5,
            mixed=False,
            engine_lengths=(1, 8, 16),
        ),
        Context(
            output=artifact,
            columns=ColumnsConfig(max_length=16),
            run=RunConfig(device="cpu", threads=1),
            progress=SilentProgress(),
        ),
        ExportTexts(calibration=str(texts_file)),
    )
    assert record.widths == layer_widths(shrink(classifier).model)
    facts = inspect_directory(str(artifact))
    assert len(facts["layers"]) == layers


def test_a_checkpoint_without_blocks_is_packed_and_restored(dense_dir, tmp_path):
    classifier = without(dense_dir, *CASES["one each"])
    save_classifier(classifier, tmp_path / "model")
    pack_directory(tmp_path / "model", tmp_path / "packed", force=False)
    unpack_directory(tmp_path / "packed", tmp_path / "restored", force=False)
    restored = (tmp_path / "restored" / "model.safetensors").read_bytes()
    assert restored == (tmp_path / "model" / "model.safetensors").read_bytes()
    again = load_classifier(str(tmp_path / "restored"))
    np.testing.assert_allclose(expected_logits(again), expected_logits(classifier), atol=1e-6)
