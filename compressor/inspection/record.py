"""What the inspect stage returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from compressor.options import TaskName
from compressor.system.results import StageRecord


@dataclass(frozen=True)
class LayerFacts:
    """What one matrix of the encoder holds.

    Attributes:
        shape: rows and columns.
        zeros: their number.
        sparsity: their share, from 0 to 1.
        patterns: those of the known N:M patterns that the matrix keeps to.
    """

    name: str
    shape: list[int]
    zeros: int
    sparsity: float
    patterns: list[str]


class InspectRecord(StageRecord):
    """What a classifier or an artifact holds.

    Attributes:
        path: the directory, or the hub id.
        labels: class names, by index.
        parity: of an artifact, how far its answers are from PyTorch's.
        lineage: of an artifact, what it was made of.
        pruning: of a pruned classifier, how it was made.
        size_bytes: of the weights, or of the graph.
        sparsity: share of zeros in the encoder's matrices, from 0 to 1.
        layers: one record a matrix.
        knowledge: what is kept of a dense model, where one was given.
    """

    path: str
    kind: Literal["classifier", "artifact"]
    task: TaskName
    labels: list[str]
    parity: dict[str, Any] | None = None
    lineage: dict[str, Any] | None = None
    pruning: dict[str, Any] | None = None
    size_bytes: int
    sparsity: float
    layers: list[LayerFacts]
    knowledge: dict[str, Any] | None = None
