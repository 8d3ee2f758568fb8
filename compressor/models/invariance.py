"""Whether a model's answer to a text depends on what shares its batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.data.labels import task_of
from compressor.models.batching import Encoded, pad
from compressor.models.predictors import Predictor

BATCH_SIZE = 16
SHUFFLES = 3
LARGEST = np.finfo(np.float32).max


@dataclass(frozen=True)
class Invariance:
    """How far the answers to texts alone and in batches are apart.

    Attributes:
        examples: number of texts; each is in one batch of every shuffle.
        batch_size: texts a batch; the shorter ones of it are padded.
        shuffles: number of orders in which batches were made of the texts.
        batch_disagreement: share of the answers in batches whose label is not that of the text alone; None
            of a regression.
        worst_batch_shift: largest absolute difference of a logit.
    """

    examples: int
    batch_size: int
    shuffles: int
    batch_disagreement: float | None
    worst_batch_shift: float


def measure_invariance(
    alone: Predictor, together: Predictor, encoded: Sequence[Encoded], seed: int
) -> Invariance:
    """Compare the logits of each text alone with those in shuffled, padded batches.

    Args:
        alone: answers one text at a time.
        together: the same model, which answers batches; with another number of threads that is compared too.
        encoded: token ids and segment ids of each text.
        seed: of the shuffles.
    """
    return compare_in_batches(logits_alone(alone, encoded), together, encoded, seed)


def logits_alone(predictor: Predictor, encoded: Sequence[Encoded]) -> NDArray[np.float32]:
    """Return the logits `(texts, labels)` of each text in a batch of its own."""
    token = int(predictor.tokenizer.pad_token_id)
    return np.concatenate([predictor.logits(pad([text], token)) for text in encoded])


def compare_in_batches(
    expected: NDArray[np.float32], predictor: Predictor, encoded: Sequence[Encoded], seed: int
) -> Invariance:
    """Compare logits with those in shuffled, padded batches.

    Args:
        expected: logits `(texts, labels)` of each text alone.
        encoded: token ids and segment ids of each text.
        seed: of the shuffles.
    """
    token = int(predictor.tokenizer.pad_token_id)
    generator = np.random.default_rng(seed)
    changed, worst = 0, 0.0
    for _ in range(SHUFFLES):
        order = generator.permutation(len(encoded))
        for start in range(0, len(order), BATCH_SIZE):
            places = order[start : start + BATCH_SIZE]
            found = predictor.logits(pad([encoded[place] for place in places], token))
            difference = np.abs(found - expected[places])
            # A NaN is as far away as can be; comparisons with it would pass. JSON has no infinity.
            farthest = np.where(np.isfinite(difference), difference, LARGEST).max()
            worst = max(worst, float(farthest))
            changed += int((found.argmax(axis=1) != expected[places].argmax(axis=1)).sum())
    is_regression = task_of(predictor.label_names) == "regression"
    share = None if is_regression else changed / (SHUFFLES * len(encoded))
    return Invariance(len(encoded), BATCH_SIZE, SHUFFLES, share, worst)
