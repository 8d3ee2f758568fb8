"""Distill the dense model's outputs into the whole pruned model, without labels.

Each layer was solved for its own output. What their errors do together is left for the end, where all weights
that are not zero, biases and norms move at once: towards the dense model's logits (Hinton et al., 2015) and
hidden states (Jiao et al., 2020), on the calibration texts, long ones in windows, and on texts made of their
pieces. What the dense model says to a text, the pruned one can be taught to say also where somebody has
changed words. What the dense model says to changed texts is not asked for, so the pruned model may become the
more robust one.

A distillation may also do harm: where steps are many, the rate is high or texts are few, the model learns the
texts and not the teacher. So the weights are chosen on held-out texts, among ten evaluations and the start:
the ones of the lowest loss, of those whose answers diverge no more from the dense model's than at the start.
The divergence alone tells less: where the dense model was trained on the texts it is sure of nearly all of
them, and what a few others say decides. A robust distillation may diverge some more, and is judged by the
answers to the held-out texts and to perturbed copies of them. No label is needed for any of this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from compressor.data.texts import TextData
from compressor.models.batching import Encoded, inputs_of, pad, sorted_batches
from compressor.models.classifier import Classifier
from compressor.models.encoders.inputs import MASK
from compressor.models.onednn import onednn_linears
from compressor.system.checkpoint import NoCheckpoint
from compressor.training.checkpoint import TrainingCheckpoint
from compressor.training.early_stopping import BestWeights
from compressor.training.loop import TrainingSet, train
from compressor.training.losses import answer_divergence, answers_of, distillation_loss, hidden_distance
from compressor.training.schedule import Schedule
from compressor.training.teacher import HiddenStates, ask_teacher

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from compressor.training.substitution import Substitution

BATCH_SIZE = 32
# What 300 to 400 steps see once; a thousand see each text about three times.
TOKENS = 2**18
TEMPERATURE = 2.0
# Hidden states have a mean square of about a third, and pruned models differ in a thirtieth of that.
HIDDEN_WEIGHT = 30.0
# Robust hidden states are other ones than the dense model's.
ROBUST_HIDDEN_WEIGHT = 3.0
EVALUATIONS = 10
PART, BEST_PART = "distillation", "distillation-best"


@dataclass(frozen=True)
class Distillation:
    """Gain of a distillation on held-out texts.

    Attributes:
        held_out_examples: number of these texts.
        divergence_before: mean KL divergence of the pruned model's answers from the dense model's before the
            first step, in nats; of a regression the mean squared difference.
        divergence: that of the weights that were kept.
        perturbed_divergence_before, perturbed_divergence: the same of its answers to these texts perturbed,
            against the model itself where they are chosen by the gradient, from the dense model's answers to
            the texts as they are; None where none are perturbed.
        kept_step: training steps after which these were reached; 0 where no evaluation was better than the
            start, which is what was kept.
        loss: on held-out texts after the last step, what the weights are chosen by.
    """

    held_out_examples: int
    divergence_before: float
    divergence: float
    kept_step: int
    loss: float
    perturbed_divergence_before: float | None = None
    perturbed_divergence: float | None = None


@dataclass(frozen=True)
class Perturbed:
    """What a robust distillation perturbs.

    Attributes:
        training: of `readable(texts)`; each step also teaches the dense model's answers to the texts that
            this makes of some of its own.
        held_out: of the held-out texts; perturbs them at each evaluation as a first step would.
        tolerance: by how much the divergence on held-out texts as they are may exceed that at the start, in
            nats.
    """

    training: Substitution
    held_out: Substitution
    tolerance: float


def distill(
    classifier: Classifier,
    dense: PreTrainedModel,
    texts: Sequence[Encoded],
    masks: Mapping[str, Tensor],
    *,
    held_out: Sequence[Encoded],
    steps: int,
    learning_rate: float,
    seed: int,
    answers: tuple[Tensor, HiddenStates] | None = None,
    perturbed: Perturbed | None = None,
    checkpoint: NoCheckpoint | None = None,
    track: Callable[[Sequence[int]], Iterator[int]] = iter,
) -> Distillation:
    """Train the pruned model in place; embeddings, which are never pruned, stay the dense model's.

    The model ends with the weights that `held_out` chooses, see the module.

    Args:
        texts: nothing is known of but what the dense model makes of them.
        masks: of linear layers by name, `(out, in)` bool, False where the weight stays zero.
        held_out: texts that are not trained on, which choose the weights.
        learning_rate: peak.
        answers: of the dense model to `texts`, from `ask_teacher`; None asks for them at each step.
        perturbed: of a robust distillation; None of any other.
        checkpoint: of the stage, where a distillation that was stopped goes on from.
        track: shows progress over the steps.
    """
    schedule = Schedule(
        steps=steps,
        learning_rate=learning_rate,
        batch_size=BATCH_SIZE,
        distillation_weight=1.0,
        distillation_temperature=TEMPERATURE,
        hidden_weight=HIDDEN_WEIGHT if perturbed is None else ROBUST_HIDDEN_WEIGHT,
        dropout=False,
    )
    # Their weight in the loss is zero; their type tells a regression from classes.
    labels = torch.zeros(len(texts), dtype=torch.float32 if classifier.task == "regression" else torch.int64)
    logits, states = answers or (None, None)
    kept = checkpoint or NoCheckpoint()
    interval = max(1, -(-steps // EVALUATIONS))
    measured = _HeldOut(classifier, dense, held_out, schedule, perturbed)
    adversarial = None if perturbed is None else perturbed.training
    best = BestWeights(measured.loss, interval, kept, BEST_PART)
    embeddings = classifier.layout.embeddings(classifier.model)
    embeddings.requires_grad_(False)
    try:
        with torch.enable_grad():
            train(
                classifier,
                TrainingSet(texts, labels, logits, states, adversarial=adversarial),
                schedule,
                seed=seed,
                masks=masks,
                teacher=dense,
                best=best,
                checkpoint=TrainingCheckpoint(kept, PART),
                track=track,
            )
    finally:
        embeddings.requires_grad_(True)
    start, last = measured.start, measured.last
    found = start if best.step == 0 else measured.measure()
    return Distillation(
        held_out_examples=len(held_out),
        divergence_before=start.divergence,
        divergence=found.divergence,
        kept_step=best.step,
        loss=last,
        perturbed_divergence_before=start.perturbed_divergence,
        perturbed_divergence=found.perturbed_divergence,
    )


def fastest_rate(
    model: PreTrainedModel, rates: Sequence[float], run: Callable[[float], Distillation]
) -> tuple[float, dict[str, float]]:
    """Return the learning rate whose short run ends with the lowest loss on held-out texts, and that of each.

    The end counts, and not the best on the way: that may be the start for all rates. The model is left as it
    was.

    Args:
        run: distills the model in place for some steps with a peak rate.
    """
    start = {name: value.clone() for name, value in model.state_dict().items()}
    found = {}
    for rate in rates:
        found[rate] = run(rate).loss
        model.load_state_dict(start)
    return min(found, key=lambda rate: found[rate]), {f"{rate:g}": own for rate, own in found.items()}


class _Measured(NamedTuple):
    """What a classifier does on held-out texts; see `Distillation`."""

    loss: float
    divergence: float
    perturbed_divergence: float | None = None


class _HeldOut:
    """Measures how far a classifier, as it is then, is from the dense model on held-out texts.

    Attributes:
        start: the first measurement.
        last: loss of the last one.
    """

    def __init__(
        self,
        classifier: Classifier,
        dense: PreTrainedModel,
        texts: Sequence[Encoded],
        schedule: Schedule,
        perturbed: Perturbed | None = None,
    ) -> None:
        self._classifier, self._texts, self._schedule = classifier, texts, schedule
        self._perturbed = perturbed
        self._padding = int(classifier.tokenizer.pad_token_id)
        self._logits, self._states = ask_teacher(dense, texts, self._padding)
        self.start = _Measured(math.inf, math.inf, None if perturbed is None else math.inf)
        self.last = math.inf

    def loss(self) -> float:
        """Return the loss; infinite where the answers diverge more than is allowed."""
        found = self.measure()
        self.last = found.loss
        if not math.isfinite(self.start.divergence):
            self.start = found
        tolerance = 0.0 if self._perturbed is None else self._perturbed.tolerance
        return found.loss if found.divergence <= self.start.divergence + tolerance else math.inf

    @torch.no_grad()
    def measure(self) -> _Measured:
        """Return the loss that is to be low, and the divergences of the answers, all of all texts.

        The loss is that of a training step; of a robust distillation without the part of the hidden states,
        which are not meant to stay where they were.
        """
        model, texts = self._classifier.model, self._perturbed_texts()
        with onednn_linears(model):
            logits, distance = self._answers(self._texts, with_states=texts is None)
            changed = None if texts is None else self._answers(texts)[0]
        loss, divergence = self._loss(logits), float(answer_divergence(self._logits, logits))
        if changed is None:
            return _Measured(loss + self._schedule.hidden_weight * distance, divergence)
        return _Measured(
            loss + self._loss(changed), divergence, float(answer_divergence(self._logits, changed))
        )

    def _perturbed_texts(self) -> list[Encoded] | None:
        """The held-out texts as a robust distillation perturbs them for the model as it is now."""
        if self._perturbed is None:
            return None
        found: list[Encoded] = []
        with torch.enable_grad():
            for places in torch.arange(len(self._texts)).split(BATCH_SIZE):
                answers = answers_of(self._logits[places], self._labels(len(places)))
                labels = answers.to(self._classifier.device)
                found += self._perturbed.held_out.seen(places.tolist(), 0, self._classifier.model, labels)
        return found

    def _answers(self, texts: Sequence[Encoded], *, with_states: bool = False) -> tuple[Tensor, float]:
        """Logits of all texts and, if asked for, the distance of the hidden states; 0 otherwise."""
        model, device = self._classifier.model, self._classifier.device
        logits, words, distance = torch.empty_like(self._logits), 0, 0.0
        for batch in sorted_batches(texts, BATCH_SIZE):
            inputs = pad([texts[place] for place in batch], self._padding, device)
            output = model(**inputs_of(model, inputs), output_hidden_states=with_states)
            logits[batch] = output.logits.float().cpu()
            if with_states:
                mask, expected = inputs[MASK], self._states.at(batch, device)
                count = int(mask.sum())
                distance += count * float(hidden_distance(output.hidden_states[1:], expected, mask))
                words += count
        return logits, distance / max(1, words)

    def _loss(self, logits: Tensor) -> float:
        """The loss of answers, against the dense model's to the texts as they are."""
        return float(distillation_loss(logits, self._labels(len(logits)), self._logits, self._schedule))

    def _labels(self, count: int) -> Tensor:
        """Nothing is known of them; their type tells a regression from classes."""
        return torch.zeros(count, dtype=torch.float32 if self._logits.shape[1] == 1 else torch.int64)


def readable(texts: Sequence[Encoded], tokenizer: PreTrainedTokenizerBase) -> TextData:
    """Tokenised texts (or pairs) in words again, as the model reads them: some are windows, some are made."""
    parts = 1 + max(max(types) for _, types in texts)
    columns = [
        [
            tokenizer.decode(
                [token for token, own in zip(ids, types, strict=True) if own == part],
                skip_special_tokens=True,
                clean_up_tokenization_spaces=False,
            )
            for ids, types in texts
        ]
        for part in range(parts)
    ]
    return TextData(columns[0], columns[1] if parts > 1 else None, None, [], "texts to distil on")
