"""The variants that a validation holds side by side: loaded, and what is known of them before they run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compressor.classifier import (
    WEIGHTS,
    encoder_weights,
    load_classifier,
    sparsity_of,
    weights_bytes,
    weights_fingerprint,
)
from compressor.environment import prepare, thread_count
from compressor.errors import UserError
from compressor.options import RunConfig
from compressor.predictors import ARTIFACT_GRAPH, OnnxPredictor, Predictor, TorchPredictor
from compressor.validation.flops import encoder_flops
from compressor.validation.report import FlopsFigures
from exporters.manifest import read_manifest
from exporters.onnx import encoder_initializers

ARTIFACT = "artifact"


@dataclass(frozen=True)
class Contents:
    """What a variant is made of.

    Attributes:
        size_bytes: of the weights (and graph) as stored.
        sparsity: share of zeros in the encoder's matrices, also of those that an artifact has no more.
        flops: of one text.
    """

    size_bytes: int
    sparsity: float
    flops: FlopsFigures


def load_predictor(name: str, directory: str, run: RunConfig, device: torch.device) -> Predictor:
    """What classifies with a variant: ONNX Runtime with the artifact, PyTorch with the others.

    Raises:
        UserError: it cannot be loaded.
    """
    if name == ARTIFACT:
        return OnnxPredictor(Path(directory), thread_count(run), device.type)
    return TorchPredictor(load_classifier(directory, device))


def load_variants(
    directories: Mapping[str, str], run: RunConfig, sequence_length: int
) -> tuple[dict[str, Predictor], dict[str, Contents]]:
    """Predictor and contents of each variant.

    Args:
        directories: directory or hub id of each variant, the dense model's first.
        sequence_length: tokens of the text whose operations are counted.

    Raises:
        UserError: one cannot be loaded.
    """
    device = prepare(run)
    predictors = {name: load_predictor(name, path, run, device) for name, path in directories.items()}
    contents = {}
    for name, directory in directories.items():
        size, weights = _stored(name, directory)
        # An artifact counts what was cut out of its graph as zeros too, which its manifest alone knows.
        sparsity = read_manifest(Path(directory))["sparsity"] if name == ARTIFACT else sparsity_of(weights)
        contents[name] = Contents(size, sparsity, encoder_flops(weights, 1, sequence_length))
    return predictors, contents


def _stored(name: str, directory: str) -> tuple[int, dict[str, Tensor]]:
    """Bytes of the weights (and graph), and the encoder's matrices by name."""
    if name == ARTIFACT:
        graph = Path(directory) / ARTIFACT_GRAPH
        return graph.stat().st_size, encoder_initializers(graph)
    classifier = load_classifier(directory)
    stored = Path(directory) / WEIGHTS
    # A hub id has no directory of ours; its weights are stored as they are in memory.
    size = stored.stat().st_size if stored.is_file() else weights_bytes(classifier)
    return size, encoder_weights(classifier.model)


def pruned_directory(artifact: Path, manifest: Mapping[str, Any]) -> Path | None:
    """The classifier that the artifact was exported from, if it is still where it was."""
    lineage = manifest.get("lineage", {})
    directory = (artifact / str(lineage.get("model", ""))).resolve()
    fingerprint = weights_fingerprint(str(directory))
    return directory if fingerprint and fingerprint == lineage.get("weights_sha256") else None


def check_same_labels(predictors: Mapping[str, Predictor], directories: Mapping[str, str]) -> None:
    """Raise a `UserError` unless all variants have the dense model's labels."""
    expected = predictors["dense"].label_names
    for name, predictor in predictors.items():
        if predictor.label_names != expected:
            raise UserError(
                f"{directories[name]}: its labels are {', '.join(predictor.label_names)}, those of "
                f"{directories['dense']} are {', '.join(expected)}; they are not of one model"
            )
