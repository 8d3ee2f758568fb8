"""Rivals for every table, under the interface of the published methods: magnitude, Wanda, SparseGPT.

All three prune with the inputs that the already pruned part of the model produces, as their authors
do; none re-solves for the dense model's outputs, and none trains.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.data.texts import TextData
from compressor.models.classifier import Classifier, encoder_linears
from compressor.models.structure import head_size, remove_heads, remove_neurons, set_intermediate_size
from compressor.pruning.interface import LayerRecord, PruningJob, PruningResult
from compressor.pruning.layerwise import (
    GroupSolver,
    LinearGroup,
    Solution,
    damped_hessian,
    group_names,
    prune_layerwise,
)
from compressor.pruning.patterns import Structured
from compressor.pruning.solvers.solvers import column_sweep, reconstruction_error
from compressor.pruning.walk import Moments
from compressor.system.console import Progress
from compressor.training.loop import apply_masks

SPARSEGPT_DAMPING = 0.01


@torch.no_grad()
def magnitude(classifier: Classifier, data: TextData, job: PruningJob, progress: Progress) -> PruningResult:
    """Zero the smallest weights of each matrix, or take out heads and neurons of small norm; no data."""
    del data
    pattern = job.pattern
    if isinstance(pattern, Structured):
        return _smallest_structures(classifier, pattern)
    masks, records = {}, []
    for name, linear in progress.track(encoder_linears(classifier.model).items(), "Pruning by magnitude"):
        masks[name] = pattern.mask(linear.weight.abs(), scope="layer")
        records.append(LayerRecord(name, 1.0 - float(masks[name].double().mean())))
    apply_masks(classifier.model, masks)
    return PruningResult(masks, records)


def _smallest_structures(classifier: Classifier, pattern: Structured) -> PruningResult:
    """Take out the heads and neurons whose weights, on the way in and out, have the smallest norm."""
    model, records = classifier.model, []
    for index, layer in enumerate(model.bert.encoder.layer):
        attention = layer.attention.self
        inputs = torch.cat([attention.query.weight, attention.key.weight, attention.value.weight], dim=1)
        squares = inputs.square().sum(dim=1) + layer.attention.output.dense.weight.square().sum(dim=0)
        heads = squares.reshape(-1, head_size(model)).sum(dim=1)
        neurons = layer.intermediate.dense.weight.square().sum(dim=1)
        neurons += layer.output.dense.weight.square().sum(dim=0)
        remove_heads(model, index, _smallest(heads, pattern))
        remove_neurons(model, index, _smallest(neurons, pattern))
        records += [LayerRecord(name, pattern.sparsity) for names in group_names(index) for name in names]
    set_intermediate_size(model)
    return PruningResult({}, records)


def _smallest(squares: Tensor, pattern: Structured) -> list[int]:
    chosen: list[int] = squares.argsort(stable=True)[: pattern.removed_count(len(squares))].tolist()
    return chosen


def wanda(classifier: Classifier, data: TextData, job: PruningJob, progress: Progress) -> PruningResult:
    """Zero the smallest `|w| * ||x||` of each output row (Sun et al., ICLR 2024, eq. 1)."""

    pattern = job.mask_pattern

    def solve(name: str, weight: Tensor, square: Tensor) -> tuple[Tensor, Tensor]:
        del name
        mask = pattern.mask(weight.abs() * square.diagonal().sqrt())
        return weight * mask, mask

    return _layer_by_layer(classifier, data, job, progress, solve)


def sparsegpt(classifier: Classifier, data: TextData, job: PruningJob, progress: Progress) -> PruningResult:
    """One pass over the columns with optimal-brain-surgeon updates (Frantar & Alistarh, ICML 2023)."""

    pattern = job.mask_pattern

    def solve(name: str, weight: Tensor, square: Tensor) -> tuple[Tensor, Tensor]:
        hessian, _ = damped_hessian(name, square, SPARSEGPT_DAMPING)
        return column_sweep(weight, hessian, pattern)

    return _layer_by_layer(classifier, data, job, progress, solve)


@dataclass(frozen=True)
class _FromSquare(GroupSolver):
    """Solves each layer on its own by a function of its weight and `Xh^T Xh`, float64; biases stay."""

    solve_weight: Callable[[str, Tensor, Tensor], tuple[Tensor, Tensor]]

    def solve(self, group: LinearGroup, moments: Moments) -> Solution:
        weights, masks, records = [], [], []
        for name, linear in zip(group.names, group.linears, strict=True):
            weight = linear.weight.double()
            pruned, mask = self.solve_weight(name, weight, moments.square)
            error_share = reconstruction_error(pruned, weight, moments.square)
            weights.append(pruned.to(linear.weight.dtype))
            masks.append(mask)
            records.append(LayerRecord(name, 1.0 - float(mask.double().mean()), error_share))
        return Solution(weights, [linear.bias.clone() for linear in group.linears], masks, records)


def _layer_by_layer(
    classifier: Classifier,
    data: TextData,
    job: PruningJob,
    progress: Progress,
    solve_weight: Callable[[str, Tensor, Tensor], tuple[Tensor, Tensor]],
) -> PruningResult:
    """Prune each linear layer from the second moments of its inputs behind the pruned part."""
    found = prune_layerwise(classifier, data, job, _FromSquare(solve_weight), progress, dense=None)
    return PruningResult(found.masks, found.records, {"calibration_examples": found.examples})
