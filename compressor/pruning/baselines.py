"""Baselines with the interface of the published methods: magnitude, Wanda, SparseGPT.

All three prune with the inputs that the already pruned part of the model produces, as their authors
do; none re-solves for the dense model's outputs, and none trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressor.data.texts import TextData
from compressor.models.classifier import Classifier
from compressor.models.encoders.layout import LinearNames
from compressor.models.structure import head_size, linear_at, remove_heads, remove_neurons, set_neuron_count
from compressor.pruning.interface import Algorithm, PruningJob, PruningResult
from compressor.pruning.layerwise import damped_hessian
from compressor.pruning.patterns import Structured
from compressor.pruning.record import LayerRecord
from compressor.pruning.scores import Inputs, InputScores, WeightScores, prune_from_inputs
from compressor.pruning.solvers.solvers import column_sweep
from compressor.system.console import Progress

SPARSEGPT_DAMPING = 0.01


def magnitude(weight: Tensor) -> Tensor:
    """Score by `|w|`."""
    return weight.abs()


def wanda(weight: Tensor, inputs: Inputs) -> Tensor:
    """Score by `|w| * ||x||` (Sun et al., ICLR 2024, eq. 1)."""
    return weight.abs() * inputs.norms


@dataclass(frozen=True)
class _Magnitude(WeightScores):
    """Zeroes the smallest weights of each matrix, or takes out heads and neurons of small norm; no data."""

    takes_structured = True

    @torch.no_grad()
    def prune(
        self, classifier: Classifier, data: TextData, job: PruningJob, progress: Progress
    ) -> PruningResult:
        pattern = job.pattern
        if isinstance(pattern, Structured):
            return _smallest_structures(classifier, pattern)
        return super().prune(classifier, data, job, progress)


def _smallest_structures(classifier: Classifier, pattern: Structured) -> PruningResult:
    """Take out the heads and neurons whose weights, on the way in and out, have the smallest norm."""
    model, layout, records = classifier.model, classifier.layout, []
    names = layout.linears
    for index, block in enumerate(layout.blocks(model)):
        inputs = _side_by_side(names, block, names.heads_in)
        outputs = linear_at(block, names.attention_output).weight
        squares = inputs.square().sum(dim=1) + outputs.square().sum(dim=0)
        heads = squares.reshape(-1, head_size(model)).sum(dim=1)
        neurons = _side_by_side(names, block, (names.neurons_in,)).square().sum(dim=1)
        neurons += linear_at(block, names.neurons_out).weight.square().sum(dim=0)
        remove_heads(model, index, _smallest(heads, pattern))
        remove_neurons(model, index, _smallest(neurons, pattern))
        records += [LayerRecord(n, pattern.share) for group in layout.group_names(index) for n in group]
    set_neuron_count(model)
    return PruningResult({}, records)


def _side_by_side(names: LinearNames, block: nn.Module, linears: Sequence[str]) -> Tensor:
    """All weights of each dimension of a head, or of each neuron, in a row."""
    parts = [part for name in linears for part in linear_at(block, name).weight.chunk(names.parts(name))]
    return torch.cat(parts, dim=1)


def _smallest(squares: Tensor, pattern: Structured) -> list[int]:
    chosen: list[int] = squares.argsort(stable=True)[: pattern.removed_count(len(squares))].tolist()
    return chosen


class _SparseGpt(Algorithm):
    """One pass over the columns with optimal-brain-surgeon updates (Frantar & Alistarh, ICML 2023)."""

    def prune(
        self, classifier: Classifier, data: TextData, job: PruningJob, progress: Progress
    ) -> PruningResult:
        pattern = job.mask_pattern

        def solve(name: str, weight: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
            hessian, _ = damped_hessian(name, inputs.square, SPARSEGPT_DAMPING)
            return column_sweep(weight, hessian, pattern)

        return prune_from_inputs(classifier, data, job, progress, solve)


MAGNITUDE = _Magnitude(magnitude, scope="layer")
WANDA = InputScores(wanda)
SPARSEGPT = _SparseGpt()
