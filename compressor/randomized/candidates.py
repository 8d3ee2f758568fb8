"""Mask candidates: draw several, look early, keep the best."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from compressor.adversarial_training import perturbation_of
from compressor.classifier import Classifier
from compressor.patterns import MaskPattern
from compressor.predictors import TorchPredictor, predict_encoded
from compressor.randomized.masks import draw_masks, step_sampling_ratio
from compressor.ranks import Ranks
from compressor.recipe import RandomizedConfig
from compressor.training import Schedule, TrainingSet, apply_masks, distillation_loss, train

Masks: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True)
class StepJob:
    """What a pruning step draws its candidates for.

    Attributes:
        step: counted from 0, of `steps`.
        pattern: that the masks of this step meet.
        seed: of the whole run.
    """

    step: int
    steps: int
    pattern: MaskPattern
    config: RandomizedConfig
    seed: int


def draw_candidate(
    weights: Mapping[str, Tensor], alive: Mapping[str, Tensor], job: StepJob, index: int
) -> Masks:
    """The masks of candidate `index`; candidate 0 ranks by magnitude alone.

    The generator is seeded by (seed, step, index), so a candidate depends neither on those before it nor
    on the process or device that draws it.
    """
    generator = torch.Generator()
    generator.manual_seed(int(np.random.SeedSequence((job.seed, job.step, index)).generate_state(1)[0]))
    config = job.config
    ratio = step_sampling_ratio(config.sampling_ratio, job.step, job.steps, config.sampling_schedule)
    return draw_masks(
        weights,
        alive,
        job.pattern,
        0.0 if index == 0 else ratio,
        config.temperature,
        generator,
        together=config.mask_scope == "global",
    )


class Trials:
    """Early evaluation: copies of a model, each trained briefly with a candidate's masks.

    Args:
        classifier: the model of which copies are trained; its weights are those that masks choose from.
        draw: the masks of a candidate.
        keep: whether copies are trained on in later rounds.
    """

    def __init__(
        self,
        classifier: Classifier,
        draw: Callable[[int], Masks],
        training: TrainingSet,
        holdout: TrainingSet,
        config: RandomizedConfig,
        seed: int,
        *,
        keep: bool,
    ) -> None:
        self._classifier = classifier
        self._draw = draw
        self._training = training
        self._holdout = holdout
        self._schedule = recovery_schedule(config, config.early_steps, config.early_learning_rate)
        self._seed = seed
        self._kept: dict[int, Classifier] | None = {} if keep else None

    def loss(self, index: int, round_: int) -> float:
        """Loss of a candidate on held-out data, after its training in that round.

        All candidates train on the same batches: they differ by their masks alone.
        """
        masks = self._draw(index)
        trial = (self._kept or {}).get(index)
        if trial is None:
            model = copy.deepcopy(self._classifier.model)
            trial = Classifier(model, self._classifier.tokenizer, self._classifier.source)
            apply_masks(trial.model, masks)
        if self._schedule.steps:
            train(trial, self._training, self._schedule, seed=self._seed + round_, masks=masks)
        if self._kept is not None:
            self._kept[index] = trial
        return holdout_loss(trial, self._holdout, self._schedule)

    def drop(self, index: int) -> None:
        """Free the copy of a candidate that is out."""
        if self._kept is not None:
            self._kept.pop(index, None)


def select(
    count: int,
    trials: Trials,
    ranks: Ranks,
    *,
    halving: bool,
    track: Callable[[Sequence[int]], Iterator[int]] = iter,
) -> tuple[int, list[dict[str, float]]]:
    """The best of `count` candidates, and the losses of each round by the candidate's number.

    Args:
        ranks: each scores its share.
        halving: in each round the worse half goes, until one is left; otherwise there is one round.
        track: shows progress over a round's candidates.
    """
    left = list(range(count))
    rounds: list[dict[str, float]] = []
    for round_ in range(max(1, math.ceil(math.log2(count))) if halving else 1):
        # Always the same ones: a rank has the copies that it trained in the rounds before.
        own = [index for index in left if index % ranks.world == ranks.rank]
        losses = ranks.share({str(index): trials.loss(index, round_) for index in track(own)})
        rounds.append({str(index): round(losses[str(index)], 6) for index in left})
        ranked = sorted(left, key=lambda index: (losses[str(index)], index))
        survivors = ranked[: math.ceil(len(ranked) / 2)] if halving else ranked[:1]
        for index in set(left) - set(survivors):
            trials.drop(index)
        left = sorted(survivors)
        best = ranked[0]
    return best, rounds


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
