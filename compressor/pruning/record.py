"""What the prune stage returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.options import AlgorithmName
from compressor.system.results import StageRecord


@dataclass(frozen=True)
class LayerRecord:
    """What was done to one linear layer.

    Attributes:
        relative_error: reconstruction error relative to the output's energy, where it is measured.
        ridge: what was added to the Hessian's diagonal, where there is one.
    """

    name: str
    sparsity: float
    relative_error: float | None = None
    ridge: float | None = None


class PruneRecord(StageRecord):
    """A pruned classifier: the content of `pruning.json`, its directory and its weights.

    Attributes:
        pattern: as options write it, such as `2:4`.
        sparsity: share of zeros in the encoder's matrices, from 0 to 1.
        seconds: that the algorithm took.
        layers: one record a linear layer.
        details: facts of the algorithm's own.
        options: the section `prune` of a recipe.
        model: source and SHA-256 of the dense classifier.
        data: source, fingerprint and columns of the calibration texts.
        substitution_vectors: whose neighbours replaced words; None where none did.
        substitution_synonyms: that replaced words; None where none did.
        environment: machine and versions.
        began_on: machines on which earlier parts were made, if there were others.
        path: the directory of the pruned classifier.
        sha256: of its weights.
    """

    algorithm: AlgorithmName
    pattern: str
    sparsity: float
    seconds: float
    layers: list[LayerRecord]
    details: dict[str, Any]
    options: dict[str, Any]
    seed: int
    model: dict[str, Any]
    data: dict[str, Any]
    substitution_vectors: str | None
    substitution_synonyms: str | None = None
    environment: dict[str, Any]
    began_on: list[dict[str, Any]] | None = None
    path: Path
    sha256: str | None
