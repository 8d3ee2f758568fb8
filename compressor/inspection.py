"""What a model directory or an artifact holds: layers, zeros, patterns, records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from compressor.classifier import WEIGHTS, encoder_weights, load_classifier, sparsity_of
from compressor.output import read_json
from compressor.patterns import NM
from compressor.predictors import ARTIFACT_GRAPH
from compressor.pruning import PRUNING_RECORD
from exporters.manifest import MANIFEST, read_manifest
from exporters.onnx import encoder_initializers

KNOWN_GROUPS = (NM(1, 4), NM(2, 4), NM(4, 8), NM(32, 64))


def inspect_directory(directory: str) -> dict[str, Any]:
    """Facts on a classifier (directory or hub id) or an exported artifact, ready for JSON.

    An artifact's files are checked against its manifest first.

    Raises:
        UserError: neither of the two, or broken.
    """
    path = Path(directory)
    facts: dict[str, Any] = {"path": directory}
    if (path / MANIFEST).is_file() or (path / ARTIFACT_GRAPH).is_file():
        manifest = read_manifest(path)
        facts |= {"kind": "artifact", "labels": manifest["labels"], "parity": manifest["parity"]}
        facts["lineage"] = manifest["lineage"]
        weights = encoder_initializers(path / ARTIFACT_GRAPH)
        size = (path / ARTIFACT_GRAPH).stat().st_size
    else:
        classifier = load_classifier(directory)
        facts |= {"kind": "classifier", "labels": classifier.label_names}
        weights = encoder_weights(classifier.model)
        size = (path / WEIGHTS).stat().st_size if (path / WEIGHTS).is_file() else 0
        if (path / PRUNING_RECORD).is_file():
            record = read_json(path / PRUNING_RECORD)
            facts["pruning"] = {key: record[key] for key in ("algorithm", "pattern", "seconds", "seed")}
    facts |= {"size_bytes": size, "sparsity": sparsity_of(weights)}
    facts["layers"] = [_layer(name, weight) for name, weight in weights.items()]
    return facts


def _layer(name: str, weight: Tensor) -> dict[str, Any]:
    zeros = int((weight == 0).sum())
    return {
        "name": name,
        "shape": list(weight.shape),
        "zeros": zeros,
        "sparsity": zeros / weight.numel(),
        "patterns": [str(pattern) for pattern in KNOWN_GROUPS if _keeps_to(weight, pattern)],
    }


def _keeps_to(weight: Tensor, pattern: NM) -> bool:
    """Whether no group of `m` has more than `n` weights that are not zero."""
    if weight.shape[1] % pattern.m:
        return False
    groups = (weight != 0).reshape(weight.shape[0], -1, pattern.m)
    return bool((groups.sum(dim=2) <= pattern.n).all())
