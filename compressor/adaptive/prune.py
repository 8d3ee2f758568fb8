"""The adaptive walk: each sparse layer reproduces the dense model's output from drifted inputs."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compressor.adaptive.solvers import UnsolvableError, adapted_weight, damped, reconstruction_error, solve
from compressor.batching import encode
from compressor.calibration import LINEAR_GROUPS, Moments, SideBySide, calibration_batches
from compressor.classifier import Classifier, encoder_linears, linear_at
from compressor.console import Progress
from compressor.data import TextData
from compressor.errors import UserError
from compressor.pruning import LayerRecord, PruningJob, PruningResult

if TYPE_CHECKING:
    from transformers import BertForSequenceClassification

CALIBRATION_BATCH_SIZE = 32


@torch.no_grad()
def prune(classifier: Classifier, data: TextData, job: PruningJob, progress: Progress) -> PruningResult:
    """Prune layer by layer (Li et al., EMNLP 2023, algorithms 1 and 2); no training.

    For each linear layer in the order in which data flows: adaptive Hessian from the inputs that
    the pruned part feeds it (4.3.2), the adapted dense weight (4.3.3, eq. 5) and its bias, and the
    elimination. Pooler and classifier are re-solved for their drifted inputs at the end.
    """
    options = job.config.adaptive
    data = data.sample(job.config.calibration_examples, job.seed)
    encoded = encode(classifier.tokenizer, data, job.max_length)
    pad_token_id = int(classifier.tokenizer.pad_token_id)
    batches = calibration_batches(encoded, CALIBRATION_BATCH_SIZE, pad_token_id, classifier.device)
    dense = copy.deepcopy(classifier.model)
    walk = SideBySide(dense, classifier.model, batches)
    blocks = classifier.model.bert.encoder.layer
    names = {module: name for name, module in encoder_linears(classifier.model).items()}
    masks: dict[str, Tensor] = {}
    records: list[LayerRecord] = []
    steps = [(index, group) for index in range(len(blocks)) for group in LINEAR_GROUPS]
    for index, group in progress.track(steps, f"Pruning {len(blocks)} encoder layers"):
        linears = [linear_at(blocks[index], name) for name in group]
        moments = walk.moments(group[0])
        for record, mask in _solve_group(linears, moments, job, names):
            masks[record.name] = mask
            records.append(record)
        if group == LINEAR_GROUPS[-1]:
            walk.advance()
    if options.resolve_heads:
        _resolve_heads(classifier, dense, walk, options.damping)
    return PruningResult(masks, records, {"calibration_examples": len(data)})


def _solve_group(
    linears: list[nn.Linear], moments: Moments, job: PruningJob, names: dict[nn.Linear, str]
) -> list[tuple[LayerRecord, Tensor]]:
    """Prune linear layers that share their input; stacked, they share one factorisation too."""
    options = job.config.adaptive
    weight = torch.cat([linear.weight for linear in linears]).double()
    bias = torch.cat([linear.bias for linear in linears]).double()
    hessian, ridge = _damped(names[linears[0]], moments, options.damping)
    target = adapted_weight(weight, hessian, moments.centred_cross, ridge)
    pruned, mask = solve(target, hessian, job.pattern, options.solver, options.iterations)
    new_bias = weight @ moments.dense_mean + bias - pruned @ moments.pruned_mean
    sizes = [linear.out_features for linear in linears]
    parts = zip(*(t.split(sizes) for t in (pruned, mask, new_bias, target)), strict=True)
    solved = []
    for linear, (part, part_mask, part_bias, part_target) in zip(linears, parts, strict=True):
        linear.weight.copy_(part)
        linear.bias.copy_(part_bias)
        error_share = reconstruction_error(part, part_target, hessian)
        sparsity = 1.0 - float(part_mask.double().mean())
        solved.append((LayerRecord(names[linear], sparsity, error_share, ridge), part_mask))
    return solved


def _resolve_heads(
    classifier: Classifier, dense: BertForSequenceClassification, walk: SideBySide, damping: float
) -> None:
    """Re-solve pooler and classifier (eq. 5) for the [CLS] states that the pruned encoder yields."""
    dense_input, pruned_input = walk.first_tokens()
    pooler, dense_pooler = classifier.model.bert.pooler, dense.bert.pooler
    _resolve("bert.pooler.dense", pooler.dense, dense_input, pruned_input, damping)
    dense_input = dense_pooler.activation(dense_pooler.dense(dense_input))
    pruned_input = pooler.activation(pooler.dense(pruned_input))
    _resolve("classifier", classifier.model.classifier, dense_input, pruned_input, damping)


def _damped(name: str, moments: Moments, damping: float) -> tuple[Tensor, float]:
    try:
        return damped(moments.hessian, damping)
    except UnsolvableError as error:
        raise UserError(
            f"{name}: cannot be solved: {error}; use more calibration texts, or a larger --damping"
        ) from error


def _resolve(name: str, linear: nn.Linear, dense_input: Tensor, pruned_input: Tensor, damping: float) -> None:
    moments = Moments.zeros(linear.in_features, linear.weight.device)
    moments.add(dense_input, pruned_input)
    hessian, ridge = _damped(name, moments, damping)
    weight = linear.weight.double()
    target = adapted_weight(weight, hessian, moments.centred_cross, ridge)
    bias = weight @ moments.dense_mean + linear.bias.double() - target @ moments.pruned_mean
    linear.weight.copy_(target)
    linear.bias.copy_(bias)
