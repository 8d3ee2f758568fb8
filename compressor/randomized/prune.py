"""Randomized pruning: in each step draw candidates, score them early, recover the winner."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from compressor.adaptive.prune import rectify
from compressor.batching import encode
from compressor.checkpoint import Part
from compressor.classifier import Classifier, encoder_weights, linear_at
from compressor.console import Progress
from compressor.data import TextData
from compressor.errors import UserError
from compressor.patterns import MaskPattern, Unstructured
from compressor.predictors import TorchPredictor, predict_encoded
from compressor.pruning import LayerRecord, PruningJob, PruningResult
from compressor.randomized.candidates import (
    Masks,
    StepJob,
    Trials,
    draw_candidate,
    recovery_schedule,
    select,
)
from compressor.randomized.masks import step_patterns
from compressor.ranks import join_ranks
from compressor.recipe import RandomizedConfig
from compressor.training import TrainingSet, apply_masks, train

if TYPE_CHECKING:
    from transformers import BertForSequenceClassification

TEACHER_BATCH_SIZE = 64


def prune(classifier: Classifier, data: TextData, job: PruningJob, progress: Progress) -> PruningResult:
    """Prune in steps of rising sparsity (Li et al., Findings of EMNLP 2023).

    Each step draws `candidates` masks from the weights still alive, trains a copy of the model
    briefly with each, takes the one with the lowest loss on held-out texts, and recovers the model
    itself with that mask, distilling from the dense model. The held-out texts are a part of the
    calibration data that is not trained on. Finished steps are kept in the job's checkpoint. Under
    torchrun each rank scores its share of the candidates, and the first one recovers.
    """
    config = job.config.randomized
    pattern = _checked_pattern(job)
    training, holdout = _split(classifier, data, job, progress)
    dense = copy.deepcopy(classifier.model)
    patterns = step_patterns(pattern, config.steps, config.schedule)
    alive, records = _finished(classifier, job, len(patterns))
    for step in range(len(records), len(patterns)):
        name = f"Step {step + 1}/{len(patterns)} to {patterns[step].sparsity:.1%} sparsity"
        own = StepJob(step, len(patterns), patterns[step], config, job.seed)
        alive, record = _chosen(classifier, dense, alive, own, training, holdout, name, progress)
        records.append(record)
        _recover(classifier, dense, alive, training, data, job, step, name, progress)
        _keep(classifier, alive, records, job, step)
    layers = [LayerRecord(name, 1.0 - float(mask.double().mean())) for name, mask in alive.items()]
    details = {
        "steps": records,
        "training_examples": len(training.encoded),
        "holdout_examples": len(holdout.encoded),
        "training_steps": len(patterns) * config.recovery_steps
        + sum(len(losses) for record in records for losses in record["early_losses"]) * config.early_steps,
    }
    together = {tuple(alive): Unstructured(pattern.sparsity, "layer")} if _is_global(config) else {}
    return PruningResult(alive, layers, details, dict(together))


def _is_global(config: RandomizedConfig) -> bool:
    return config.mask_scope == "global"


def _checked_pattern(job: PruningJob) -> MaskPattern:
    """The job's pattern, for which zeros can be counted as its options say.

    Raises:
        UserError: over all matrices, where the pattern counts them in rows or groups.
    """
    pattern = job.mask_pattern
    if _is_global(job.config.randomized) and not (
        isinstance(pattern, Unstructured) and pattern.scope is None
    ):
        raise UserError(
            "mask scope global: zeros are counted over all matrices only with --pattern unstructured and "
            "without --scope; leave --mask-scope out, or those"
        )
    return pattern


def _chosen(
    classifier: Classifier,
    dense: BertForSequenceClassification,
    alive: Mapping[str, Tensor],
    own: StepJob,
    training: TrainingSet,
    holdout: TrainingSet,
    name: str,
    progress: Progress,
) -> tuple[Masks, dict[str, Any]]:
    """The masks of the step's best candidate, which are put on the model, and the step's record."""
    config = own.config
    if config.revive:
        _revive(classifier, dense, alive)
        alive = {key: torch.ones_like(mask) for key, mask in alive.items()}
    weights = encoder_weights(classifier.model)

    def draw(index: int) -> Masks:
        return draw_candidate(weights, alive, own, index)

    trials = Trials(classifier, draw, training, holdout, config, own.seed, keep=config.halving)
    best, losses = select(
        config.candidates,
        trials,
        join_ranks(),
        halving=config.halving,
        track=lambda indices: progress.track(indices, f"{name}: scoring masks"),
    )
    masks = draw(best)
    apply_masks(classifier.model, masks)
    return masks, {"sparsity": own.pattern.sparsity, "early_losses": losses, "chosen": best}


def _revive(
    classifier: Classifier, dense: BertForSequenceClassification, alive: Mapping[str, Tensor]
) -> None:
    """Give the weights that were zeroed the dense model's values, so that a mask may choose them."""
    with torch.no_grad():
        for name, mask in alive.items():
            weight = linear_at(classifier.model, name).weight
            weight.copy_(torch.where(mask, weight, linear_at(dense, name).weight))


def _recover(
    classifier: Classifier,
    dense: BertForSequenceClassification,
    masks: Masks,
    training: TrainingSet,
    data: TextData,
    job: PruningJob,
    step: int,
    name: str,
    progress: Progress,
) -> None:
    """Bring the model back with the masks fixed; the other ranks get what the first one made."""
    config = job.config.randomized
    ranks = join_ranks()
    if ranks.is_first:
        if config.rectify == "adaptive":
            rectify(classifier, dense, masks, data, job, progress)
        train(
            classifier,
            training,
            recovery_schedule(config, config.recovery_steps, config.learning_rate),
            seed=job.seed + step,
            masks=masks,
            track=lambda steps: progress.track(steps, f"{name}: recovery"),
        )
    ranks.copy_from_first(classifier.model)


def _key(step: int) -> str:
    return f"step-{step:04d}"


def _keep(
    classifier: Classifier, masks: Masks, records: list[dict[str, Any]], job: PruningJob, step: int
) -> None:
    """Keep the model behind a finished step, in place of the one before it."""
    if not join_ranks().is_first:
        return
    weights = {f"weight.{key}": value for key, value in classifier.model.state_dict().items()}
    kept = {f"mask.{key}": value for key, value in masks.items()}
    job.checkpoint.save(_key(step), Part(weights | kept, records))
    if step:
        job.checkpoint.remove(_key(step - 1))


def _finished(classifier: Classifier, job: PruningJob, steps: int) -> tuple[Masks, list[dict[str, Any]]]:
    """Masks and records behind the last finished step, whose weights are put into the model."""
    for step in reversed(range(steps)):
        part = job.checkpoint.load(_key(step), classifier.device)
        if part is not None:
            found: dict[str, Masks] = {"weight": {}, "mask": {}}
            for key, value in part.tensors.items():
                kind, _, name = key.partition(".")
                found[kind][name] = value
            classifier.model.load_state_dict(found["weight"])
            return found["mask"], part.facts
    weights = encoder_weights(classifier.model)
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}, []


def _split(
    classifier: Classifier, data: TextData, job: PruningJob, progress: Progress
) -> tuple[TrainingSet, TrainingSet]:
    """Training and held-out sets with the dense model's logits, drawn with the seed."""
    held = job.config.randomized.holdout_examples
    if held >= len(data):
        raise UserError(
            f"{data.source}: has {len(data)} examples, of which {held} would be held out; give more "
            f"calibration data, or a smaller --holdout-examples"
        )
    encoded = encode(classifier.tokenizer, data, job.max_length)
    logits = torch.from_numpy(
        predict_encoded(
            TorchPredictor(classifier),
            encoded,
            TEACHER_BATCH_SIZE,
            progress,
            "Dense model's logits to distil from",
        )
    )
    labels = torch.tensor(data.class_labels)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(job.seed)).tolist()

    def part(indices: list[int]) -> TrainingSet:
        return TrainingSet([encoded[i] for i in indices], labels[indices], logits[indices])

    return part(order[held:]), part(order[:held])
