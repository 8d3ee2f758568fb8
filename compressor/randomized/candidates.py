"""Mask candidates: draw several, look early, keep the best."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compressor.adversarial_training import perturbation_of
from compressor.classifier import Classifier, encoder_weights
from compressor.patterns import MaskPattern
from compressor.predictors import TorchPredictor, predict_encoded
from compressor.randomized.masks import draw_mask
from compressor.recipe import RandomizedConfig
from compressor.training import Schedule, TrainingSet, apply_masks, distillation_loss, train


@dataclass(frozen=True)
class Candidate:
    """One set of masks and its early score: loss on held-out data, lower is better."""

    index: int
    masks: dict[str, Tensor]
    loss: float


def draw_candidate(
    classifier: Classifier,
    alive: dict[str, Tensor],
    pattern: MaskPattern,
    config: RandomizedConfig,
    seed: int,
    step: int,
    index: int,
) -> dict[str, Tensor]:
    """The masks of candidate `index`; candidate 0 ranks by magnitude alone.

    The generator is seeded by (seed, step, index), so a candidate does not depend on those before it.
    """
    generator = torch.Generator(classifier.device)
    generator.manual_seed(int(np.random.SeedSequence((seed, step, index)).generate_state(1)[0]))
    ratio = 0.0 if index == 0 else config.sampling_ratio
    return {
        name: draw_mask(weight, alive[name], pattern, ratio, config.temperature, generator)
        for name, weight in encoder_weights(classifier.model).items()
    }


def early_loss(
    classifier: Classifier,
    masks: dict[str, Tensor],
    training: TrainingSet,
    holdout: TrainingSet,
    config: RandomizedConfig,
    seed: int,
) -> float:
    """Loss on held-out data after a short recovery at a raised learning rate, on a copy."""
    trial = Classifier(copy.deepcopy(classifier.model), classifier.tokenizer, classifier.source)
    schedule = recovery_schedule(config, config.early_steps, config.early_learning_rate)
    apply_masks(trial.model, masks)
    if config.early_steps:
        train(trial, training, schedule, seed=seed, masks=masks)
    return holdout_loss(trial, holdout, schedule)


def holdout_loss(classifier: Classifier, holdout: TrainingSet, schedule: Schedule) -> float:
    """The training loss on held-out data, without dropout."""
    logits = predict_encoded(TorchPredictor(classifier), holdout.encoded, schedule.batch_size)
    return float(
        distillation_loss(torch.from_numpy(logits), holdout.labels, holdout.teacher_logits, schedule)
    )


def recovery_schedule(config: RandomizedConfig, steps: int, learning_rate: float) -> Schedule:
    """How a candidate or a winner is trained."""
    return Schedule(
        steps=steps,
        learning_rate=learning_rate,
        batch_size=config.batch_size,
        distillation_weight=config.distillation_weight,
        distillation_temperature=config.distillation_temperature,
        perturbation=perturbation_of(config),
    )
