"""Randomized pruning: in each step draw candidates, score them early, recover the winner."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from compressor.batching import encode
from compressor.classifier import Classifier, encoder_weights
from compressor.console import Progress
from compressor.data import TextData
from compressor.errors import UserError
from compressor.predictors import TorchPredictor, predict_encoded
from compressor.pruning import LayerRecord, PruningJob, PruningResult
from compressor.randomized.candidates import Candidate, draw_candidate, early_loss, recovery_schedule
from compressor.randomized.masks import step_patterns
from compressor.recipe import RandomizedConfig
from compressor.training import TrainingSet, train

TEACHER_BATCH_SIZE = 64


def prune(classifier: Classifier, data: TextData, job: PruningJob, progress: Progress) -> PruningResult:
    """Prune in steps of rising sparsity (Li et al., Findings of EMNLP 2023).

    Each step draws `candidates` masks from the weights still alive, trains a copy of the model
    briefly with each, takes the one with the lowest loss on held-out texts, and recovers the model
    itself with that mask, distilling from the dense model. The held-out texts are a part of the
    calibration data that is not trained on.
    """
    config = job.config.randomized
    training, holdout = _split(classifier, data, job, progress)
    alive = {
        name: torch.ones_like(w, dtype=torch.bool) for name, w in encoder_weights(classifier.model).items()
    }
    patterns = step_patterns(job.mask_pattern, config.steps, config.schedule)
    steps: list[dict[str, Any]] = []
    for step, pattern in enumerate(patterns):
        name = f"Step {step + 1}/{len(patterns)} to {pattern.sparsity:.1%} sparsity"
        candidates = []
        for index in progress.track(range(config.candidates), f"{name}: scoring masks"):
            masks = draw_candidate(classifier, alive, pattern, config, job.seed, step, index)
            # All candidates train on the same batches: they differ by their masks alone.
            loss = early_loss(classifier, masks, training, holdout, config, job.seed)
            candidates.append(Candidate(index, masks, loss))
        best = min(candidates, key=lambda candidate: candidate.loss)
        alive = best.masks
        _recover(classifier, alive, training, config, job.seed + step, name, progress)
        steps.append(
            {
                "sparsity": pattern.sparsity,
                "early_losses": [round(c.loss, 6) for c in candidates],
                "chosen": best.index,
            }
        )
    layers = [LayerRecord(name, 1.0 - float(mask.double().mean())) for name, mask in alive.items()]
    details = {
        "steps": steps,
        "training_examples": len(training.encoded),
        "holdout_examples": len(holdout.encoded),
        "training_steps": len(patterns) * (config.recovery_steps + config.candidates * config.early_steps),
    }
    return PruningResult(alive, layers, details)


def _recover(
    classifier: Classifier,
    masks: dict[str, Tensor],
    training: TrainingSet,
    config: RandomizedConfig,
    seed: int,
    name: str,
    progress: Progress,
) -> None:
    train(
        classifier,
        training,
        recovery_schedule(config, config.recovery_steps, config.learning_rate),
        seed=seed,
        masks=masks,
        track=lambda steps: progress.track(steps, f"{name}: recovery"),
    )


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
