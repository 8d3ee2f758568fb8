"""What one pass over the test data tells of a variant: figures of its logits. Pure functions.

Each variant's logits are computed once; accuracy, task score, calibration, agreement with the dense
model and slices are all read from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from compressor.intervals import CONFIDENCE, Interval, paired_difference, wilson_interval
from compressor.models.metrics import correlation, measure
from compressor.models.ranking import rank_correlations, ranking_scores
from compressor.options import ClassMetricName, CorrelationName, RankingName
from compressor.validation.measure.confidence import expected_calibration_error
from compressor.validation.measure.slices import Slice
from compressor.validation.schema import (
    AnswersAgainstFigures,
    DifferenceFigures,
    IntervalFigures,
    SliceFigures,
)

RESAMPLES = 1000


@dataclass(frozen=True)
class Examples:
    """Facts about the test examples that do not depend on the model.

    Attributes:
        labels: class indices, `(examples,)`.
        slices: parts of the examples that are looked at on their own.
        metric: the task's own metric.
        seed: of the resampling behind the intervals of F1 and Matthews correlation.
    """

    labels: list[int]
    slices: list[Slice]
    metric: ClassMetricName
    seed: int


def answer_figures(
    logits: NDArray[np.float32], dense_logits: NDArray[np.float32] | None, examples: Examples
) -> dict[str, Any]:
    """Return the fields of `VariantFigures` that come from logits.

    Args:
        logits: the variant's, `(examples, labels)` float32.
        dense_logits: the dense model's, of the same shape; None for the dense model itself.
    """
    labels = np.array(examples.labels)
    answers = logits.argmax(axis=1)
    right = answers == labels
    dense = None if dense_logits is None else dense_logits.argmax(axis=1)
    score, drop = _task_score(answers, dense, examples, logits.shape[1])
    probabilities = softmax(logits.astype(np.float64), axis=1)
    return {
        "accuracy": float(right.mean()),
        "accuracy_interval": _share_interval(right),
        "examples": len(labels),
        "right": pack_bits(right),
        **score,
        "calibration_error": expected_calibration_error(probabilities, examples.labels),
        "answers_against_dense": None if dense is None else _against(answers, dense, labels, drop),
        "slices": [
            slice_figures(part, right, None if dense is None else dense == labels) for part in examples.slices
        ],
    }


@dataclass(frozen=True)
class NumberedExamples:
    """What is known of a regression's test examples, whoever answers.

    Attributes:
        numbers: the right ones, `(examples,)`.
        metric: the task's own metric.
        seed: of the resampling behind the intervals.
    """

    numbers: list[float]
    metric: CorrelationName
    seed: int


def number_figures(
    logits: NDArray[np.float32], dense_logits: NDArray[np.float32] | None, examples: NumberedExamples
) -> dict[str, Any]:
    """As `answer_figures`, for a regression: what is of classes alone is None.

    Args:
        logits, dense_logits: `(examples, 1)` float32.
    """
    answered = [found[:, 0] for found in (logits, dense_logits) if found is not None]
    numbers = np.array(examples.numbers)
    score, *of_dense = (correlation(examples.metric, answers, numbers) for answers in answered)
    drawn = _resampled_correlations(examples.metric, numbers, answered, examples.seed)
    against = {}
    if of_dense:
        against = {
            "task_score_drop": of_dense[0] - score,
            "task_score_drop_interval": _percentiles(drawn[:, 1] - drawn[:, 0]),
        }
    return _number_fields(len(numbers), score, _percentiles(drawn[:, 0]), against)


@dataclass(frozen=True)
class RankedExamples:
    """What is known of a reranker's test examples, whoever answers.

    Attributes:
        relevance: of each candidate to its query, `(examples,)`.
        groups: places of each query's candidates, see `compressor.models.ranking.candidates_by_query`.
        metric: the task's own metric.
        seed: of the resampling behind the intervals.
    """

    relevance: list[float]
    groups: list[NDArray[np.int64]]
    metric: RankingName
    seed: int


def ranking_figures(
    logits: NDArray[np.float32], dense_logits: NDArray[np.float32] | None, examples: RankedExamples
) -> dict[str, Any]:
    """As `number_figures`, for a reranker. Queries are drawn anew for the intervals, not their candidates.

    Args:
        logits, dense_logits: `(examples, 1)` float32.
    """
    relevance = np.array(examples.relevance)
    answers = logits[:, 0].astype(np.float64)
    scores = ranking_scores(examples.metric, answers, relevance, examples.groups)
    against: dict[str, Any] = {}
    if dense_logits is not None:
        dense = dense_logits[:, 0].astype(np.float64)
        drops = ranking_scores(examples.metric, dense, relevance, examples.groups) - scores
        same = rank_correlations(answers, dense, examples.groups)
        against = {
            "task_score_drop": float(drops.mean()),
            "task_score_drop_interval": _mean_interval(drops, examples.seed),
            "rank_correlation": float(same.mean()),
            "rank_correlation_interval": _mean_interval(same, examples.seed),
        }
    ends = _mean_interval(scores, examples.seed)
    return _number_fields(len(relevance), float(scores.mean()), ends, against)


def _mean_interval(values: NDArray[np.float64], seed: int) -> IntervalFigures:
    """The bootstrap interval of a mean; of the same seed and number of values the draws are the same."""
    generator = np.random.default_rng(seed)
    means = [values[generator.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    return _percentiles(np.array(means))


def _number_fields(
    examples: int, score: float, ends: IntervalFigures, against: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields of `VariantFigures` where answers are numbers.

    Args:
        ends: of the score.
        against: fields of `AnswersAgainstFigures`; empty for the dense model itself.
    """
    compared = None
    if against:
        nothing = dict.fromkeys(("accuracy_drop", "label_agreement", "label_agreement_interval"))
        compared = AnswersAgainstFigures.model_validate({**nothing, **against})
    return {
        "accuracy": None,
        "accuracy_interval": None,
        "examples": examples,
        "right": None,
        "task_score": score,
        "task_score_interval": ends,
        "calibration_error": None,
        "answers_against_dense": compared,
        "slices": [],
    }


def _resampled_correlations(
    metric: CorrelationName,
    numbers: NDArray[np.float64],
    answered: Sequence[NDArray[np.float32]],
    seed: int,
) -> NDArray[np.float64]:
    """As `_resampled_scores`, of answers that are numbers, `(RESAMPLES, variants)`."""
    generator = np.random.default_rng(seed)
    scores = np.empty((RESAMPLES, len(answered)))
    for number in range(RESAMPLES):
        rows = generator.integers(len(numbers), size=len(numbers))
        scores[number] = [correlation(metric, answers[rows], numbers[rows]) for answers in answered]
    return scores


def slice_figures(part: Slice, right: NDArray[np.bool_], dense: NDArray[np.bool_] | None) -> SliceFigures:
    """Return the accuracy on a slice, and its drop from the dense model.

    Args:
        right: which of all examples the variant gets right, `(examples,)`.
        dense: which the dense model gets right; None for the dense model itself.
    """
    own = right[part.places]
    drop = None if dense is None else _difference(dense[part.places], own)
    return SliceFigures(
        by=part.by,
        name=part.name,
        examples=len(own),
        accuracy=float(own.mean()),
        interval=_share_interval(own),
        drop=drop,
        regression=drop is not None and drop.interval.low > 0,
    )


def pack_bits(flags: NDArray[np.bool_]) -> str:
    """Return one bit for each flag, the first one highest, in hexadecimal."""
    return np.packbits(flags).tobytes().hex()


def unpack_bits(text: str, count: int) -> NDArray[np.bool_]:
    """Return the `count` flags that `pack_bits` packed.

    Raises:
        ValueError: no hexadecimal, or fewer flags.
    """
    flags = np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8)).astype(bool)
    if len(flags) < count:
        raise ValueError(f"{len(flags)} flags, not {count}")
    return flags[:count]


def _against(
    answers: NDArray[np.int64], dense: NDArray[np.int64], labels: NDArray[np.int64], drop: dict[str, Any]
) -> AnswersAgainstFigures:
    same = answers == dense
    return AnswersAgainstFigures(
        accuracy_drop=_difference(dense == labels, answers == labels),
        label_agreement=float(same.mean()),
        label_agreement_interval=_share_interval(same),
        **drop,
    )


def _task_score(
    answers: NDArray[np.int64], dense: NDArray[np.int64] | None, examples: Examples, classes: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The task's score and its drop from the dense model's, each with its interval."""
    labels = np.array(examples.labels)
    reference = answers if dense is None else dense
    score = measure(examples.metric, answers, examples.labels, classes=classes)
    drop = measure(examples.metric, reference, examples.labels, classes=classes) - score
    if examples.metric == "accuracy":
        interval = _share_interval(answers == labels)
        of_drop = _difference(reference == labels, answers == labels).interval
    else:
        rows = np.stack([labels, reference, answers], axis=1)
        drawn = _resampled_scores(examples.metric, rows, examples.seed, classes)
        interval, of_drop = _percentiles(drawn[:, 1]), _percentiles(drawn[:, 0] - drawn[:, 1])
    return (
        {"task_score": score, "task_score_interval": interval},
        {"task_score_drop": drop, "task_score_drop_interval": of_drop},
    )


def _resampled_scores(
    metric: ClassMetricName, rows: NDArray[np.int64], seed: int, classes: int
) -> NDArray[np.float64]:
    """Scores of two models on examples drawn with replacement, `(RESAMPLES, 2)`, both on the same draw.

    Args:
        rows: label, first and second model's answer of each example, `(examples, 3)`.
        classes: of the model; a draw may lack some.
    """
    cells, counts = np.unique(rows, axis=0, return_counts=True)
    generator = np.random.default_rng(seed)
    # How often each kind of row is drawn decides both scores; so it is drawn, not row by row.
    draws = generator.multinomial(len(rows), counts / len(rows), size=RESAMPLES)
    scores = np.empty((RESAMPLES, 2))
    for number, draw in enumerate(draws):
        labels, first, second = cells[draw > 0].T.tolist()
        weights = draw[draw > 0].tolist()
        scores[number] = [
            measure(metric, answers, labels, weights, classes=classes) for answers in (first, second)
        ]
    return scores


def _percentiles(values: NDArray[np.float64]) -> IntervalFigures:
    tail = (1 - CONFIDENCE) / 2 * 100
    low, high = np.percentile(values, [tail, 100 - tail])
    return IntervalFigures(low=float(low), high=float(high))


def _share_interval(flags: NDArray[np.bool_]) -> IntervalFigures:
    return _figures(wilson_interval(int(flags.sum()), len(flags)))


def _difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> DifferenceFigures:
    return DifferenceFigures.model_validate(asdict(paired_difference(first.tolist(), second.tolist())))


def _figures(interval: Interval) -> IntervalFigures:
    return IntervalFigures(low=interval.low, high=interval.high)
