"""Distillation without labels: the pruned model as a whole learns what the dense one answers.

Each layer was solved for its own output. What their errors do together is left for the end, where all weights
that are not zero, biases and norms move at once: towards the dense model's logits (Hinton et al., 2015) and
hidden states (Jiao et al., 2020), on the calibration texts, long ones in windows, and on texts made of their
pieces. What a robust model says to a text it can be taught to say also where an attacker has replaced words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compressor.batching import Encoded
from compressor.classifier import Classifier
from compressor.data import TextData
from compressor.training import Schedule, TrainingSet, train
from compressor.training_checkpoint import TrainingCheckpoint

if TYPE_CHECKING:
    from transformers import BertForSequenceClassification, PreTrainedTokenizerBase

    from compressor.word_substitution import Substitution

BATCH_SIZE = 32
# What 300 to 400 steps see once; a thousand see each text about three times.
TOKENS = 2**18
TEMPERATURE = 2.0
# Hidden states have a mean square of about a third.
HIDDEN_WEIGHT = 3.0


def distill(
    classifier: Classifier,
    dense: BertForSequenceClassification,
    texts: Sequence[Encoded],
    masks: Mapping[str, Tensor],
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    adversarial: Substitution | None = None,
    checkpoint: TrainingCheckpoint | None = None,
    track: Callable[[Sequence[int]], Iterator[int]] = iter,
) -> None:
    """Train the pruned model in place; embeddings, which are never pruned, stay the dense model's.

    Args:
        texts: nothing is known of but what the dense model makes of them.
        masks: of linear layers by name, `(out, in)` bool, False where the weight stays zero.
        learning_rate: peak.
        adversarial: of `readable(texts)`; where it is given each step also teaches the dense model's answer
            to the texts that this makes of its own.
        checkpoint: where a distillation that was stopped goes on from.
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
    embeddings = classifier.model.bert.embeddings
    embeddings.requires_grad_(False)
    try:
        with torch.enable_grad():
            train(
                classifier,
                TrainingSet(texts, labels, adversarial=adversarial),
                schedule,
                seed=seed,
                masks=masks,
                teacher=dense,
                checkpoint=checkpoint,
                track=track,
            )
    finally:
        embeddings.requires_grad_(True)


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
