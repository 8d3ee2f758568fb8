"""Distill the dense model's outputs into the whole pruned model, without labels.

Each layer was solved for its own output. What their errors do together is left for the end, where all weights
that are not zero, biases and norms move at once: towards the dense model's logits (Hinton et al., 2015) and
hidden states (Jiao et al., 2020), on the calibration texts, long ones in windows, and on texts made of their
pieces. What a robust model says to a text it can be taught to say also where an attacker has replaced words.

A distillation may also do harm: where steps are many, the rate is high or texts are few, the model learns the
texts and not the teacher. So its weights are those of the lowest divergence from the dense model's answers on
held-out texts among ten evaluations, the start included. No label is needed for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from compressor.data.texts import TextData
from compressor.models.batching import Encoded
from compressor.models.classifier import Classifier
from compressor.models.predictors import TorchPredictor, predict_encoded
from compressor.system.checkpoint import NoCheckpoint
from compressor.training.checkpoint import TrainingCheckpoint
from compressor.training.early_stopping import BestWeights
from compressor.training.loop import TrainingSet, train
from compressor.training.losses import answer_divergence
from compressor.training.schedule import Schedule

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from compressor.training.substitution import Substitution
    from compressor.training.teacher import HiddenStates

BATCH_SIZE = 32
# What 300 to 400 steps see once; a thousand see each text about three times.
TOKENS = 2**18
TEMPERATURE = 2.0
# Hidden states have a mean square of about a third.
HIDDEN_WEIGHT = 3.0
# Texts that weights are chosen by: as many as half a dozen steps see, or an eighth of few.
HELD_OUT, HELD_OUT_SHARE = 256, 8
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
        kept_step: training steps after which these were reached; 0 where no evaluation was better than the
            start, which is what was kept.
        last_divergence: that after the last step.
    """

    held_out_examples: int
    divergence_before: float
    divergence: float
    kept_step: int
    last_divergence: float


def split_texts(data: TextData, count: int, seed: int) -> tuple[TextData, TextData]:
    """Draw the texts for the distillation, and held-out texts to select weights.

    The former are `data.sample(count, seed)`, and the latter come from what that leaves over, which no layer
    was solved with either. Where that is less than an eighth of `count`, an eighth is set aside.

    Raises:
        UserError: nothing would be left to distil on.
    """
    drawn = data.sample(count, seed)
    wanted = max(1, min(HELD_OUT, len(drawn) // HELD_OUT_SHARE))
    order = np.random.default_rng(seed).permutation(len(data)).tolist()
    pairs = data.pairs or [""] * len(data)
    seen = set(zip(drawn.texts, drawn.pairs or [""] * len(drawn), strict=True))
    unseen = [place for place in order[count:] if (data.texts[place], pairs[place]) not in seen]
    if len(unseen) >= wanted:
        return drawn, data.select(unseen[:HELD_OUT])
    return drawn.hold_out(wanted, seed)


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
    adversarial: Substitution | None = None,
    checkpoint: NoCheckpoint | None = None,
    track: Callable[[Sequence[int]], Iterator[int]] = iter,
) -> Distillation:
    """Train the pruned model in place; embeddings, which are never pruned, stay the dense model's.

    The model ends with the weights of the lowest divergence on `held_out`, see the module.

    Args:
        texts: nothing is known of but what the dense model makes of them.
        masks: of linear layers by name, `(out, in)` bool, False where the weight stays zero.
        held_out: texts that are not trained on, which choose the weights.
        learning_rate: peak.
        answers: of the dense model to `texts`, from `ask_teacher`; None asks for them at each step.
        adversarial: of `readable(texts)`; where it is given each step also teaches the dense model's answer
            to the texts that this makes of its own.
        checkpoint: of the stage, where a distillation that was stopped goes on from.
        track: shows progress over the steps.
    """
    schedule = Schedule(
        steps=steps,
        learning_rate=learning_rate,
        batch_size=BATCH_SIZE,
        distillation_weight=1.0,
        distillation_temperature=TEMPERATURE,
        hidden_weight=HIDDEN_WEIGHT,
        dropout=False,
    )
    # Their weight in the loss is zero; their type tells a regression from classes.
    labels = torch.zeros(len(texts), dtype=torch.float32 if classifier.task == "regression" else torch.int64)
    logits, states = answers or (None, None)
    kept = checkpoint or NoCheckpoint()
    interval = max(1, -(-steps // EVALUATIONS))
    best = BestWeights(_divergence(classifier, dense, held_out), interval, kept, BEST_PART)
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
    return Distillation(len(held_out), best.start, best.lowest, best.step, best.last)


def fastest_rate(
    model: PreTrainedModel, rates: Sequence[float], run: Callable[[float], Distillation]
) -> tuple[float, dict[str, float]]:
    """Return the learning rate whose short run ends with the lowest divergence, and that of each rate.

    The divergence at the end counts, and not the lowest on the way: that may be the start's for all rates.
    The model is left as it was.

    Args:
        run: distills the model in place for some steps with a peak rate.
    """
    start = {name: value.clone() for name, value in model.state_dict().items()}
    found = {}
    for rate in rates:
        found[rate] = run(rate).last_divergence
        model.load_state_dict(start)
    return min(found, key=lambda rate: found[rate]), {f"{rate:g}": own for rate, own in found.items()}


def _divergence(
    classifier: Classifier, dense: PreTrainedModel, held_out: Sequence[Encoded]
) -> Callable[[], float]:
    """A function that measures how far the classifier, as it is then, is from the dense model's answers."""

    def logits(model: PreTrainedModel) -> Tensor:
        predictor = TorchPredictor(replace(classifier, model=model))
        return torch.from_numpy(predict_encoded(predictor, held_out, BATCH_SIZE))

    expected = logits(dense)
    return lambda: float(answer_divergence(expected, logits(classifier.model)))


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
