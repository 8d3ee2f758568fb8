"""Rivals for every table, under the interface of the published methods: magnitude, Wanda, SparseGPT.

All three prune with the inputs that the already pruned part of the model produces, as their authors
do; none re-solves for the dense model's outputs, and none trains.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from compressor.adaptive.solvers import damped, reconstruction_error
from compressor.batching import encode
from compressor.calibration import LINEAR_GROUPS, SideBySide, calibration_batches
from compressor.classifier import Classifier, encoder_linears, linear_at
from compressor.console import Progress
from compressor.data import TextData
from compressor.patterns import NM, Pattern, Unstructured, pruned_count
from compressor.pruning import LayerRecord, PruningJob, PruningResult

CALIBRATION_BATCH_SIZE = 32
SPARSEGPT_BLOCK = 128
SPARSEGPT_DAMPING = 0.01


@torch.no_grad()
def magnitude(classifier: Classifier, data: TextData, job: PruningJob, progress: Progress) -> PruningResult:
    """Zero the smallest weights of each matrix; needs no data."""
    del data
    masks, records = {}, []
    for name, linear in progress.track(encoder_linears(classifier.model).items(), "Pruning by magnitude"):
        masks[name] = job.pattern.mask(linear.weight.abs(), scope="layer")
        linear.weight *= masks[name]
        records.append(LayerRecord(name, 1.0 - float(masks[name].double().mean())))
    return PruningResult(masks, records)


def wanda(classifier: Classifier, data: TextData, job: PruningJob, progress: Progress) -> PruningResult:
    """Zero the smallest `|w| * ||x||` of each output row (Sun et al., ICLR 2024, eq. 1)."""

    def solve(weight: Tensor, square: Tensor) -> tuple[Tensor, Tensor]:
        mask = job.pattern.mask(weight.abs() * square.diagonal().sqrt())
        return weight * mask, mask

    return _layer_by_layer(classifier, data, job, progress, solve)


def sparsegpt(classifier: Classifier, data: TextData, job: PruningJob, progress: Progress) -> PruningResult:
    """One pass over the columns with optimal-brain-surgeon updates (Frantar & Alistarh, ICML 2023)."""

    def solve(weight: Tensor, square: Tensor) -> tuple[Tensor, Tensor]:
        hessian, _ = damped(square, SPARSEGPT_DAMPING)
        return sparsegpt_weight(weight, hessian, job.pattern)

    return _layer_by_layer(classifier, data, job, progress, solve)


def sparsegpt_weight(weight: Tensor, hessian: Tensor, pattern: Pattern) -> tuple[Tensor, Tensor]:
    """SparseGPT's sweep (algorithm 1 of its paper) on one matrix.

    Columns are taken from left to right. A column's dropped weights are compensated in the columns
    to its right, through the upper Cholesky factor U of H^-1. Masks are chosen block by block
    (unstructured: over the whole block, so that rows may differ; N:M: at each group's start), by
    `w^2 / U_jj^2`.

    Args:
        weight: `(out, in)`.
        hessian: `(in, in)`, positive definite, of weight's dtype.
        pattern: unstructured or N:M.

    Returns:
        The pruned weight, and its mask.
    """
    weight = weight.clone()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    upper = torch.linalg.cholesky(inverse, upper=True)
    out_features, in_features = weight.shape
    mask = torch.ones_like(weight, dtype=torch.bool)
    width = pattern.m if isinstance(pattern, NM) else SPARSEGPT_BLOCK
    for start in range(0, in_features, width):
        stop = min(start + width, in_features)
        block = slice(start, stop)
        scores = weight[:, block].square() / upper.diagonal()[block].square()
        if isinstance(pattern, Unstructured):
            # Cumulative counts make the layer's total exact whatever the block's share is.
            count = pruned_count(out_features * stop, pattern.sparsity)
            count -= pruned_count(out_features * start, pattern.sparsity)
            drop = scores.flatten().argsort(stable=True)[:count]
            mask[:, block] = (
                torch.ones(scores.numel(), dtype=torch.bool, device=weight.device)
                .scatter_(0, drop, False)
                .reshape(scores.shape)
            )
        else:
            mask[:, block] = pattern.mask(scores)
        for column in range(start, stop):
            dropped = weight[:, column] * ~mask[:, column]
            error = dropped / upper[column, column]
            weight[:, column + 1 :] -= error[:, None] * upper[column, column + 1 :]
            weight[:, column] -= dropped
    return weight * mask, mask


@torch.no_grad()
def _layer_by_layer(
    classifier: Classifier,
    data: TextData,
    job: PruningJob,
    progress: Progress,
    solve: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
) -> PruningResult:
    """Prune each linear layer from the second moments of its inputs behind the pruned part."""
    data = data.sample(job.config.calibration_examples, job.seed)
    encoded = encode(classifier.tokenizer, data, job.max_length)
    pad_token_id = int(classifier.tokenizer.pad_token_id)
    batches = calibration_batches(encoded, CALIBRATION_BATCH_SIZE, pad_token_id, classifier.device)
    walk = SideBySide(classifier.model, classifier.model, batches)
    blocks = classifier.model.bert.encoder.layer
    names = {module: name for name, module in encoder_linears(classifier.model).items()}
    masks: dict[str, Tensor] = {}
    records: list[LayerRecord] = []
    for block in progress.track(blocks, f"Pruning {len(blocks)} encoder layers"):
        for group in LINEAR_GROUPS:
            square = walk.moments(group[0]).square
            for linear_name in group:
                linear = linear_at(block, linear_name)
                weight = linear.weight.double()
                pruned, mask = solve(weight, square)
                linear.weight.copy_(pruned)
                masks[names[linear]] = mask
                error = reconstruction_error(pruned, weight, square)
                records.append(LayerRecord(names[linear], 1.0 - float(mask.double().mean()), error))
        walk.advance()
    return PruningResult(masks, records, {"calibration_examples": len(data)})
