"""Training with fixed masks and distillation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from compressor.errors import UserError
from compressor.models.batching import Encoded, inputs_of, pad, shuffled_batches
from compressor.models.classifier import Classifier
from compressor.models.onednn import onednn_linears
from compressor.models.structure import linear_at
from compressor.options import Precision
from compressor.training.checkpoint import TrainingCheckpoint
from compressor.training.early_stopping import BestWeights, EarlyStopping
from compressor.training.freelb import adversarial_backward
from compressor.training.losses import answers_of, distillation_loss, hidden_distance, without_dropout
from compressor.training.schedule import Schedule, learning_rate_factor, perturbation_at

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from compressor.training.substitution import Substitution
    from compressor.training.teacher import HiddenStates

GRADIENT_NORM = 1.0
SGD_MOMENTUM = 0.9
# Of how many texts in a batch one is also seen perturbed: all of them would double the time of a step.
PERTURBED_EVERY = 2


@dataclass(frozen=True)
class TrainingSet:
    """Tokenised examples, and what to learn from them.

    Attributes:
        encoded: one entry an example.
        labels: class index of each, int64, or a regression's number, float32.
        teacher_logits: `(examples, labels)` float32 of the dense model; None where it is asked as they are
            needed, or not at all.
        teacher_states: its hidden states for each of `encoded`, given together with its logits; None where
            they are asked as they are needed, or not at all.
        substitution: gives what a step sees in place of `encoded`; None where it sees that.
        adversarial: gives a further text for some of each step's, to which the answer is to stay that to the
            one in `encoded` (see `_backward`); None where there is none.
    """

    encoded: Sequence[Encoded]
    labels: Tensor
    teacher_logits: Tensor | None = None
    teacher_states: HiddenStates | None = None
    substitution: Substitution | None = None
    adversarial: Substitution | None = None

    def texts_at(
        self, places: Sequence[int], step: int, model: PreTrainedModel, labels: Tensor
    ) -> list[Encoded]:
        """The texts at those places as the step sees them; `labels` are theirs, on the model's device."""
        if self.substitution is None:
            return [self.encoded[place] for place in places]
        return self.substitution.seen(places, step, model, labels)


def make_optimizer(parameters: Iterable[nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
    """The optimizer of that name; SGD has a momentum of 0.9."""
    rate, decay = schedule.learning_rate, schedule.weight_decay
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=SGD_MOMENTUM, weight_decay=decay, fused=True)
    kind = torch.optim.AdamW if schedule.optimizer == "adamw" else torch.optim.Adam
    # Fused, the update of BERT's word embeddings no longer takes a quarter of a step on short texts.
    return kind(parameters, lr=rate, weight_decay=decay, fused=True)


def apply_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set the masked weights of the named linear layers to exactly zero."""
    with torch.no_grad():
        for name, mask in masks.items():
            weight = linear_at(model, name).weight
            # Not a product: zero times infinity or NaN would stay.
            weight.masked_fill_(~mask.to(weight.device), 0.0)


def train(
    classifier: Classifier,
    data: TrainingSet,
    schedule: Schedule,
    *,
    seed: int,
    masks: Mapping[str, Tensor] | None = None,
    teacher: PreTrainedModel | None = None,
    best: BestWeights | None = None,
    checkpoint: TrainingCheckpoint | None = None,
    track: Callable[[Sequence[int]], Iterator[int]] = iter,
) -> int:
    """Train in place and return the number of steps taken.

    Masked weights are exactly zero after every optimizer step.
    The global random state, which dropout draws from, is set from `seed` and put back at the end.

    Args:
        masks: for named linear layers a bool `(out, in)`, False where the weight stays zero.
        teacher: whose hidden states are learnt, if the schedule gives them a weight, and whose logits where
            the data have none; in evaluation mode.
        best: gives back the weights of the lowest held-out loss, and may end training early; None takes those
            of the last step.
        checkpoint: where the training goes on from, and keeps its state; `best` keeps its own in the same
            stage's checkpoint. Not together with `EarlyStopping`, whose count is not kept.
        track: shows progress over the steps.

    Raises:
        UserError: the device cannot compute in the schedule's precision.
        ValueError: both a checkpoint and early stopping are given.
    """
    model, device = classifier.model, classifier.device
    check_precision(schedule.precision, device)
    if isinstance(best, EarlyStopping) and checkpoint is not None:
        raise ValueError("a training that may stop early keeps no state")
    masks = masks or {}
    optimizer = make_optimizer(model.parameters(), schedule)
    generator = np.random.default_rng(seed)
    indices = _endless_batches(data.encoded, schedule.batch_size, generator)
    models = [model] if teacher is None else [model, teacher]
    random_state = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    with random_state, onednn_linears(*models):
        torch.manual_seed(seed)
        model.train(schedule.dropout)
        apply_masks(model, masks)
        if best is not None:
            with without_dropout(model):
                best.begin(model)
        done = before = checkpoint.restore(model, optimizer) if checkpoint is not None else 0
        for step in track(range(schedule.steps)):
            batches = [next(indices) for _ in range(schedule.accumulation_steps)]
            if step < before:
                continue
            for group in optimizer.param_groups:
                group["lr"] = schedule.learning_rate * learning_rate_factor(step, schedule)
            for batch in batches:
                _backward(classifier, data, batch, step, schedule, teacher)
            nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            apply_masks(model, masks)
            done = step + 1
            if checkpoint is not None:
                checkpoint.keep(model, optimizer, done)
            if best is not None and best.is_due(done, schedule.steps):
                with without_dropout(model):
                    over = best.is_over(model, done)
                if over:
                    break
        if best is not None:
            best.restore(model)
        model.eval()
    return done


def check_precision(precision: Precision, device: torch.device) -> None:
    """Raise UserError where the device has no arithmetic of that precision."""
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError(
            f"precision bf16: {torch.cuda.get_device_name(device)} cannot compute in bfloat16; "
            f"use --precision fp32"
        )


def _backward(
    classifier: Classifier,
    data: TrainingSet,
    batch: list[int],
    step: int,
    schedule: Schedule,
    teacher: PreTrainedModel | None,
) -> None:
    """Add a batch's share of a step's gradient to the parameters'.

    Adversarial texts are made against the teacher's answers to the texts as they are, and learn these as
    well: a robust teacher's answers make robust labels (Zi et al., "Revisiting Adversarial Robustness
    Distillation", ICCV 2021). Their mean loss counts as much as that of the texts themselves, hidden states
    apart.
    """
    model, device = classifier.model, classifier.device
    padded = partial(pad, pad_token_id=int(classifier.tokenizer.pad_token_id), device=device)
    in_precision = partial(
        torch.autocast, device.type, dtype=torch.bfloat16, enabled=schedule.precision == "bf16"
    )
    labels = data.labels[batch].to(device)
    with in_precision():
        inputs = padded(data.texts_at(batch, step, model, labels))
    teacher_logits = None if data.teacher_logits is None else data.teacher_logits[batch].to(device)
    teacher_states: Sequence[Tensor] | None = None
    if data.teacher_states is not None and schedule.hidden_weight:
        teacher_states = data.teacher_states.at(batch, device)
    lacks_states = schedule.hidden_weight and teacher_states is None
    asked = lacks_states or (teacher_logits is None and schedule.distillation_weight)
    if teacher is not None and asked:
        with torch.no_grad(), in_precision():
            answer = teacher(**inputs_of(teacher, inputs), output_hidden_states=True)
        if teacher_logits is None:
            teacher_logits = answer.logits.float()
        if lacks_states:
            teacher_states = answer.hidden_states[1:]

    def loss(**inputs: Tensor) -> Tensor:
        with in_precision():
            output = model(**inputs, output_hidden_states=teacher_states is not None)
        value = distillation_loss(output.logits.float(), labels, teacher_logits, schedule)
        if teacher_states is not None:
            distance = hidden_distance(output.hidden_states[1:], teacher_states, inputs["attention_mask"])
            value = value + schedule.hidden_weight * distance
        return value / schedule.accumulation_steps

    inputs = inputs_of(model, inputs)
    perturbation = perturbation_at(step, schedule)
    if perturbation is None:
        loss(**inputs).backward()
    else:
        adversarial_backward(model.get_input_embeddings(), inputs, loss, perturbation)
    if data.adversarial is not None:
        rows = perturbed_rows(len(batch), step)
        expected = None if teacher_logits is None else teacher_logits[rows]
        answers = labels[rows] if expected is None else answers_of(expected, labels[rows])
        perturbed = data.adversarial.seen([batch[row] for row in rows], step, model, answers)
        with in_precision():
            logits = model(**inputs_of(model, padded(perturbed))).logits.float()
        value = distillation_loss(logits, labels[rows], expected, schedule)
        (value / schedule.accumulation_steps).backward()


def perturbed_rows(count: int, step: int) -> list[int]:
    """The texts of a batch of `count` that a step also sees perturbed: other ones at the next step."""
    every = min(PERTURBED_EVERY, count)
    return list(range(step % every, count, every))


def _endless_batches(
    encoded: Sequence[Encoded], batch_size: int, generator: np.random.Generator
) -> Iterator[list[int]]:
    while True:
        yield from shuffled_batches(encoded, batch_size, generator)
