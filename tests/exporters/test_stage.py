"""The export stage: a proven artifact, or nothing at all."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from compressor.data.texts import load_text_data
from compressor.errors import UserError
from compressor.models.classifier import (
    encoder_weights,
    load_classifier,
    save_classifier,
    weights_fingerprint,
)
from compressor.models.encoders.bert import BERT
from compressor.models.manifest import read_manifest
from compressor.models.predictors import OnnxPredictor, TorchPredictor, predict
from compressor.options import ColumnsConfig, ExportConfig, RunConfig
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from compressor.system.files import MARKER
from exporters import graph_forms
from exporters.onnx import encoder_initializers
from exporters.stage import export_directory

RUN = RunConfig(device="cpu", threads=2)
COLUMNS = ColumnsConfig(max_length=48)


def export(model, output, data=None, **options):
    config = ExportConfig(**{"parity_examples": 20, **options})
    data = None if data is None else str(data)
    return export_directory(
        str(model),
        data,
        config,
        Context(output=output, columns=COLUMNS, run=RUN, progress=SilentProgress()),
    ).model_dump()


def test_the_artifact_holds_graph_config_tokenizer_and_a_true_manifest(small_artifact_dir):
    names = {path.name for path in small_artifact_dir.iterdir()}
    assert {"model.onnx", "config.json", "tokenizer.json", "manifest.json"} <= names
    assert set(read_manifest(small_artifact_dir)["files"]) == names - {"manifest.json", MARKER}


def test_the_manifest_counts_zeros_exactly(small_artifact_dir, small_pruned_dir):
    manifest = read_manifest(small_artifact_dir)
    weights = encoder_weights(load_classifier(str(small_pruned_dir)).model)
    assert manifest["sparsity"] == 0.5
    assert manifest["max_length"] == COLUMNS.max_length
    shares = {name: int((weight == 0).sum()) / weight.numel() for name, weight in weights.items()}
    assert manifest["layers"] == pytest.approx(shares, rel=1e-12)
    assert manifest["opset"] == 18
    assert manifest["labels"] == ["fresh", "rotten"]


def test_the_manifest_tells_of_model_and_data(
    small_artifact_dir, small_pruned_dir, small_classifier_dir, quotes
):
    manifest = read_manifest(small_artifact_dir)
    lineage = manifest["lineage"]
    assert lineage["weights_sha256"] == weights_fingerprint(str(small_pruned_dir))
    assert lineage["dense_sha256"] == weights_fingerprint(str(small_classifier_dir))
    assert lineage["data_fingerprint"] == quotes.fingerprint
    assert lineage["pruning"]["sparsity"] == 0.5
    assert (small_artifact_dir / lineage["model"]).resolve() == small_pruned_dir.resolve()
    assert manifest["parity"]["max_difference"] <= 1e-4
    assert manifest["parity"]["examples"] == 50
    edges = manifest["parity"]["edge_differences"]
    assert {"1 x 1", "1 x 512", "2 x 512"} < set(edges)
    assert all(0 <= difference <= 1e-4 for difference in edges.values())


def test_no_path_of_this_machine_is_in_any_file(small_artifact_dir, small_pruned_dir):
    for path in small_artifact_dir.iterdir():
        assert str(small_pruned_dir).encode() not in path.read_bytes(), path.name


def test_the_artifact_classifies_as_the_model_does(small_artifact_dir, small_pruned_dir, test_quotes):
    data = test_quotes.select(range(60))
    expected = predict(TorchPredictor(load_classifier(str(small_pruned_dir))), data, 48)
    found = predict(OnnxPredictor(small_artifact_dir, threads=2), data, 48, batch_size=7)
    assert np.abs(expected - found).max() <= 1e-4


def test_parity_that_fails_names_a_text_and_leaves_nothing(small_pruned_dir, quotes, tmp_path):
    with pytest.raises(UserError, match="export failed: logits differ") as caught:
        export(small_pruned_dir, tmp_path / "new" / "artifact", parity_tolerance=1e-12)
    assert any(text[:40] in str(caught.value).replace("\\'", "'") for text in quotes.texts)
    assert not any(tmp_path.iterdir())


def test_parity_data_may_be_given(small_pruned_dir, critic_quotes, tmp_path):
    source = critic_quotes / "test.tsv"
    manifest = export(small_pruned_dir, tmp_path / "a", source, parity_examples=9)
    data = load_text_data(str(source), COLUMNS, "test", label_names=["fresh", "rotten"])
    assert manifest["parity"]["examples"] == 9
    assert manifest["parity"]["data_fingerprint"] == data.sample(9, 0).fingerprint


def test_parity_data_needs_no_labels(small_pruned_dir, tmp_path):
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in ("a film", "b")) + "\n")
    manifest = export(small_pruned_dir, tmp_path / "a", tmp_path / "texts.jsonl")
    assert manifest["parity"]["examples"] == 2


def test_a_dense_model_is_exported_from_its_training_record(small_classifier_dir, tmp_path):
    manifest = export(small_classifier_dir, tmp_path / "a")
    assert manifest["sparsity"] == 0.0
    assert manifest["lineage"]["dense_sha256"] is None
    assert manifest["lineage"]["pruning"] is None


def test_a_model_without_record_needs_data(writable_copy, tmp_path):
    (writable_copy / "training.json").unlink()
    with pytest.raises(UserError, match="no record of the data it was made with; give real texts"):
        export(writable_copy, tmp_path / "a")


def test_a_model_whose_data_is_gone_needs_data(writable_copy, tmp_path):
    record = json.loads((writable_copy / "training.json").read_text())
    record["data"]["source"] = str(tmp_path / "gone.tsv")
    (writable_copy / "training.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"gone\.tsv: no such file, though"):
        export(writable_copy, tmp_path / "a")


def test_a_model_with_nan_weights_is_not_exported(writable_copy, tmp_path):
    path = writable_copy / "model.safetensors"
    weights = load_file(path)
    weights["classifier.bias"] = torch.full_like(weights["classifier.bias"], torch.nan)
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"classifier\.bias holds NaN"):
        export(writable_copy, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_tampered_artifact_is_refused(small_artifact_dir, tmp_path):
    copy = shutil.copytree(small_artifact_dir, tmp_path / "copy")
    with (copy / "model.onnx").open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"\xff")
    with pytest.raises(UserError, match=r"model\.onnx: is not the file that was exported"):
        read_manifest(copy)


@pytest.fixture(scope="module")
def narrowed_dir(small_pruned_dir, tmp_path_factory):
    """The pruned classifier with neurons and a head that have no effect."""
    classifier = load_classifier(str(small_pruned_dir))
    for layer in classifier.model.bert.encoder.layer:
        with torch.no_grad():
            layer.intermediate.dense.weight[::2] = 0
            layer.attention.output.dense.weight[:, :32] = 0
    folder = tmp_path_factory.mktemp("narrowed") / "pruned"
    save_classifier(classifier, folder)
    shutil.copy(small_pruned_dir / "pruning.json", folder)
    return folder


# A model of two layers that has lost half of its neurons agrees with its bf16 and int8 graphs on 96 to 97 %.
@pytest.mark.parametrize(
    ("precision", "options"),
    [
        ("fp32", {"storage": "sparse"}),
        ("fp16", {}),
        ("bf16", {"parity_agreement": 0.9}),
        ("int8", {"parity_agreement": 0.9}),
        ("int8", {"parity_agreement": 0.9, "target_isa": "any"}),
        ("int8-dynamic", {"parity_agreement": 0.9}),
        ("int8-static", {"parity_agreement": 0.9}),
    ],
)
def test_smaller_graphs_of_every_precision_are_proven(
    narrowed_dir, critic_quotes, tmp_path, precision, options
):
    data = critic_quotes / "test.tsv"
    manifest = export(
        narrowed_dir, tmp_path / "artifact", data=data, parity_examples=64, precision=precision, **options
    )
    assert manifest["precision"] == precision
    # 12 heads and 256 neurons of the whole model.
    assert {(widths["heads"], widths["neurons"]) for widths in manifest["widths"]} == {(11, 128)}
    assert manifest["encoder_weights"]["graph"] < 0.85 * manifest["encoder_weights"]["model"]
    # What is cut out counts as zero, so the figure is the model's; int8 has more zeros.
    weights = encoder_weights(load_classifier(str(narrowed_dir)).model)
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    assert manifest["sparsity"] >= zeros / manifest["encoder_weights"]["model"] - 1e-12
    parity = manifest["parity"]
    assert parity["label_agreement"] >= parity["least_agreement"] == options.get("parity_agreement", 0.98)
    assert parity["tolerance"] == {"fp32": 1e-4, "fp16": 2e-2}.get(precision)
    assert parity["reference_accuracy"] > 0.6
    assert abs(parity["accuracy"] - parity["reference_accuracy"]) <= 1 - parity["least_agreement"]
    invariance = manifest["invariance"]
    assert (invariance["examples"], invariance["batch_size"]) == (64, 16)
    assert precision == "int8-dynamic" or invariance["batch_disagreement"] == 0
    assert (invariance["worst_batch_shift"] > 1e-3) == (precision == "int8-dynamic")
    assert bool(manifest["stored_sparsely"]) == ("storage" in options)
    kinds = {entry.data_type for entry in onnx.load(tmp_path / "artifact" / "model.onnx").graph.initializer}
    expected = {"fp32": "FLOAT", "fp16": "FLOAT16", "bf16": "BFLOAT16"}.get(precision, "INT8")
    assert onnx.TensorProto.DataType.Value(expected) in kinds
    if precision in ("fp16", "bf16"):
        assert onnx.TensorProto.FLOAT not in kinds
    if precision == "fp32":
        found = encoder_initializers(tmp_path / "artifact" / "model.onnx", BERT)
        nonzero = sum(int(weight.count_nonzero()) for weight in found.values())
        expected = 1 - nonzero / manifest["encoder_weights"]["model"]
        assert manifest["sparsity"] == pytest.approx(expected)


def test_a_graph_tells_of_itself(small_artifact_dir):
    model = onnx.load(small_artifact_dir / "model.onnx")
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["task"] == "text-classification"
    assert json.loads(facts["labels"]) == ["fresh", "rotten"]
    assert (facts["precision"], facts["pattern"], facts["sparsity"]) == ("fp32", "unstructured", "0.500000")
    lineage = read_manifest(small_artifact_dir)["lineage"]
    assert facts["weights_sha256"] == lineage["weights_sha256"]
    assert facts["dense_sha256"] == lineage["dense_sha256"]
    assert facts["torch"] == torch.__version__


def test_groups_are_not_split_by_cutting(narrowed_dir, tmp_path, critic_quotes):
    folder = tmp_path / "pruned"
    shutil.copytree(narrowed_dir, folder)
    record = json.loads((folder / "pruning.json").read_text())
    (folder / "pruning.json").write_text(json.dumps({**record, "pattern": "2:4"}))
    manifest = export(folder, tmp_path / "artifact", data=critic_quotes / "test.tsv")
    assert manifest["encoder_weights"]["graph"] == manifest["encoder_weights"]["model"]


def test_labels_that_do_not_agree_fail_the_export(small_pruned_dir, tmp_path, monkeypatch, critic_quotes):
    monkeypatch.setattr(
        graph_forms, "fit_scales", lambda model, *_: dict.fromkeys(encoder_weights(model.model), 10.0)
    )
    with pytest.raises(UserError, match=r"export failed: labels agree on .* of 20 texts, less than 98"):
        export(
            small_pruned_dir,
            tmp_path / "artifact",
            data=critic_quotes / "test.tsv",
            precision="int8-static",
        )
    assert not (tmp_path / "artifact").exists()


def test_a_record_that_names_no_file_asks_for_texts(small_classifier_dir, tmp_path):
    """As the runs of a soup have it."""
    folder = tmp_path / "run"
    shutil.copytree(small_classifier_dir, folder)
    record = json.loads((folder / "training.json").read_text())
    (folder / "training.json").write_text(json.dumps({**record, "data": "0" * 64}))
    with pytest.raises(UserError, match="give real texts with --data"):
        export(folder, tmp_path / "artifact")
