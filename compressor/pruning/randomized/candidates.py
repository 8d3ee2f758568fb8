"""Mask candidates: draw several, look early, keep the best."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias

import numpy as np
import torch
from torch import Tensor

from compressor.errors import UserError
from compressor.models.classifier import Classifier
from compressor.options import RandomizedConfig
from compressor.pruning.patterns import MaskPattern
from compressor.pruning.randomized.holdout import Holdout, candidate_cost
from compressor.pruning.randomized.masks import (
    candidate_share,
    draw_mask,
    draw_masks,
    step_candidates,
    step_sampling_ratio,
)
from compressor.system.checkpoint import Checkpoint, Part
from compressor.system.ranks import Ranks
from compressor.training.freelb import perturbation_of
from compressor.training.loop import TrainingSet, train
from compressor.training.schedule import Schedule

if TYPE_CHECKING:
    from transformers import PreTrainedModel

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

    @property
    def candidates(self) -> int:
        """How many masks are drawn."""
        config = self.config
        return step_candidates(config.candidates, self.step, self.steps, config.candidate_schedule)


def step_settings(config: RandomizedConfig, steps: int) -> list[RandomizedConfig]:
    """The options of each pruning step, of which the learning rates may be its own.

    Raises:
        UserError: there are more or fewer rates than steps.
    """
    rates = config.step_learning_rates
    if rates is None:
        return [config] * steps
    if len(rates) != steps:
        raise UserError(
            f"step learning rates {', '.join(f'{rate:g}' for rate in rates)}: there are {steps} pruning "
            f"steps; give --step-learning-rates once for each"
        )
    raised = config.early_learning_rate / config.learning_rate
    return [
        config.model_copy(update={"learning_rate": rate, "early_learning_rate": raised * rate})
        for rate in rates
    ]


def all_alive(weights: Mapping[str, Tensor]) -> Masks:
    """The masks of matrices of which nothing is pruned."""
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}


def draw_candidate(
    weights: Mapping[str, Tensor], alive: Mapping[str, Tensor], job: StepJob, index: int
) -> Masks:
    """The masks of candidate `index`; candidate 0 ranks by magnitude alone."""
    ratio, generator = _chance(job, index)
    together = job.config.mask_scope == "global"
    return draw_masks(
        weights, alive, job.pattern, ratio, job.config.temperature, generator, together=together
    )


def draw_by_saliency(job: StepJob, index: int) -> Callable[[Tensor, MaskPattern], Tensor]:
    """How candidate `index` draws a mask from saliencies `(out, in)`; candidate 0 ranks by them alone.

    To be asked for one matrix after the other, always in the same order.
    """
    ratio, generator = _chance(job, index)

    def draw(saliency: Tensor, pattern: MaskPattern) -> Tensor:
        alive = torch.ones_like(saliency, dtype=torch.bool)
        return draw_mask(saliency, alive, pattern, ratio, job.config.temperature, generator)

    return draw


def _chance(job: StepJob, index: int) -> tuple[float, torch.Generator]:
    """The share that a candidate draws, and its generator.

    This is seeded by (seed, step, index), so a candidate depends neither on those before it nor on the
    process or device that draws it.
    """
    generator = torch.Generator()
    generator.manual_seed(int(np.random.SeedSequence((job.seed, job.step, index)).generate_state(1)[0]))
    config = job.config
    ratio = step_sampling_ratio(config.sampling_ratio, job.step, job.steps, config.sampling_schedule)
    return ratio * candidate_share(index, job.candidates, config.candidate_ratios), generator


@dataclass(frozen=True)
class Start:
    """What a candidate's training starts from.

    Attributes:
        state: the model's weights, those of the masks' zeros being zero.
        masks: by matrix, True where a weight is kept.
    """

    state: dict[str, Tensor]
    masks: Masks


class Trials:
    """Early evaluation: one copy of a model, trained briefly with each candidate's masks in turn.

    What is needed again of a candidate is in files of a temporary folder, which ends with the `with` block:
    memory holds the copy alone, however many candidates there are.

    Args:
        classifier: the model that is copied; its weights are those that masks choose from.
        begin: draws a candidate's masks, puts them on the copy, and returns them.
        teacher: the dense model, whose hidden states may be learnt.
        keep: whether they are trained on in later rounds; if not, only the best start so far is kept.
    """

    def __init__(
        self,
        classifier: Classifier,
        begin: Callable[[int, Classifier], Masks],
        training: TrainingSet,
        holdout: Holdout,
        config: RandomizedConfig,
        seed: int,
        *,
        teacher: PreTrainedModel,
        keep: bool,
    ) -> None:
        self._classifier = classifier
        self._begin = begin
        self._training = training
        self._holdout = holdout
        self._config = config
        self._teacher = teacher
        self._schedule = recovery_schedule(config, config.early_steps, config.early_learning_rate)
        self._seed = seed
        self._keep = keep
        self._best: tuple[float, int] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="compress-candidates-")
        self._files = Checkpoint(Path(self._folder.name))
        model = copy.deepcopy(classifier.model)
        self._trial = Classifier(model, classifier.tokenizer, classifier.source)
        self._matrices: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def cost(self, index: int, round_: int) -> float:
        """What a candidate costs on held-out data, after its training in that round.

        Infinite, if that training diverged.

        All candidates train on the same batches: they differ by their masks alone.

        Raises:
            UserError: there is no space for what is kept of it.
        """
        masks = self._go_on(index) if round_ else self._begin_anew(index)
        if self._schedule.steps:
            train(
                self._trial,
                self._training,
                self._schedule,
                seed=self._seed + round_,
                masks=masks,
                teacher=self._teacher,
            )
        cost = candidate_cost(self._trial, self._holdout, self._config, self._schedule)
        cost = math.inf if math.isnan(cost) else cost
        if self._keep:
            self._files.save(_trained(index), Part(self._trial.model.state_dict()))
        elif self._best is None or cost < self._best[0]:
            if self._best is not None:
                self.drop(self._best[1])
            self._best = cost, index
        else:
            self.drop(index)
        return cost

    def start(self, index: int) -> Start:
        """What the training of a candidate that is still in started from."""
        return Start(self._load(_started(index)), self._load_masks(index))

    def _begin_anew(self, index: int) -> Masks:
        model = self._trial.model
        model.load_state_dict(self._classifier.model.state_dict())
        masks = self._begin(index, self._trial)
        self._matrices = list(masks)
        self._files.save(_started(index), Part(model.state_dict()))
        self._files.save(_masks(index), Part(masks))
        return masks

    def _go_on(self, index: int) -> Masks:
        self._trial.model.load_state_dict(self._load(_trained(index)))
        return self._load_masks(index)

    def _load_masks(self, index: int) -> Masks:
        masks = self._load(_masks(index))
        # A file sorts by name; ranks exchange masks in the order of the matrices.
        return {name: masks[name] for name in self._matrices}

    def _load(self, name: str) -> dict[str, Tensor]:
        part = self._files.load(name, self._trial.device)
        if part is None:
            raise KeyError(f"{name}: of a candidate that is out, or that another rank has")
        return part.tensors

    def drop(self, index: int) -> None:
        """Free what is kept of a candidate that is out."""
        for name in (_started(index), _masks(index), _trained(index)):
            self._files.remove(name)


def _started(index: int) -> str:
    return f"{index}-started"


def _masks(index: int) -> str:
    return f"{index}-masks"


def _trained(index: int) -> str:
    return f"{index}-trained"


def select(
    count: int,
    trials: Trials,
    ranks: Ranks,
    *,
    halving: bool,
    track: Callable[[Sequence[int]], Iterator[int]] = iter,
) -> tuple[int, list[dict[str, float | None]]]:
    """The best of `count` candidates, and the costs of each round by the candidate's number.

    The cost of one that diverged is None.

    Args:
        ranks: each scores its share.
        halving: in each round the worse half goes, until one is left; otherwise there is one round.
        track: shows progress over a round's candidates.

    Raises:
        UserError: no candidate's cost is a finite number.
    """
    left = list(range(count))
    rounds: list[dict[str, float | None]] = []
    for round_ in range(max(1, math.ceil(math.log2(count))) if halving else 1):
        # Always the same ones: a rank has the copies that it trained in the rounds before.
        own = [index for index in left if ranks.owner(index) == ranks.rank]
        costs = ranks.share({str(index): trials.cost(index, round_) for index in track(own)})
        if min(costs.values()) == math.inf:
            raise UserError(
                "candidates: the early training of each one diverged, so that none can be chosen; lower "
                "--early-learning-rate"
            )
        # JSON has no infinity.
        rounds.append(
            {
                str(index): round(costs[str(index)], 6) if costs[str(index)] < math.inf else None
                for index in left
            }
        )
        ranked = sorted(left, key=lambda index: (costs[str(index)], index))
        survivors = ranked[: math.ceil(len(ranked) / 2)] if halving else ranked[:1]
        for index in set(left) - set(survivors):
            trials.drop(index)
        left = sorted(survivors)
        best = ranked[0]
    return best, rounds


def recovery_schedule(config: RandomizedConfig, steps: int, learning_rate: float) -> Schedule:
    """How a candidate or a winner is trained."""
    return Schedule(
        steps=steps,
        learning_rate=learning_rate,
        batch_size=config.batch_size,
        distillation_weight=config.distillation_weight,
        distillation_temperature=config.distillation_temperature,
        perturbation=perturbation_of(config),
        accumulation_steps=config.accumulation_steps,
        precision=config.precision,
        hidden_weight=config.hidden_weight,
        dropout=config.dropout,
    )
