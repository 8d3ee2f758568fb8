"""The variants that a validation holds side by side: loaded, and what is known of them before they run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from exporters.onnx import encoder_initializers

ARTIFACT = "artifact"


@dataclass(frozen=True)
class Contents:
    """Size of the weights (and graph) as stored, and the share of zeros in the encoder's matrices."""

    size_bytes: int
    sparsity: float


def load_variants(
    directories: Mapping[str, str], run: RunConfig
) -> tuple[dict[str, Predictor], dict[str, Contents]]:
    """Predictor and contents of each variant.

    Args:
        directories: directory or hub id of each variant, the dense model's first.

    Raises:
        UserError: one cannot be loaded, or they have not the same labels.
    """
    device = prepare(run)
    predictors: dict[str, Predictor] = {}
    contents = {}
    for name, directory in directories.items():
        if name == ARTIFACT:
            graph = Path(directory) / ARTIFACT_GRAPH
            predictors[name] = OnnxPredictor(Path(directory), thread_count(run), device.type)
            contents[name] = Contents(graph.stat().st_size, sparsity_of(encoder_initializers(graph)))
        else:
            classifier = load_classifier(directory, device)
            stored = Path(directory) / WEIGHTS
            # A hub id has no directory of ours; its weights are stored as they are in memory.
            size = stored.stat().st_size if stored.is_file() else weights_bytes(classifier)
            predictors[name] = TorchPredictor(classifier)
            contents[name] = Contents(size, sparsity_of(encoder_weights(classifier.model)))
    _check_labels(predictors, directories)
    return predictors, contents


def pruned_directory(artifact: Path, manifest: Mapping[str, Any]) -> Path | None:
    """The classifier that the artifact was exported from, if it is still where it was."""
    lineage = manifest.get("lineage", {})
    directory = (artifact / str(lineage.get("model", ""))).resolve()
    fingerprint = weights_fingerprint(str(directory))
    return directory if fingerprint and fingerprint == lineage.get("weights_sha256") else None


def _check_labels(predictors: Mapping[str, Predictor], directories: Mapping[str, str]) -> None:
    expected = predictors["dense"].label_names
    for name, predictor in predictors.items():
        if predictor.label_names != expected:
            raise UserError(
                f"{directories[name]}: its labels are {', '.join(predictor.label_names)}, those of "
                f"{directories['dense']} are {', '.join(expected)}; they are not of one model"
            )
