"""The exported graph: operators, names, zeros, shapes, and nothing of the exporting machine."""

import copy
import shutil
import socket
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from needs import NEEDS_OPTIMUM
from onnx import TensorProto, numpy_helper
from project import ROOT

from compressor.errors import UserError
from compressor.models.batching import pad
from compressor.models.classifier import encoder_weights, load_classifier
from compressor.models.encoders.bert import BERT
from compressor.models.predictors import OnnxPredictor, TorchPredictor, predict
from exporters import onnx as onnx_export
from exporters.onnx import encoder_initializers, export_graph
from exporters.quantize import quantize_dynamic
from exporters.quantize_rows import quantize_rows


@pytest.fixture(scope="module")
def pruned(small_pruned_dir):
    return load_classifier(str(small_pruned_dir), attention="eager")


@pytest.fixture(scope="module")
def graph_path(small_artifact_dir):
    return small_artifact_dir / "model.onnx"


@pytest.fixture(scope="module")
def graph(graph_path):
    return onnx.load(graph_path)


def random_texts(count: int, shortest: int, longest: int, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    generator = np.random.default_rng(seed)
    texts = []
    for length in generator.integers(shortest, longest + 1, count):
        texts.append(([101, *generator.integers(1000, 10000, length - 2).tolist(), 102], [0] * int(length)))
    return texts


def test_graph_has_opset_18_and_the_default_domain_only(graph):
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 18)]
    assert {node.domain for node in graph.graph.node} == {""}
    assert not graph.functions


def test_inputs_and_output_are_named_typed_and_dynamic(graph):
    inputs = {entry.name: entry.type.tensor_type for entry in graph.graph.input}
    assert list(inputs) == ["input_ids", "attention_mask", "token_type_ids"]
    for kind in inputs.values():
        assert kind.elem_type == TensorProto.INT64
        assert len(kind.shape.dim) == 2
        assert all(dim.dim_param and not dim.HasField("dim_value") for dim in kind.shape.dim)
    (output,) = graph.graph.output
    assert output.name == "logits"
    assert output.type.tensor_type.elem_type == TensorProto.FLOAT
    assert output.type.tensor_type.shape.dim[1].dim_value == 2


def test_no_path_or_name_of_this_machine_is_in_the_file(graph):
    without_weights = onnx.ModelProto()
    without_weights.CopyFrom(graph)
    for entry in without_weights.graph.initializer:
        # Random bytes would hold any short text by chance.
        entry.ClearField("raw_data")
    content = without_weights.SerializeToString()
    home = f"{Path.home()}/"
    for trace in (str(ROOT), str(Path(torch.__file__).parent), home, "site-packages", ".py", "stack_trace"):
        assert trace.encode() not in content, trace
    assert socket.gethostname().encode() not in content


def test_initializers_have_the_names_of_pytorchs_parameters(graph, pruned):
    parameters = dict(pruned.model.named_parameters())
    named = {entry.name: numpy_helper.to_array(entry) for entry in graph.graph.initializer}
    large = {name for name, value in named.items() if value.size > 512}
    assert large <= set(parameters)
    assert {name for name in parameters if name.endswith("weight") and "LayerNorm" not in name} <= set(named)


def test_every_weight_of_the_graph_is_pytorchs_bit_for_bit(graph, pruned):
    parameters = {name: value.detach().numpy() for name, value in pruned.model.named_parameters()}
    for entry in graph.graph.initializer:
        if entry.name in parameters:
            found, expected = numpy_helper.to_array(entry), parameters[entry.name]
            same = np.array_equal(found, expected) or np.array_equal(found, expected.T)
            assert same, entry.name


def test_zeros_of_the_graph_are_those_of_the_model(graph_path, pruned):
    expected, found = encoder_weights(pruned.model), encoder_initializers(graph_path, BERT)
    assert sorted(found) == sorted(expected)
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name


def test_raw_initializers_hold_exactly_the_models_zeros(graph, pruned):
    counted = {
        entry.name.removesuffix(".weight"): int((numpy_helper.to_array(entry) == 0).sum())
        for entry in graph.graph.initializer
    }
    weights = encoder_weights(pruned.model)
    for name, weight in weights.items():
        assert counted[name] == int((weight == 0).sum()), name
    assert sum(counted[name] for name in weights) == sum(w.numel() for w in weights.values()) // 2


@pytest.mark.parametrize(
    ("count", "shortest", "longest"), [(1, 2, 2), (1, 7, 7), (33, 3, 40), (2, 512, 512), (8, 2, 200)]
)
def test_logits_are_pytorchs_at_any_shape(small_artifact_dir, pruned, count, shortest, longest):
    batch = pad(random_texts(count, shortest, longest), pruned.tokenizer.pad_token_id)
    expected = TorchPredictor(pruned).logits(batch)
    found = OnnxPredictor(small_artifact_dir, threads=2).logits(batch)
    assert found.shape == (count, 2)
    assert np.abs(found - expected).max() <= 1e-4


def test_one_token_alone_is_a_valid_input(small_artifact_dir, pruned):
    batch = pad([([101], [0])], pruned.tokenizer.pad_token_id)
    assert batch["input_ids"].shape == (1, 1)
    found = OnnxPredictor(small_artifact_dir, threads=1).logits(batch)
    assert np.abs(found - TorchPredictor(pruned).logits(batch)).max() <= 1e-4


def test_segments_reach_the_graph(small_artifact_dir, pruned):
    ids = random_texts(1, 20, 20)[0][0]
    batches = [pad([(ids, segments)], 0) for segments in ([0] * 20, [0] * 8 + [1] * 12)]
    predictor = OnnxPredictor(small_artifact_dir, threads=1)
    first, second = (predictor.logits(batch) for batch in batches)
    assert np.abs(second - TorchPredictor(pruned).logits(batches[1])).max() <= 1e-4
    assert np.abs(first - second).max() > 1e-3


def test_padding_does_not_change_logits(small_artifact_dir):
    predictor = OnnxPredictor(small_artifact_dir, threads=1)
    texts = random_texts(4, 5, 20)
    plain, padded = predictor.logits(pad(texts, 0)), predictor.logits(pad(texts, 0, length=100))
    assert np.abs(plain - padded).max() <= 1e-4


@pytest.fixture(scope="module", params=["fp32", "fp16", "int8", "int8-dynamic"])
def artifact_of(request, small_artifact_dir, pruned, tmp_path_factory):
    """Precision and directory of the artifact, with its graph in other precisions too."""
    if request.param == "fp32":
        return request.param, small_artifact_dir
    copied = Path(shutil.copytree(small_artifact_dir, tmp_path_factory.mktemp(request.param) / "artifact"))
    if request.param == "fp16":
        export_graph(pruned, copied / "model.onnx", torch.float16)
    else:
        quantize = {"int8": quantize_rows, "int8-dynamic": quantize_dynamic}[request.param]
        quantize(copied / "model.onnx")
    return request.param, copied


@NEEDS_OPTIMUM
def test_optimum_loads_the_artifact_and_gives_the_same_logits(artifact_of, pruned):
    from optimum.onnxruntime import ORTModelForSequenceClassification

    precision, directory = artifact_of
    model = ORTModelForSequenceClassification.from_pretrained(directory)
    batch = pad(random_texts(6, 4, 30), pruned.tokenizer.pad_token_id)
    found = model(**batch).logits.numpy()
    assert found.dtype == np.float32
    tolerance = {"fp32": 1e-4, "fp16": 2e-2, "int8": 0.2, "int8-dynamic": 0.2}[precision]
    assert np.abs(found - TorchPredictor(pruned).logits(batch)).max() <= tolerance
    assert np.abs(found - OnnxPredictor(directory, 1).logits(batch)).max() <= 1e-5
    assert model.config.id2label == {0: "fresh", 1: "rotten"}


@NEEDS_OPTIMUM
def test_the_artifact_classifies_in_a_pipeline(artifact_of, quotes):
    """As the README shows it; a pipeline takes texts one by one."""
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import AutoTokenizer, pipeline

    _, directory = artifact_of
    model = ORTModelForSequenceClassification.from_pretrained(directory)
    classify = pipeline(
        "text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(directory)
    )
    data = quotes.select(range(12))
    logits = torch.from_numpy(predict(OnnxPredictor(directory, 1), data, 512, batch_size=1))
    scores, labels = logits.softmax(dim=1).max(dim=1)
    answers = classify(data.texts)
    assert [answer["label"] for answer in answers] == [["fresh", "rotten"][label] for label in labels]
    assert {answer["label"] for answer in answers} == {"fresh", "rotten"}
    np.testing.assert_allclose([answer["score"] for answer in answers], scores, atol=1e-4)


def test_export_of_twin_layers_keeps_each_layers_name(pruned, tmp_path):
    twin = copy.deepcopy(pruned)
    blocks = twin.model.bert.encoder.layer
    blocks[1].load_state_dict(blocks[0].state_dict())
    export_graph(twin, tmp_path / "twin.onnx")
    found, expected = encoder_initializers(tmp_path / "twin.onnx", BERT), encoder_weights(twin.model)
    assert sorted(found) == sorted(expected)
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name


def test_export_says_nothing(pruned, tmp_path, capfd):
    export_graph(pruned, tmp_path / "quiet.onnx")
    assert capfd.readouterr().out == ""


def test_a_model_past_onnxs_limit_is_an_error(pruned, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "LARGEST_GRAPH_BYTES", 10**6)
    with pytest.raises(UserError, match=r"GB of weights; one ONNX file holds 2 GB"):
        export_graph(pruned, tmp_path / "large.onnx")
    assert not any(tmp_path.iterdir())
