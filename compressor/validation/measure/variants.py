"""Load the variants of a validation and describe their contents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.errors import UserError
from compressor.models.artifact_files import ARTIFACT_GRAPH
from compressor.models.classifier import (
    encoder_weights,
    load_classifier,
    sparsity_of,
    weights_fingerprint,
)
from compressor.models.loading import layout_of_source
from compressor.models.predictors import Predictor, TorchPredictor
from compressor.models.runtimes import runtime_of
from compressor.options import RunConfig
from compressor.system.environment import prepare, thread_count
from compressor.validation.measure.flops import encoder_flops
from compressor.validation.schema import FlopsFigures
from exporters.onnx import encoder_initializers
from exporters.sizes import Part, SizeByPart, classifier_size, graph_size, parts_of

ARTIFACT = "artifact"


@dataclass(frozen=True)
class Contents:
    """Contents of a variant.

    Attributes:
        size: of the weights (and graph) as stored, and of the tokenizer.
        sparsity: share of zeros in the encoder's matrices, also of those that an artifact has no more.
        flops: of one text.
    """

    size: SizeByPart
    sparsity: float
    flops: FlopsFigures


def load_variants(
    classifiers: Mapping[str, str],
    artifact: Path,
    manifest: Mapping[str, Any],
    run: RunConfig,
    sequence_length: int,
    lengths: Mapping[str, int | None] | None = None,
) -> tuple[dict[str, Predictor], dict[str, Contents]]:
    """Predictor and contents of each variant; PyTorch runs classifiers, its own runtime the artifact.

    Args:
        classifiers: directory or hub id of each variant that is a classifier, the dense model's first.
        manifest: of the artifact; its sparsity counts what was cut out of the graph as zeros too.
        sequence_length: tokens of the text whose operations are counted.
        lengths: tokens of the inputs that all are to take, by the name of their option.

    Raises:
        UserError: one cannot be loaded.
    """
    device = prepare(run)
    predictors: dict[str, Predictor] = {}
    contents: dict[str, Contents] = {}
    parts: dict[str, Part] = {}
    for name, directory in classifiers.items():
        classifier = load_classifier(directory, device, lengths=lengths)
        predictors[name] = TorchPredictor(classifier)
        weights = encoder_weights(classifier.model)
        flops = encoder_flops(classifier.layout, weights, 1, sequence_length)
        contents[name] = Contents(classifier_size(classifier), sparsity_of(weights), flops)
        # Of one model, so the names are the same.
        parts = parts_of(classifier)
    runtime, graph = runtime_of(artifact, manifest), artifact / ARTIFACT_GRAPH
    predictors[ARTIFACT] = runtime(artifact, thread_count(run), device.type, lengths=lengths)
    layout = layout_of_source(str(artifact))
    flops = encoder_flops(layout, encoder_initializers(graph, layout), 1, sequence_length)
    size = graph_size(graph, parts, predictors[ARTIFACT].tokenizer)
    contents[ARTIFACT] = Contents(size, manifest["sparsity"], flops)
    return predictors, contents


def pruned_directory(artifact: Path, manifest: Mapping[str, Any]) -> Path | None:
    """Return the directory of the classifier that the artifact was exported from, if it still exists."""
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
