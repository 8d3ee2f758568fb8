"""Randomized pruning: in each step draw candidates, score them early, recover the winner."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from compressor.data.texts import TextData
from compressor.errors import UserError
from compressor.models.classifier import Classifier, encoder_weights
from compressor.models.metrics import check_metric
from compressor.models.structure import linear_at
from compressor.options import RandomizedConfig, TaskName
from compressor.pruning.adaptive.allocation import uniform_patterns
from compressor.pruning.adaptive.rectification import rectify, redraw
from compressor.pruning.interface import Algorithm, PruningJob, PruningResult
from compressor.pruning.patterns import MaskPattern, Unstructured
from compressor.pruning.randomized.candidates import (
    Masks,
    StepJob,
    Trials,
    all_alive,
    draw_by_saliency,
    draw_candidate,
    recovery_schedule,
    select,
    step_settings,
)
from compressor.pruning.randomized.holdout import Holdout, holdout_loss, split
from compressor.pruning.randomized.masks import step_patterns
from compressor.pruning.record import LayerRecord
from compressor.system.checkpoint import Part
from compressor.system.console import Progress, SilentProgress
from compressor.system.ranks import join_ranks
from compressor.training.early_stopping import EarlyStopping
from compressor.training.loop import TrainingSet, apply_masks, train

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Shared:
    """What all steps work with.

    Attributes:
        classifier: the model that is pruned, in place.
        dense: as it was before the first step.
        data: all calibration texts, of which `training` and `holdout` are the parts.
    """

    classifier: Classifier
    dense: PreTrainedModel
    data: TextData
    training: TrainingSet
    holdout: Holdout
    job: PruningJob
    progress: Progress


def prune(classifier: Classifier, data: TextData, job: PruningJob, progress: Progress) -> PruningResult:
    """Prune in steps of rising sparsity (Li et al., Findings of EMNLP 2023).

    Each step draws `candidates` masks from the weights still alive, trains a copy of the model
    briefly with each, takes the one with the lowest loss on held-out texts, and recovers the model
    itself with that mask, distilling from the dense model. The held-out texts are a part of the
    calibration data that is not trained on. Finished steps are kept in the job's checkpoint. Under
    torchrun each rank scores its share of the candidates, and the first one recovers.

    Raises:
        UserError: options that contradict each other, the pattern or the model's task.
    """
    config = job.config.randomized
    pattern = _checked_pattern(job)
    _check_score(config, classifier.task)
    patterns = step_patterns(pattern, config.steps, config.schedule, config.step_sparsities)
    settings = step_settings(config, len(patterns))
    training, holdout = split(classifier, data, job, progress)
    dense = copy.deepcopy(classifier.model)
    shared = Shared(classifier, dense, data, training, holdout, job, progress)
    alive, records = _finished(classifier, job, len(patterns))
    for step in range(len(records), len(patterns)):
        name = f"Step {step + 1}/{len(patterns)} to {patterns[step].sparsity:.1%} sparsity"
        own = StepJob(step, len(patterns), patterns[step], settings[step], job.seed)
        alive = _base(shared, alive, own)
        alive, record = _choose(shared, alive, own, name)
        record["recovery_steps"] = _recover(shared, alive, own, name)
        records.append(record)
        _keep(classifier, alive, records, job, step)
    layers = [LayerRecord(name, 1.0 - float(mask.double().mean())) for name, mask in alive.items()]
    details = {
        "steps": records,
        "training_examples": len(training.encoded),
        "holdout_examples": len(holdout.clean.encoded),
        "training_steps": sum(
            record["recovery_steps"] + config.early_steps * sum(map(len, record["early_costs"]))
            for record in records
        ),
    }
    return PruningResult(alive, layers, details, _shared_patterns(classifier, pattern, config))


def _shared_patterns(
    classifier: Classifier, pattern: MaskPattern, config: RandomizedConfig
) -> dict[tuple[str, ...], MaskPattern]:
    """The pattern of matrices whose zeros are counted together; none where each has its own."""
    if config.saliency == "adaptive":
        return uniform_patterns(classifier, pattern)
    if _is_global(config):
        return {tuple(encoder_weights(classifier.model)): Unstructured(pattern.sparsity, "layer")}
    return {}


def _check_score(config: RandomizedConfig, task: TaskName) -> None:
    """Raise a `UserError` if candidates cannot be compared as the options say."""
    check_metric("score", config.score, task)
    if config.attack_weight and task == "regression":
        raise UserError(
            f"attack_weight {config.attack_weight:g}: the model answers with numbers and not with classes, "
            f"of which an attack could turn one into another; use --shift-weight"
        )


def _is_global(config: RandomizedConfig) -> bool:
    return config.mask_scope == "global"


def _checked_pattern(job: PruningJob) -> MaskPattern:
    """The job's pattern, for which masks can be made as its options say.

    Raises:
        UserError: zeros are counted over all matrices, where the pattern counts them in rows or groups, or
            where they are ranked layer by layer; or revived weights would be taken for recovered ones.
    """
    pattern, config = job.mask_pattern, job.config.randomized
    if config.revive and config.reference != "dense":
        raise UserError(
            f"reference {config.reference}: with revived weights the model is not the one after the "
            f"previous step; omit --revive, or --reference"
        )
    if _is_global(config) and config.saliency == "adaptive":
        raise UserError(
            "mask scope global: adaptive saliencies are of one layer's outputs and do not compare with those "
            "of others; leave --mask-scope out, or --saliency"
        )
    if _is_global(config) and not (isinstance(pattern, Unstructured) and pattern.scope is None):
        raise UserError(
            "mask scope global: zeros are counted over all matrices only with --pattern unstructured and "
            "without --scope; leave --mask-scope out, or those"
        )
    return pattern


def _base(shared: Shared, alive: Masks, own: StepJob) -> Masks:
    """Which of the model's weights masks may keep; with `revive` all, those that were zeroed made dense."""
    if not own.config.revive:
        return alive
    _revive(shared.classifier, shared.dense, alive)
    return all_alive(alive)


def begin(
    shared: Shared, alive: Masks, own: StepJob, index: int, classifier: Classifier, progress: Progress
) -> Masks:
    """Draw the masks of candidate `index`, put them on a model, and return them.

    Args:
        alive: of the step's base, whose weights `classifier` holds: True where a mask may keep one.
        own: the step.
    """
    config, data, job = own.config, shared.data, shared.job
    if config.saliency == "adaptive":
        draw, reference = draw_by_saliency(own, index), _reference(shared, own, index, classifier)
        return redraw(classifier, reference, own.pattern, draw, data, job, progress)
    masks = draw_candidate(encoder_weights(classifier.model), alive, own, index)
    if config.rectify == "adaptive":
        rectify(classifier, _reference(shared, own, index, classifier), masks, data, job, progress)
    else:
        apply_masks(classifier.model, masks)
    return masks


def _reference(shared: Shared, own: StepJob, index: int, classifier: Classifier) -> PreTrainedModel:
    """Whose outputs a candidate's re-solved weights reproduce; in the first step it is the dense model's."""
    chosen = own.config.reference
    previous = chosen == "previous" or (chosen == "both" and index % 2 == 1)
    return copy.deepcopy(classifier.model) if previous and own.step else shared.dense


def _choose(shared: Shared, alive: Masks, own: StepJob, name: str) -> tuple[Masks, dict[str, Any]]:
    """Put the best of the step's candidates on the model; one alone costs no trial.

    Returns:
        Its masks, and the step's record: what the candidates cost, and which one was chosen.
    """
    config, classifier = own.config, shared.classifier
    record: dict[str, Any] = {"sparsity": own.pattern.sparsity, "early_costs": [], "chosen": 0}
    if own.candidates == 1:
        return begin(shared, alive, own, 0, classifier, shared.progress), record

    def begin_trial(index: int, trial: Classifier) -> Masks:
        return begin(shared, alive, own, index, trial, SilentProgress())

    ranks = join_ranks()
    trials = Trials(
        classifier,
        begin_trial,
        shared.training,
        shared.holdout,
        config,
        own.seed,
        teacher=shared.dense,
        keep=config.halving,
    )
    masks = all_alive(alive)
    with trials:
        best, costs = select(
            own.candidates,
            trials,
            ranks,
            halving=config.halving,
            track=lambda indices: shared.progress.track(indices, f"{name}: scoring masks"),
        )
        if ranks.rank == ranks.owner(best):
            start = trials.start(best)
            classifier.model.load_state_dict(start.state)
            masks = start.masks
    ranks.broadcast([*classifier.model.state_dict().values(), *masks.values()], ranks.owner(best))
    return masks, record | {"early_costs": costs, "chosen": best}


def _revive(classifier: Classifier, dense: PreTrainedModel, alive: Mapping[str, Tensor]) -> None:
    """Give the weights that were zeroed the dense model's values, so that a mask may choose them."""
    with torch.no_grad():
        for name, mask in alive.items():
            weight = linear_at(classifier.model, name).weight
            weight.copy_(torch.where(mask, weight, linear_at(dense, name).weight))


def _recover(shared: Shared, masks: Masks, own: StepJob, name: str) -> int:
    """Bring the model back with the masks fixed, return the steps taken.

    The other ranks get what the first one made.
    """
    classifier, progress, config = shared.classifier, shared.progress, own.config
    ranks = join_ranks()
    taken: dict[str, float] = {}
    if ranks.is_first:
        schedule = recovery_schedule(config, config.recovery_steps, config.learning_rate)
        stopping = EarlyStopping(
            lambda: holdout_loss(classifier, shared.holdout.clean, schedule),
            config.evaluation_interval,
            config.patience,
        )
        taken["steps"] = train(
            classifier,
            shared.training,
            schedule,
            seed=own.seed + own.step,
            masks=masks,
            teacher=shared.dense,
            best=stopping if config.patience else None,
            track=lambda steps: progress.track(steps, f"{name}: recovery"),
        )
    ranks.broadcast(classifier.model.state_dict().values())
    return int(ranks.share(taken)["steps"])


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
            # A file has them in the order of their names; records are in that of the data's flow.
            masks = {name: found["mask"][name] for name in encoder_weights(classifier.model)}
            return masks, part.facts
    return all_alive(encoder_weights(classifier.model)), []


class _Randomized(Algorithm):
    """Randomized pruning, and what the stage must know of it."""

    needs_labels = True
    shares_work = True

    def prune(
        self, classifier: Classifier, data: TextData, job: PruningJob, progress: Progress
    ) -> PruningResult:
        return prune(classifier, data, job, progress)


RANDOMIZED = _Randomized()
