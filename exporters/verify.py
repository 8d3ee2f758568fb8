"""Proof that an exported graph is the classifier it was made from: outputs, zeros."""

from __future__ import annotations

import sys
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
        reference_accuracy: the reference's on the texts; None where they have no labels.
        accuracy: the exported predictor's, likewise.
    """

    examples: int
    max_difference: float
    label_agreement: float
    worst_text: str
    edge_differences: dict[str, float]
    reference_accuracy: float | None = None
    accuracy: float | None = None


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
    labels = np.zeros((2, len(encoded)), dtype=np.int64)
    for indices in progress.track(list(ragged_batches(encoded)), "Proving parity with PyTorch"):
        batch = pad([encoded[i] for i in indices], pad_token_id)
        expected, found = reference.logits(batch), exported.logits(batch)
        differences[indices] = _differences(expected, found)
        labels[:, indices] = expected.argmax(axis=1), found.argmax(axis=1)
    worst = int(differences.argmax())
    edges = {
        shape: float(_differences(reference.logits(batch), exported.logits(batch)).max())
        for shape, batch in edge_batches(limits, pad_token_id, seed).items()
    }
    right = None if data.labels is None else (labels == np.array(data.labels)).mean(axis=1).tolist()
    return Parity(
        len(encoded),
        float(differences[worst]),
        float((labels[0] == labels[1]).mean()),
        data.texts[worst],
        edges,
        *(right or ()),
    )


def _differences(expected: NDArray[np.float32], found: NDArray[np.float32]) -> NDArray[np.float32]:
    """Largest absolute difference of each row's logits, `(batch,)`."""
    difference = np.abs(expected - found).max(axis=1)
    # A NaN is as far away as can be; comparisons with it would pass.
    return np.where(np.isfinite(difference), difference, np.float32(np.inf))


def check_parity(parity: Parity, tolerance: float | None, least_agreement: float) -> None:
    """Raise a `UserError` if logits differ by more than `tolerance`, or too few labels agree.

    It names the worst text, or the worst shape where the texts are well.
    """
    excerpt = parity.worst_text[:LONGEST_EXCERPT]
    differs = f"export failed: logits differ from PyTorch's by {parity.max_difference:.2e}"
    agree = f"labels agree on {parity.label_agreement:.1%} of {parity.examples} texts"
    # Without a bound they must be finite all the same.
    bound = sys.float_info.max if tolerance is None else tolerance
    if parity.max_difference > bound:
        raise UserError(f"{differs}, more than {bound:.0e}, at {excerpt!r}; {agree}")
    if parity.label_agreement < least_agreement:
        raise UserError(
            f"export failed: {agree}, less than {least_agreement:.1%}; logits differ most, by "
            f"{parity.max_difference:.2e}, at {excerpt!r}"
        )
    edges = parity.edge_differences
    shape = max(edges, key=edges.__getitem__)
    if edges[shape] > bound:
        raise UserError(
            f"export failed: logits differ from PyTorch's by {edges[shape]:.2e}, more than "
            f"{bound:.0e}, on random tokens of shape {shape} (texts x tokens)"
        )


def check_zeros(weights: Mapping[str, Tensor], exported: Mapping[str, Tensor], *, exact: bool) -> None:
    """Raise a `RuntimeError` unless both hold the same layers with zeros at the same places.

    Args:
        exact: if not, the exported weights may have more zeros: in fewer bits than float32 small ones are.
    """
    if set(weights) != set(exported):
        absent = sorted(set(weights) ^ set(exported))
        raise RuntimeError(f"the graph's linear layers are not the model's: {', '.join(absent[:3])}")
    for name, weight in weights.items():
        zero, found = weight == 0, exported[name] == 0
        if zero.shape != found.shape or not torch.equal(zero, found if exact else zero & found):
            raise RuntimeError(f"{name}: the zeros of the graph are not those of the model")
