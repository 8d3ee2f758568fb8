"""Artifacts for OpenVINO: exported and proven with it, then attacked and validated like any other."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from cli import execute
from compressor.data.texts import load_text_data
from compressor.errors import UserError
from compressor.models.classifier import encoder_weights, load_classifier
from compressor.models.encoders.bert import BERT
from compressor.models.manifest import read_manifest
from compressor.models.openvino import OpenVinoPredictor
from compressor.models.predictors import TorchPredictor, predict
from compressor.models.runtimes import load_predictor
from compressor.options import ColumnsConfig, ExportConfig, RunConfig
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from exporters.onnx import encoder_initializers
from exporters.stage import export_directory
from exporters.texts import ExportTexts

RUN = RunConfig(device="cpu", threads=1)
COLUMNS = ColumnsConfig(max_length=48)
# Labels as PyTorch's, at least; what stands for the runtime's own quantization is fixed by its arithmetic.
LEAST_AGREEMENT = {"fp32": 1.0, "int8": 0.97, "int8-static": 0.95}


def export(model, output, precision, data):
    config = ExportConfig(
        runtime="openvino", precision=precision, parity_examples=40, parity_agreement=0.9,
        quantization_examples=64,
    )  # fmt: skip
    context = Context(output=output, columns=COLUMNS, run=RUN, progress=SilentProgress())
    return export_directory(str(model), str(data), config, context, ExportTexts(calibration=str(data)))


@pytest.fixture(scope="module", params=["fp32", "int8", "int8-static"])
def exported(request, small_pruned_dir, critic_quotes, tmp_path_factory):
    """Precision and folder of an artifact for OpenVINO."""
    output = tmp_path_factory.mktemp("openvino") / "artifact"
    export(small_pruned_dir, output, request.param, critic_quotes / "small.tsv")
    return request.param, output


def test_it_answers_as_the_model_does(exported, small_pruned_dir, critic_quotes):
    precision, artifact = exported
    assert read_manifest(artifact)["runtime"] == "openvino"
    found = load_predictor(str(artifact), RUN, COLUMNS.max_length)
    assert isinstance(found, OpenVinoPredictor)
    data = load_text_data(str(critic_quotes / "test.tsv"), COLUMNS, "test").select(range(200))
    expected = predict(TorchPredictor(load_classifier(str(small_pruned_dir))), data, COLUMNS.max_length)
    logits = predict(found, data, COLUMNS.max_length)
    assert logits.dtype == np.float32
    assert (logits.argmax(1) == expected.argmax(1)).mean() >= LEAST_AGREEMENT[precision]
    if precision == "fp32":
        assert np.abs(logits - expected).max() <= 1e-4


def test_the_answer_to_a_text_does_not_depend_on_its_batch(exported):
    precision, artifact = exported
    invariance = read_manifest(artifact)["invariance"]
    assert invariance["batch_disagreement"] == 0
    assert invariance["worst_batch_shift"] <= (1e-2 if precision == "int8" else 1e-3)


def test_zeros_stay_zeros(exported, small_pruned_dir):
    precision, artifact = exported
    manifest = read_manifest(artifact)
    # Small weights may become zeros too.
    assert 0.5 <= manifest["sparsity"] < 0.501
    if precision == "int8":
        kinds = {
            entry.name: entry.data_type for entry in onnx.load(artifact / "model.onnx").graph.initializer
        }
        found = encoder_initializers(artifact / "model.onnx", BERT)
        for name, weight in encoder_weights(load_classifier(str(small_pruned_dir)).model).items():
            assert kinds[f"{name}.weight_quantized"] == onnx.TensorProto.INT8
            assert (found[name][weight == 0] == 0).all()


def test_it_is_attacked_and_validated(exported, small_classifier_dir, critic_quotes, tmp_path):
    precision, artifact = exported
    options = ["--data", str(critic_quotes / "test.tsv"), "--threads", "1", "--max-length", "48"]
    arguments = ["attack", str(artifact), "--attack", "deepwordbug", "--attack-examples", "4", *options]
    assert execute([*arguments, "--output", str(tmp_path / "attack")]) == 0
    if precision == "fp32":
        arguments = [
            "validate", str(small_classifier_dir), str(artifact), "--attack-examples", "4",
            "--batch-sizes", "1", "--sequence-lengths", "8", "--latency-rounds", "3", "--no-footprint",
            *options,
        ]  # fmt: skip
        assert execute([*arguments, "--output", str(tmp_path / "validate")]) in (0, 1)
        report = json.loads((tmp_path / "validate" / "report.json").read_text())
        assert "openvino" in report["environment"]["packages"]


# errors -----------------------------------------------------------------------------------------


def test_without_the_package_it_says_what_to_install(small_artifact_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"OpenVINO is not installed; .*compress-bert\[openvino\]"):
        OpenVinoPredictor(small_artifact_dir, 1)


def test_it_is_for_cpus(small_artifact_dir):
    with pytest.raises(UserError, match="runs on CPUs, not on cuda; give --device cpu"):
        OpenVinoPredictor(small_artifact_dir, 1, "cuda")


def test_a_broken_graph_is_named(small_artifact_dir, tmp_path):
    artifact = Path(shutil.copytree(small_artifact_dir, tmp_path / "artifact"))
    (artifact / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"model\.onnx: cannot be loaded by OpenVINO: .*; export it again"):
        OpenVinoPredictor(artifact, 1)


def test_a_graph_of_something_else_is_named(small_artifact_dir, tmp_path):
    artifact = Path(shutil.copytree(small_artifact_dir, tmp_path / "artifact"))
    model = onnx.load(artifact / "model.onnx")
    model.graph.output[0].name = "scores"
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            node.output[index] = "scores" if name == "logits" else name
    onnx.save(model, artifact / "model.onnx")
    with pytest.raises(UserError, match="is no classifier of compress: it has no output logits"):
        OpenVinoPredictor(artifact, 1)
