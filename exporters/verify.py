"""Proof that an exported graph is the classifier it was made from: outputs, zeros."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.data.labels import task_of
from compressor.data.texts import TextData
from compressor.errors import UserError
from compressor.models.batching import Batch, Encoded, encode, pad
from compressor.models.classifier import Classifier
from compressor.models.invariance import Invariance
from compressor.models.predictors import Predictor
from compressor.system.context import Context

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
        label_agreement: share of texts with the same label; None of a regression.
        worst_text: the text with the largest difference.
        edge_differences: largest absolute difference of a logit on random tokens, by shape.
        reference_accuracy: the reference's on the texts; None where they have no labels.
        accuracy: the exported predictor's, likewise.
        variance_kept: of a regression, `variance_kept` of its answers; None of classes, or if PyTorch's
            answers are all the same.
    """

    examples: int
    max_difference: float
    label_agreement: float | None
    worst_text: str
    edge_differences: dict[str, float]
    reference_accuracy: float | None = None
    accuracy: float | None = None
    variance_kept: float | None = None


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
    layout, config = classifier.layout, classifier.model.config.to_dict()
    return InputLimits(
        layout.size(config, "vocab_size"), layout.longest_input(config), layout.segments(config)
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
    context: Context,
    limits: InputLimits,
) -> Parity:
    """Compare logits on real texts in ragged, padded batches, and on the batches of `edge_batches`."""
    encoded = encode(reference.tokenizer, data, context.columns.max_length)
    pad_token_id = int(reference.tokenizer.pad_token_id)
    differences = np.zeros(len(encoded))
    is_regression = task_of(reference.label_names) == "regression"
    labels = np.zeros((2, len(encoded)), dtype=np.int64)
    answers = np.zeros((2, len(encoded)))
    for indices in context.progress.track(list(ragged_batches(encoded)), "Proving parity with PyTorch"):
        batch = pad([encoded[i] for i in indices], pad_token_id)
        expected, found = reference.logits(batch), exported.logits(batch)
        differences[indices] = _differences(expected, found)
        labels[:, indices] = expected.argmax(axis=1), found.argmax(axis=1)
        answers[:, indices] = expected[:, 0], found[:, 0]
    worst = int(differences.argmax())
    edges = {
        shape: float(_differences(reference.logits(batch), exported.logits(batch)).max())
        for shape, batch in edge_batches(limits, pad_token_id, context.run.seed).items()
    }
    right = [None, None] if data.labels is None else (labels == np.array(data.labels)).mean(axis=1).tolist()
    return Parity(
        len(encoded),
        float(differences[worst]),
        None if is_regression else float((labels[0] == labels[1]).mean()),
        data.texts[worst],
        edges,
        reference_accuracy=right[0],
        accuracy=right[1],
        variance_kept=variance_kept(answers[0], answers[1]) if is_regression else None,
    )


def variance_kept(expected: NDArray[np.float64], found: NDArray[np.float64]) -> float | None:
    """Share of the variance of a regression's answers that others keep: 1 - mean squared error / variance.

    1 if they are equal, below 0 if the mean of the expected ones would be nearer; None if all expected
    ones are the same.

    Args:
        expected, found: `(texts,)`.
    """
    variance = expected.var()
    if variance == 0:
        return None
    share = 1 - np.square(expected - found).mean() / variance
    return float(share) if np.isfinite(share) else -sys.float_info.max


def _differences(expected: NDArray[np.float32], found: NDArray[np.float32]) -> NDArray[np.float32]:
    """Largest absolute difference of each row's logits, `(batch,)`."""
    difference = np.abs(expected - found).max(axis=1)
    # A NaN is as far away as can be; comparisons with it would pass.
    return np.where(np.isfinite(difference), difference, np.float32(np.inf))


def _agreement(parity: Parity) -> tuple[float | None, str]:
    """What the answers have in common, and in words; None where it cannot be told."""
    if parity.label_agreement is not None:
        share = parity.label_agreement
        return share, f"labels agree on {share:.1%} of {parity.examples} texts"
    kept = parity.variance_kept
    if kept is None:
        return None, f"PyTorch gives the same number for each of {parity.examples} texts"
    return kept, f"{kept:.1%} of the variance of PyTorch's answers to {parity.examples} texts is kept"


def check_parity(parity: Parity, tolerance: float | None, least_agreement: float) -> None:
    """Raise a `UserError` if logits differ by more than `tolerance`, or too few labels agree.

    It names the worst text, or the worst shape where the texts are well.

    Args:
        least_agreement: share of equal labels; of a regression, of its answers' variance that is kept.
    """
    excerpt = parity.worst_text[:LONGEST_EXCERPT]
    differs = f"export failed: logits differ from PyTorch's by {parity.max_difference:.2e}"
    agreement, agree = _agreement(parity)
    # Without a bound they must be finite all the same.
    bound = sys.float_info.max if tolerance is None else tolerance
    if parity.max_difference > bound:
        raise UserError(f"{differs}, more than {bound:.0e}, at {excerpt!r}; {agree}")
    if agreement is None and tolerance is None:
        raise UserError(f"export failed: {agree}; give other texts with --data, or --parity-tolerance")
    if agreement is not None and agreement < least_agreement:
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


def check_invariance(invariance: Invariance, tolerance: float) -> None:
    """Raise a `UserError` if a text's answer depends on what shares its batch.

    Args:
        tolerance: largest difference of a logit.
    """
    changed, shift = invariance.batch_disagreement or 0.0, invariance.worst_batch_shift
    if changed or shift > tolerance:
        raise UserError(
            f"export failed: the answer to a text depends on the others in its batch: logits differ by up to "
            f"{shift:.1e} (at most {tolerance:.0e} is allowed), labels on {changed:.1%} of "
            f"{invariance.examples} texts; use another --precision"
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
