"""Proof that an exported graph is the classifier it was made from: outputs, zeros."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.batching import Batch, Encoded, encode, pad
from compressor.classifier import Classifier
from compressor.console import Progress
from compressor.data import TextData
from compressor.errors import UserError
from compressor.predictors import Predictor

BATCH_SIZES = (1, 8, 33)
LONGEST_EXCERPT = 80
# Of the ragged edge batch; the full length has batches of its own.
LONGEST_RAGGED = 32


@dataclass(frozen=True)
class Parity:
    """How far the logits of two predictors are apart.

    Attributes:
        examples: number of real texts, in batches of ragged lengths.
        max_difference: largest absolute difference of a logit on these.
        label_agreement: share of texts with the same label.
        worst_text: the text with the largest difference.
        edge_differences: largest absolute difference of a logit on random tokens, by shape.
    """

    examples: int
    max_difference: float
    label_agreement: float
    worst_text: str
    edge_differences: dict[str, float]


@dataclass(frozen=True)
class InputLimits:
    """What a model's inputs may hold.

    Attributes:
        vocabulary: token ids are below it.
        length: longest input in tokens.
        segments: segment ids are below it.
    """

    vocabulary: int
    length: int
    segments: int


def ragged_batches(encoded: Sequence[Encoded]) -> Iterator[list[int]]:
    """All indices once, in batches of 1, 8 and 33 in turn, unsorted, so that padding is real."""
    start = turn = 0
    while start < len(encoded):
        stop = start + BATCH_SIZES[turn % len(BATCH_SIZES)]
        yield list(range(start, min(stop, len(encoded))))
        start, turn = stop, turn + 1


def input_limits(classifier: Classifier) -> InputLimits:
    """What the classifier's inputs may hold, as its configuration says."""
    config = classifier.model.config
    return InputLimits(
        int(config.vocab_size), int(config.max_position_embeddings), int(config.type_vocab_size)
    )


def edge_batches(limits: InputLimits, pad_token_id: int, seed: int) -> dict[str, Batch]:
    """Batches at the edges of what a model takes, by shape, texts x tokens.

    One token alone, the full length, 33 texts of ragged lengths, and a text of one token beside one of
    full length, so that all else in its row is padding. Tokens and segments are drawn with the seed.
    """
    generator = np.random.default_rng(seed)
    ragged = generator.integers(1, min(limits.length, LONGEST_RAGGED) + 1, max(BATCH_SIZES)).tolist()
    batches = {}
    for lengths in ([1], [limits.length], ragged, [limits.length, 1]):
        texts: list[Encoded] = [
            (
                generator.integers(limits.vocabulary, size=length).tolist(),
                generator.integers(limits.segments, size=length).tolist(),
            )
            for length in lengths
        ]
        batches[f"{len(lengths)} x {max(lengths)}"] = pad(texts, pad_token_id)
    return batches


def measure_parity(
    reference: Predictor,
    exported: Predictor,
    data: TextData,
    max_length: int,
    progress: Progress,
    *,
    limits: InputLimits,
    seed: int,
) -> Parity:
    """Compare logits on real texts in ragged, padded batches, and on the batches of `edge_batches`."""
    encoded = encode(reference.tokenizer, data, max_length)
    pad_token_id = int(reference.tokenizer.pad_token_id)
    differences = np.zeros(len(encoded))
    agree = np.zeros(len(encoded), dtype=bool)
    for indices in progress.track(list(ragged_batches(encoded)), "Proving parity with PyTorch"):
        batch = pad([encoded[i] for i in indices], pad_token_id)
        expected, found = reference.logits(batch), exported.logits(batch)
        differences[indices] = _differences(expected, found)
        agree[indices] = expected.argmax(axis=1) == found.argmax(axis=1)
    worst = int(differences.argmax())
    edges = {
        shape: float(_differences(reference.logits(batch), exported.logits(batch)).max())
        for shape, batch in edge_batches(limits, pad_token_id, seed).items()
    }
    return Parity(len(encoded), float(differences[worst]), float(agree.mean()), data.texts[worst], edges)


def _differences(expected: NDArray[np.float32], found: NDArray[np.float32]) -> NDArray[np.float32]:
    """Largest absolute difference of each row's logits, `(batch,)`."""
    difference = np.abs(expected - found).max(axis=1)
    # A NaN is as far away as can be; comparisons with it would pass.
    return np.where(np.isfinite(difference), difference, np.float32(np.inf))


def check_parity(parity: Parity, tolerance: float) -> None:
    """Raise a `UserError` if logits differ by more than `tolerance`.

    It names the worst text, or the worst shape where the texts are well.
    """
    if parity.max_difference > tolerance:
        excerpt = parity.worst_text[:LONGEST_EXCERPT]
        raise UserError(
            f"export failed: logits differ from PyTorch's by {parity.max_difference:.2e}, more than "
            f"{tolerance:.0e}, at {excerpt!r}; labels agree on {parity.label_agreement:.1%} of "
            f"{parity.examples} texts"
        )
    edges = parity.edge_differences
    shape = max(edges, key=edges.__getitem__)
    if edges[shape] > tolerance:
        raise UserError(
            f"export failed: logits differ from PyTorch's by {edges[shape]:.2e}, more than "
            f"{tolerance:.0e}, on random tokens of shape {shape} (texts x tokens)"
        )


def check_zeros(weights: Mapping[str, Tensor], exported: Mapping[str, Tensor]) -> None:
    """Raise a `RuntimeError` unless both hold the same layers with zeros at the same places."""
    if set(weights) != set(exported):
        absent = sorted(set(weights) ^ set(exported))
        raise RuntimeError(f"the graph's linear layers are not the model's: {', '.join(absent[:3])}")
    for name, weight in weights.items():
        if not torch.equal(weight == 0, exported[name] == 0):
            raise RuntimeError(f"{name}: the zeros of the graph are not those of the model")
