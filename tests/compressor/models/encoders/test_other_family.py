"""A family that an installed package brings along goes through all stages: nothing else names its parts."""

import json

import numpy as np
import pytest
import torch
from other_family import OTHER, OtherClassifier, install_family, make_other_checkpoint

from compressor.data.texts import load_text_data
from compressor.inspection.comparison import compare_directories
from compressor.inspection.texts import KnowledgeOptions
from compressor.models.classifier import encoder_linears, load_classifier
from compressor.models.manifest import read_artifact_manifest
from compressor.models.predictors import OnnxPredictor, TorchPredictor, predict
from compressor.options import AdaptiveConfig, ColumnsConfig, ExportConfig, PruneConfig, RunConfig
from compressor.pruning.interface import prune_directory
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from compressor.validation.measure.variants import load_variants
from exporters.stage import export_directory

COLUMNS, RUN = ColumnsConfig(max_length=16), RunConfig(device="cpu", threads=1)
QUIET = {"progress": SilentProgress()}


@pytest.fixture
def checkpoint(monkeypatch, tmp_path):
    install_family(monkeypatch)
    return make_other_checkpoint(tmp_path / "model")


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "data.tsv"
    path.write_text("text\tlabel\n" + "a fine film\tpos\ndull story and empty charm of a film\tneg\n" * 8)
    return path


def prune(checkpoint, texts, output, **options):
    config = PruneConfig(calibration_examples=16, adaptive=AdaptiveConfig(iterations=2), **options)
    prune_directory(
        str(checkpoint), str(texts), config, Context(output=output, columns=COLUMNS, run=RUN, **QUIET)
    )
    return output


def test_a_classifier_of_it_is_loaded_with_its_own_class(checkpoint):
    classifier = load_classifier(str(checkpoint))
    assert type(classifier.model) is OtherClassifier
    assert classifier.layout is OTHER
    assert list(encoder_linears(classifier.model))[:2] == [
        "core.encoder.layer.0.attention.self.query",
        "core.encoder.layer.0.attention.self.key",
    ]


@pytest.mark.parametrize(
    ("pattern", "algorithm"),
    [("unstructured", "adaptive"), ("structured", "adaptive"), ("structured", "magnitude")],
)
def test_it_is_pruned_exported_and_measured(checkpoint, texts, tmp_path, pattern, algorithm):
    pruned = prune(checkpoint, texts, tmp_path / "pruned", pattern=pattern, algorithm=algorithm, sparsity=0.5)
    artifact = tmp_path / "artifact"
    options = ExportConfig(parity_examples=16)
    record = export_directory(
        str(pruned), str(texts), options, Context(output=artifact, columns=COLUMNS, run=RUN, **QUIET)
    )
    assert all(name.startswith("core.encoder.layer.") for name in record.layers)
    bom = json.loads((artifact / "bom.cdx.json").read_text())["metadata"]["component"]
    assert bom["modelCard"]["modelParameters"]["modelArchitecture"] == "OtherClassifier"
    data = load_text_data(str(texts), COLUMNS, "test")
    expected = predict(TorchPredictor(load_classifier(str(pruned))), data, 16)
    assert np.abs(expected - predict(OnnxPredictor(artifact, 1, "cpu"), data, 16)).max() < 1e-4
    classifiers = {"dense": str(checkpoint), "pruned": str(pruned)}
    _, contents = load_variants(classifiers, artifact, read_artifact_manifest(artifact), RUN, 8)
    assert contents["pruned"].flops.nonzero_weights < contents["dense"].flops.nonzero_weights


def test_it_is_compared_layer_by_layer(checkpoint, texts, tmp_path):
    pruned = prune(checkpoint, texts, tmp_path / "pruned", sparsity=0.5)
    options = KnowledgeOptions(against=str(checkpoint), data=str(texts), sentence="a fine film")
    device = torch.device("cpu")
    found = compare_directories(str(pruned), options, COLUMNS, RUN, device, SilentProgress())
    rows = found["sets"]["clean"]["reconstruction"]
    assert [row["layer"] for row in rows] == [1] * 6 + [2] * 6
    assert rows[0]["matrix"] == "query"
