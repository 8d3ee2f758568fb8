"""Artifacts for OpenVINO: exported and proven with it, then attacked and validated like any other."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from openvino import Core

from cli import execute
from compressor.data.texts import load_text_data
from compressor.errors import UserError
from compressor.models.classifier import encoder_weights, load_classifier
from compressor.models.encoders.bert import BERT
from compressor.models.manifest import read_manifest
from compressor.models.openvino import OpenVinoPredictor
from compressor.models.portable import check_host
from compressor.models.portable.check_host import CheckError, read_reference
from compressor.models.predictors import TorchPredictor, predict
from compressor.models.runtimes import load_predictor
from compressor.options import ColumnsConfig, ExportConfig, RunConfig
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from exporters.onnx import encoder_initializers
from exporters.openvino_ir import write_ir
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


def test_openvinos_own_form_answers_as_the_onnx_graph(exported, critic_quotes, tmp_path):
    precision, artifact = exported
    files = read_manifest(artifact)["files"]
    assert {"model.onnx", "model.xml", "model.bin"} <= set(files)
    if precision == "int8":
        # Weights keep their 8 bits, and float32 is not stored as float16.
        assert files["model.bin"]["bytes"] < 1.1 * files["model.onnx"]["bytes"]
    without = Path(shutil.copytree(artifact, tmp_path / "artifact"))
    (without / "model.xml").unlink()
    data = load_text_data(str(critic_quotes / "test.tsv"), COLUMNS, "test").select(range(40))
    found, expected = (
        predict(OpenVinoPredictor(folder, 1), data, COLUMNS.max_length) for folder in (artifact, without)
    )
    assert np.abs(found - expected).max() <= (1e-4 if precision == "int8" else 1e-6)


def test_openvinos_own_form_has_the_options_of_its_proof(exported):
    model = Core().compile_model(exported[1] / "model.xml", "CPU")
    assert model.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE") == 64


def test_the_same_graph_gives_the_same_bytes_and_names_no_directory(exported, tmp_path):
    artifact = exported[1]
    shutil.copy(artifact / "model.onnx", tmp_path)
    write_ir(tmp_path)
    for name in ("model.xml", "model.bin"):
        content = (tmp_path / name).read_bytes()
        assert content == (artifact / name).read_bytes()
        assert str(tmp_path).encode() not in content


def test_a_bf16_graph_is_proven_in_float32(small_pruned_dir, critic_quotes, tmp_path):
    record = export(small_pruned_dir, tmp_path / "artifact", "bf16", critic_quotes / "small.tsv")
    assert record.parity["arithmetic"] == "fp32"
    assert "model.xml" in record.files


def test_hosts_are_checked_with_openvino_alone(exported, tmp_path):
    artifact = Path(shutil.copytree(exported[1], tmp_path / "artifact"))
    assert read_reference(artifact).runtime == "openvino"
    absent = ("onnxruntime", "torch", "transformers", "onnx", "compressor")
    start = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({absent!r}));"
        f"sys.argv[0] = {check_host.__file__!r}; runpy.run_path(sys.argv[0], run_name='__main__')"
    )

    def run():
        command = [sys.executable, "-c", start, str(artifact), "--json"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["worst_difference"] < 1e-5
    change_ir_weights(artifact)
    done = run()
    assert done.returncode == 1
    (problem,) = json.loads(done.stdout)["problems"]
    assert "model.xml: the weights differ" in problem


def change_ir_weights(artifact):
    """Flip the highest bit of the exponent of a weight of the head in OpenVINO's form."""
    (head,) = (
        numpy_helper.to_array(entry)
        for entry in onnx.load(artifact / "model.onnx").graph.initializer
        if entry.name.endswith("classifier.bias")
    )
    content = bytearray((artifact / "model.bin").read_bytes())
    content[content.index(head.tobytes()) + head.itemsize - 1] ^= 0x40
    (artifact / "model.bin").write_bytes(content)


def test_a_host_without_openvino_is_told_what_to_install(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(CheckError, match=r"model\.xml: is run by OpenVINO, .*pip install openvino"):
        check_host.check_host(exported[1])


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
