"""Proof that an exported graph is the classifier it was made from: outputs, zeros."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compressor.batching import Encoded, encode, pad
from compressor.console import Progress
from compressor.data import TextData
from compressor.errors import UserError
from compressor.predictors import Predictor

BATCH_SIZES = (1, 8, 33)
LONGEST_EXCERPT = 80


@dataclass(frozen=True)
class Parity:
    """How far the logits of two predictors are apart.

    Attributes:
        examples: number of real texts, in batches of ragged lengths.
        max_difference: largest absolute difference of a logit.
        label_agreement: share of texts with the same label.
        worst_text: the text with the largest difference.
    """

    examples: int
    max_difference: float
    label_agreement: float
    worst_text: str


def ragged_batches(encoded: Sequence[Encoded]) -> Iterator[list[int]]:
    """All indices once, in batches of 1, 8 and 33 in turn, unsorted, so that padding is real."""
    start = turn = 0
    while start < len(encoded):
        stop = start + BATCH_SIZES[turn % len(BATCH_SIZES)]
        yield list(range(start, min(stop, len(encoded))))
        start, turn = stop, turn + 1


def measure_parity(
    reference: Predictor, exported: Predictor, data: TextData, max_length: int, progress: Progress
) -> Parity:
    """Compare logits on real texts in ragged, padded batches."""
    encoded = encode(reference.tokenizer, data, max_length)
    pad_token_id = int(reference.tokenizer.pad_token_id)
    differences = np.zeros(len(encoded))
    agree = np.zeros(len(encoded), dtype=bool)
    for indices in progress.track(list(ragged_batches(encoded)), "Proving parity with PyTorch"):
        batch = pad([encoded[i] for i in indices], pad_token_id)
        expected, found = reference.logits(batch), exported.logits(batch)
        difference = np.abs(expected - found).max(axis=1)
        # A NaN is as far away as can be; comparisons with it would pass.
        differences[indices] = np.where(np.isfinite(difference), difference, np.inf)
        agree[indices] = expected.argmax(axis=1) == found.argmax(axis=1)
    worst = int(differences.argmax())
    return Parity(len(encoded), float(differences[worst]), float(agree.mean()), data.texts[worst])


def check_parity(parity: Parity, tolerance: float) -> None:
    """Raise a `UserError` that names the worst example if logits differ by more than `tolerance`."""
    if parity.max_difference <= tolerance:
        return
    excerpt = parity.worst_text[:LONGEST_EXCERPT]
    raise UserError(
        f"export failed: logits differ from PyTorch's by {parity.max_difference:.2e}, more than "
        f"{tolerance:.0e}, at {excerpt!r}; labels agree on {parity.label_agreement:.1%} of "
        f"{parity.examples} texts"
    )


def check_zeros(weights: Mapping[str, Tensor], exported: Mapping[str, Tensor]) -> None:
    """Raise a `RuntimeError` unless both hold the same layers with zeros at the same places."""
    if set(weights) != set(exported):
        absent = sorted(set(weights) ^ set(exported))
        raise RuntimeError(f"the graph's linear layers are not the model's: {', '.join(absent[:3])}")
    for name, weight in weights.items():
        if not torch.equal(weight == 0, exported[name] == 0):
            raise RuntimeError(f"{name}: the zeros of the graph are not those of the model")
