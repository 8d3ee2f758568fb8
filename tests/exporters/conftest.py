"""A very small classifier of random weights in float16, 2:4 but for one layer; a repository for Triton."""

from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto
from transformers import BertConfig, BertForSequenceClassification
from triton_server import OPTIONS, read_config

from compressor.models.classifier import Classifier, encoder_linears
from compressor.pruning.patterns import NM
from exporters.onnx import export_graph
from exporters.tensorrt.checks import static_checks
from exporters.tensorrt.profile import Profile
from exporters.triton.repository import TritonConfig, write_repository

POSITIONS = 64
DENSE_LAYER = "bert.encoder.layer.1.attention.self.value"


@pytest.fixture(scope="session")
def half_classifier() -> Classifier:
    """Two layers of width 64 in float16, whose encoder weights are 2:4 except those of `DENSE_LAYER`."""
    config = BertConfig(
        vocab_size=100,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=POSITIONS,
        attn_implementation="eager",
    )
    model = BertForSequenceClassification(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            # Biases too: the exporter merges tensors that are equal.
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
        for name, linear in encoder_linears(model).items():
            if name != DENSE_LAYER:
                linear.weight *= NM(2, 4).mask(linear.weight.abs())
    return Classifier(model.half(), None, "tiny")


@pytest.fixture(scope="session")
def half_graph_path(half_classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("half") / "model.onnx"
    export_graph(half_classifier, path)
    return path


@pytest.fixture
def half_graph(half_graph_path: Path) -> ModelProto:
    """A fresh copy of the graph, to be damaged at will."""
    return onnx.load(half_graph_path)


@pytest.fixture(scope="session")
def profile() -> Profile:
    return Profile(
        min_batch=1, opt_batch=8, max_batch=32, min_sequence=1, opt_sequence=32, max_sequence=POSITIONS
    )


@pytest.fixture
def failures(profile: Profile) -> Any:
    """A function: the findings of each check that fails, by the check's name."""

    def find(model, profile=profile, positions=POSITIONS):
        checks = static_checks(model, profile, positions)
        return {check.name: check.findings for check in checks if check.status == "fail"}

    return find


@pytest.fixture(scope="session")
def triton_repository(small_artifact_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small artifact as a model of ONNX Runtime, beside one that awaits its engine."""
    output = tmp_path_factory.mktemp("triton") / "repository"
    write_repository(small_artifact_dir, output, TritonConfig(**OPTIONS), force=False)
    return output


@pytest.fixture(scope="session")
def openvino_repository(openvino_artifact_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact for OpenVINO as a model of its backend."""
    output = tmp_path_factory.mktemp("triton_openvino") / "repository"
    write_repository(openvino_artifact_dir, output, TritonConfig(operator_threads=2), force=False)
    return output


@pytest.fixture(scope="session")
def triton_config(triton_repository: Path) -> Any:
    """What Triton is told of the model of ONNX Runtime, as its protobuf reads it."""
    return read_config(triton_repository / "models" / "critic-2_b")


@pytest.fixture(scope="session")
def triton_session(triton_repository: Path) -> onnxruntime.InferenceSession:
    """The graph of that model."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(triton_repository / "models/critic-2_b/3/model.onnx", options)
