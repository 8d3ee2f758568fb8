"""What gates may bound and reports are compared by: each figure of a report by name. Pure functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from compressor.robustness.statistics import Interval, difference_interval, paired_interval
from compressor.validation.answers import unpack_bits
from compressor.validation.report import (
    AgainstFigures,
    AnswersAgainstFigures,
    DifferenceFigures,
    FootprintFigures,
    IntervalFigures,
    LatencyFigures,
    Report,
    RobustnessFigures,
    VariantFigures,
    Variants,
    WordBudgetFigures,
)

# What a figure depends on besides the model: where it differs, two reports do not compare.
Basis = Literal["data", "attack", "machine"]
FOOTPRINT_METRICS = ("load_seconds", "peak_memory_mb", "model_memory_mb")
TASK_METRICS = ("task_score", "task_score_drop")
WITHIN_BUDGETS = ("accuracy_under_attack_within_budgets", "accuracy_under_attack_drop_within_budgets")
# Of attacks whose figures within word budgets are read off one run.
BUDGET_METRICS = (*WITHIN_BUDGETS, "mean_accuracy_under_attack", "mean_accuracy_under_attack_drop")
# A regression's answers are numbers, of which none is right or wrong.
CLASS_METRICS = (
    "accuracy",
    "calibration_error",
    "accuracy_under_attack",
    "attack_success_rate",
    "accuracy_drop",
    "label_agreement",
    "slice_regressions",
    "worst_slice_drop",
    "accuracy_under_attack_drop",
    "accuracy_under_attack_drop_upper",
    "transfer_rate",
    "attack_success_rate_rise",
    "dense_over_majority",
    *BUDGET_METRICS,
)
UNSETTLED = "the times did not settle"


@dataclass(frozen=True)
class Measured:
    """What is read: the variants, and the share of the most frequent label; None of a regression."""

    variants: Variants
    majority_share: float | None

    @classmethod
    def of(cls, report: Report) -> Measured:
        return cls(report.variants, report.majority_share)


@dataclass(frozen=True)
class Reading:
    """One figure.

    Attributes:
        interval: at 95 %; None for figures that have none.
        doubt: why it is not to be relied on, if it is not.
        possible: the least and the most that it could be on these examples, whatever the artifact is;
            None where bounds outside are no mishap.
    """

    value: float
    interval: Interval | None = None
    doubt: str | None = None
    possible: Interval | None = None


# By shape, such as `1 x 32`, for times, and by share of words for bounded attacks; under an empty name for
# all else. Empty where the attack tells no such figure.
Readings = dict[str, Reading]


@dataclass(frozen=True)
class Pairs:
    """Numbers of examples that count for two shares, for one of them alone, and of all."""

    both: int
    only_first: int
    only_second: int
    examples: int


PairCounts = Callable[[VariantFigures, VariantFigures, str], Pairs | None]


@dataclass(frozen=True)
class Metric:
    """A figure by name.

    Attributes:
        read: its readings for a variant.
        of_one: whether it is of a single variant, so that the dense model has it as well.
        has_interval: whether its readings have one.
        basis: what it depends on besides the model.
        pair: counts of two variants on the same examples at a place, where these are known.
    """

    read: Callable[[Measured, VariantFigures], Readings]
    of_one: bool
    has_interval: bool
    basis: frozenset[Basis]
    pair: PairCounts = lambda first, second, place: None

    def difference_interval(
        self,
        place: str,
        first: Reading,
        second: Reading,
        of_first: VariantFigures,
        of_second: VariantFigures,
        factor: float = 1.0,
    ) -> Interval | None:
        """The interval of `first - factor * second`, at 95 %; None for figures that have none.

        Where the pairs are not known, the two count as independent, which makes it wider, never narrower.

        Args:
            place: of both readings.
            of_first: figures of the variant that `first` was read from; `of_second` likewise.
        """
        pairs = self.pair(of_first, of_second, place)
        if pairs is not None:
            counts = (pairs.both, pairs.only_first, pairs.only_second, pairs.examples)
            return paired_interval(*counts, factor=factor)
        if first.interval is None or second.interval is None:
            return None
        return difference_interval(first.value, first.interval, second.value, second.interval, factor=factor)


def shape_name(batch_size: int, sequence_length: int) -> str:
    """`1 x 32`."""
    return f"{batch_size} x {sequence_length}"


def budget_name(share: float) -> str:
    """`0.1 of words`."""
    return f"{share:g} of words"


def _mean_under_attack(_: Measured, figures: VariantFigures) -> Readings:
    found = _robustness(figures).mean_accuracy_under_attack
    if found is None:
        return {}
    return {"": Reading(found.mean, _ends(found.interval), possible=Interval(0.0, 1.0))}


def _mean_drop(measured: Measured, figures: VariantFigures) -> Readings:
    dense = _robustness(measured.variants.dense).mean_accuracy_under_attack
    drop = _attacks(figures).mean_accuracy_under_attack_drop
    if dense is None or drop is None:
        return {}
    return {"": Reading(drop.difference, _ends(drop.interval), possible=_difference_from(dense.mean))}


def _ends(interval: IntervalFigures | None) -> Interval | None:
    return None if interval is None else Interval(interval.low, interval.high)


def _answers(figures: VariantFigures) -> AnswersAgainstFigures:
    if figures.answers_against_dense is None:
        raise ValueError("the artifact's answers were not compared with the dense model's")
    return figures.answers_against_dense


def _attacks(figures: VariantFigures) -> AgainstFigures:
    if figures.against_dense is None:
        raise ValueError("the artifact's attack was not compared with that on the dense model")
    return figures.against_dense


def _footprint(figures: VariantFigures) -> FootprintFigures:
    if figures.footprint is None:
        raise ValueError("load time and memory were not measured")
    return figures.footprint


Figure = TypeVar("Figure")


def _of_classes(figure: Figure | None) -> Figure:
    if figure is None:
        raise ValueError("a regression has no such figure")
    return figure


def _robustness(figures: VariantFigures) -> RobustnessFigures:
    return _of_classes(figures.robustness)


def _share(value: float | None, interval: IntervalFigures | None) -> Reading:
    # Where there was nothing to count, such as no text to attack, nothing was counted.
    return Reading(value or 0.0, _ends(interval))


def _times(value: Callable[[LatencyFigures], float]) -> Callable[[Measured, VariantFigures], Readings]:
    def read(_: Measured, figures: VariantFigures) -> Readings:
        return {
            shape_name(entry.batch_size, entry.sequence_length): Reading(
                value(entry), doubt=None if entry.stable else UNSETTLED
            )
            for entry in figures.latency
        }

    return read


def _latency_ratio(measured: Measured, figures: VariantFigures) -> Readings:
    p50 = _times(lambda entry: entry.p50_ms)
    own, dense = p50(measured, figures), p50(measured, measured.variants.dense)
    return {
        shape: Reading(own[shape].value / dense[shape].value, doubt=own[shape].doubt or dense[shape].doubt)
        for shape in own
    }


def _paired_answers(first: VariantFigures, second: VariantFigures, _: str) -> Pairs | None:
    if first.examples != second.examples:
        return None
    one, other = (unpack_bits(_of_classes(figures.right), figures.examples) for figures in (first, second))
    return Pairs(
        int((one & other).sum()), int((one & ~other).sum()), int((other & ~one).sum()), first.examples
    )


def _paired_attacks(first: VariantFigures, second: VariantFigures, _: str) -> Pairs | None:
    against = _held_against(first, second)
    if against is None:
        return None
    return _pairs(against.accuracy_under_attack_drop, _robustness(first).accuracy_under_attack)


def _paired_within_budgets(first: VariantFigures, second: VariantFigures, place: str) -> Pairs | None:
    against = _held_against(first, second)
    if against is None:
        return None
    drops = {
        budget_name(drop.max_words_changed): drop.accuracy_under_attack_drop for drop in against.word_budgets
    }
    return _pairs(drops[place], _budgets(first)[place].accuracy_under_attack)


def _held_against(first: VariantFigures, second: VariantFigures) -> AgainstFigures | None:
    """The comparison of the two attacks, where the second is the dense model; None of any other two."""
    return first.against_dense if second.against_dense is None else None


def _pairs(drop: DifferenceFigures, share: float) -> Pairs:
    """What the drop from the dense model counted, the variant's own share at hand."""
    held = round(share * drop.examples)
    return Pairs(held - drop.only_second, drop.only_second, drop.only_first, drop.examples)


def _budgets(figures: VariantFigures) -> dict[str, WordBudgetFigures]:
    return {budget_name(budget.max_words_changed): budget for budget in _robustness(figures).word_budgets}


def _within_budgets(_: Measured, figures: VariantFigures) -> Readings:
    return {
        place: Reading(budget.accuracy_under_attack, _ends(budget.interval), possible=Interval(0.0, 1.0))
        for place, budget in _budgets(figures).items()
    }


def _drops_within_budgets(measured: Measured, figures: VariantFigures) -> Readings:
    dense = _budgets(measured.variants.dense)
    return {
        (place := budget_name(budget.max_words_changed)): Reading(
            budget.accuracy_under_attack_drop.difference,
            _ends(budget.accuracy_under_attack_drop.interval),
            possible=_difference_from(dense[place].accuracy_under_attack),
        )
        for budget in _attacks(figures).word_budgets
    }


def _majority(measured: Measured, _: VariantFigures) -> Readings:
    dense, share = measured.variants.dense, _of_classes(measured.majority_share)
    ends = _of_classes(dense.accuracy_interval)
    return {"": Reading(_of_classes(dense.accuracy) - share, Interval(ends.low - share, ends.high - share))}


def _accuracy_drop(figures: VariantFigures, dense: VariantFigures) -> Reading:
    drop = _of_classes(_answers(figures).accuracy_drop)
    return Reading(_of_classes(dense.accuracy) - _of_classes(figures.accuracy), _ends(drop.interval))


def _difference_from(share: float) -> Interval:
    """What is left of a share if another share, which may be any, is taken away."""
    return Interval(share - 1, share)


def _of(
    read: Callable[[VariantFigures], Reading],
    *basis: Basis,
    interval: bool = False,
    pair: PairCounts = lambda first, second, place: None,
) -> Metric:
    """A figure of any variant."""
    return Metric(lambda _, figures: {"": read(figures)}, True, interval, frozenset(basis), pair)


def _against(
    read: Callable[[VariantFigures, VariantFigures], Reading], *basis: Basis, interval: bool = False
) -> Metric:
    """A figure of a variant and the dense model."""
    return Metric(
        lambda measured, figures: {"": read(figures, measured.variants.dense)},
        False,
        interval,
        frozenset(basis),
    )


def _timed(value: Callable[[LatencyFigures], float]) -> Metric:
    return Metric(_times(value), True, False, frozenset({"machine"}))


# Drops are dense minus artifact.
METRICS: dict[str, Metric] = {
    "accuracy": _of(
        lambda v: _share(_of_classes(v.accuracy), v.accuracy_interval),
        "data",
        interval=True,
        pair=_paired_answers,
    ),
    "task_score": _of(lambda v: Reading(v.task_score, _ends(v.task_score_interval)), "data", interval=True),
    "calibration_error": _of(lambda v: Reading(_of_classes(v.calibration_error)), "data"),
    "accuracy_under_attack": _of(
        lambda v: replace(
            _share(_robustness(v).accuracy_under_attack, _robustness(v).accuracy_under_attack_interval),
            possible=Interval(0.0, 1.0),
        ),
        "data",
        "attack",
        interval=True,
        pair=_paired_attacks,
    ),
    "accuracy_under_attack_within_budgets": Metric(
        _within_budgets, True, True, frozenset({"data", "attack"}), _paired_within_budgets
    ),
    "mean_accuracy_under_attack": Metric(_mean_under_attack, True, True, frozenset({"data", "attack"})),
    "attack_success_rate": _of(
        lambda v: _share(_robustness(v).attack_success_rate, _robustness(v).attack_success_rate_interval),
        "data",
        "attack",
        interval=True,
    ),
    "sparsity": _of(lambda v: Reading(v.sparsity)),
    "size_mb": _of(lambda v: Reading(v.size_bytes / 1e6)),
    "flops": _of(lambda v: Reading(v.flops.all_weights)),
    "flops_nonzero": _of(lambda v: Reading(v.flops.nonzero_weights)),
    "load_seconds": _of(lambda v: Reading(_footprint(v).load_seconds), "machine"),
    "peak_memory_mb": _of(lambda v: Reading(_footprint(v).peak_memory_bytes / 1e6), "machine"),
    "model_memory_mb": _of(lambda v: Reading(_footprint(v).model_memory_bytes / 1e6), "machine"),
    "latency_p50": _timed(lambda entry: entry.p50_ms),
    "latency_p95": _timed(lambda entry: entry.p95_ms),
    "latency_p99": _timed(lambda entry: entry.p99_ms),
    "throughput": _timed(lambda entry: entry.examples_per_second),
    "accuracy_drop": _against(_accuracy_drop, "data", interval=True),
    "task_score_drop": _against(
        lambda v, _: Reading(_answers(v).task_score_drop, _ends(_answers(v).task_score_drop_interval)),
        "data",
        interval=True,
    ),
    "label_agreement": _against(
        lambda v, _: Reading(
            _of_classes(_answers(v).label_agreement), _ends(_answers(v).label_agreement_interval)
        ),
        "data",
        interval=True,
    ),
    "slice_regressions": _against(lambda v, _: Reading(sum(part.regression for part in v.slices)), "data"),
    "worst_slice_drop": _against(
        lambda v, _: Reading(max(part.drop.difference for part in v.slices if part.drop)), "data"
    ),
    "accuracy_under_attack_drop": _against(
        lambda v, dense: Reading(
            _robustness(dense).accuracy_under_attack - _robustness(v).accuracy_under_attack,
            _ends(_attacks(v).accuracy_under_attack_drop.interval),
            possible=_difference_from(_robustness(dense).accuracy_under_attack),
        ),
        "data",
        "attack",
        interval=True,
    ),
    "accuracy_under_attack_drop_within_budgets": Metric(
        _drops_within_budgets, False, True, frozenset({"data", "attack"})
    ),
    "mean_accuracy_under_attack_drop": Metric(_mean_drop, False, True, frozenset({"data", "attack"})),
    # What the drop may still be, given the number of examples: a bound on it tests "no less robust".
    "accuracy_under_attack_drop_upper": _against(
        lambda v, _: Reading(_attacks(v).accuracy_under_attack_drop.interval.high), "data", "attack"
    ),
    "transfer_rate": _against(
        lambda v, _: _share(_attacks(v).transfer.rate, _attacks(v).transfer.interval),
        "data",
        "attack",
        interval=True,
    ),
    "attack_success_rate_rise": _against(
        lambda v, dense: Reading(
            (_robustness(v).attack_success_rate or 0.0) - (_robustness(dense).attack_success_rate or 0.0),
            possible=_difference_from(1 - (_robustness(dense).attack_success_rate or 0.0)),
        ),
        "data",
        "attack",
    ),
    # A dense model that is no better than a constant answer is the wrong checkpoint.
    "dense_over_majority": Metric(_majority, False, True, frozenset({"data"})),
    "size_ratio": _against(lambda v, dense: Reading(v.size_bytes / dense.size_bytes)),
    "latency_ratio": Metric(_latency_ratio, False, False, frozenset({"machine"})),
}
