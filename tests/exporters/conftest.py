"""A very small classifier of random weights, 2:4 but for one layer, exported in float16."""

from pathlib import Path

import onnx
import pytest
import torch
from onnx import ModelProto
from transformers import BertConfig, BertForSequenceClassification

from compressor.classifier import Classifier, encoder_linears
from compressor.patterns import NM
from exporters.onnx import export_graph
from exporters.tensorrt import Profile

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
