"""What gates may bound and reports are compared by: each figure of a report by name. Pure functions."""

from __future__ import annotations

from collections.abc import Callable

from compressor.intervals import Interval
from compressor.validation.gates.attack_readings import (
    all_attacks_drop,
    attack_drop,
    drops_within_budgets,
    largest_drop,
    mean_drop,
    mean_under_attack,
    of_each,
    of_each_against,
    paired_all_attacks,
    paired_attacks,
    paired_within_budgets,
    success_rate,
    success_rate_rise,
    transfer_rate,
    under_all_attacks,
    under_attack,
    within_budgets,
)
from compressor.validation.gates.metric import (
    Basis,
    Measured,
    Metric,
    PairCounts,
    Pairs,
    Reading,
    Readings,
    ends,
    of_classes,
    share,
)
from compressor.validation.measure.answers import unpack_bits
from compressor.validation.schema import (
    AnswersAgainstFigures,
    FootprintFigures,
    InvarianceFigures,
    LatencyFigures,
    VariantFigures,
)

FOOTPRINT_METRICS = ("load_seconds", "peak_memory_mb", "model_memory_mb")
INVARIANCE_METRICS = ("batch_disagreement", "worst_batch_shift")
TASK_METRICS = ("task_score", "task_score_drop")
# Of several attacks together; all others on attacks are of each.
ALL_ATTACKS_METRICS = ("accuracy_under_all_attacks", "accuracy_under_all_attacks_drop")
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
    "class_coverage",
    "batch_disagreement",
    *ALL_ATTACKS_METRICS,
    *BUDGET_METRICS,
)
_ATTACKED: frozenset[Basis] = frozenset({"data", "attack"})
UNSETTLED = "the times did not settle"
ONE_CLASS = "the test data hold one class only, of which a constant answer is always right"


def shape_name(batch_size: int, sequence_length: int) -> str:
    """`1 x 32`."""
    return f"{batch_size} x {sequence_length}"


def _answers(figures: VariantFigures) -> AnswersAgainstFigures:
    if figures.answers_against_dense is None:
        raise ValueError("the artifact's answers were not compared with the dense model's")
    return figures.answers_against_dense


def _footprint(figures: VariantFigures) -> FootprintFigures:
    if figures.footprint is None:
        raise ValueError("load time and memory were not measured")
    return figures.footprint


def _invariance(read: Callable[[InvarianceFigures], float]) -> Metric:
    """A figure of texts alone and in batches; the largest of several, or of repeats, has no interval."""

    def readings(_: Measured, figures: VariantFigures) -> Readings:
        return {} if figures.invariance is None else {"": Reading(read(figures.invariance))}

    return Metric(readings, True, False, frozenset({"data", "machine"}))


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
    one, other = (unpack_bits(of_classes(figures.right), figures.examples) for figures in (first, second))
    return Pairs(
        int((one & other).sum()), int((one & ~other).sum()), int((other & ~one).sum()), first.examples
    )


def _majority(measured: Measured, _: VariantFigures) -> Readings:
    dense, share = measured.variants.dense, of_classes(measured.majority_share)
    ends = of_classes(dense.accuracy_interval)
    interval = Interval(ends.low - share, ends.high - share)
    undefined = ONE_CLASS if share == 1 else None
    return {"": Reading(of_classes(dense.accuracy) - share, interval, undefined=undefined)}


def _coverage(measured: Measured, _: VariantFigures) -> Readings:
    share = measured.class_coverage
    return {} if share is None else {"": Reading(share)}


def _accuracy_drop(figures: VariantFigures, dense: VariantFigures) -> Reading:
    drop = of_classes(_answers(figures).accuracy_drop)
    return Reading(of_classes(dense.accuracy) - of_classes(figures.accuracy), ends(drop.interval))


def _rank_correlation(_: Measured, figures: VariantFigures) -> Readings:
    """Nothing unless the task metric is of rankings."""
    found = _answers(figures)
    if found.rank_correlation is None:
        return {}
    return {"": Reading(found.rank_correlation, ends(found.rank_correlation_interval))}


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
        lambda v: share(of_classes(v.accuracy), v.accuracy_interval),
        "data",
        interval=True,
        pair=_paired_answers,
    ),
    "task_score": _of(lambda v: Reading(v.task_score, ends(v.task_score_interval)), "data", interval=True),
    "calibration_error": _of(lambda v: Reading(of_classes(v.calibration_error)), "data"),
    "accuracy_under_attack": Metric(of_each(under_attack), True, True, _ATTACKED, paired_attacks),
    "accuracy_under_all_attacks": Metric(under_all_attacks, True, True, _ATTACKED, paired_all_attacks),
    "accuracy_under_attack_within_budgets": Metric(
        within_budgets, True, True, _ATTACKED, paired_within_budgets
    ),
    "mean_accuracy_under_attack": Metric(mean_under_attack, True, True, _ATTACKED),
    "attack_success_rate": Metric(of_each(success_rate), True, True, _ATTACKED),
    "batch_disagreement": _invariance(lambda found: of_classes(found.batch_disagreement)),
    "worst_batch_shift": _invariance(lambda found: found.worst_batch_shift),
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
        lambda v, _: Reading(_answers(v).task_score_drop, ends(_answers(v).task_score_drop_interval)),
        "data",
        interval=True,
    ),
    "label_agreement": _against(
        lambda v, _: Reading(
            of_classes(_answers(v).label_agreement), ends(_answers(v).label_agreement_interval)
        ),
        "data",
        interval=True,
    ),
    "rank_correlation": Metric(_rank_correlation, False, True, frozenset({"data"})),
    "slice_regressions": _against(lambda v, _: Reading(sum(part.regression for part in v.slices)), "data"),
    "worst_slice_drop": _against(
        lambda v, _: Reading(max(part.drop.difference for part in v.slices if part.drop)), "data"
    ),
    "accuracy_under_attack_drop": Metric(of_each_against(attack_drop), False, True, _ATTACKED),
    "accuracy_under_all_attacks_drop": Metric(all_attacks_drop, False, True, _ATTACKED),
    "accuracy_under_attack_drop_within_budgets": Metric(drops_within_budgets, False, True, _ATTACKED),
    "mean_accuracy_under_attack_drop": Metric(mean_drop, False, True, _ATTACKED),
    # A bound on it tests "no less robust".
    "accuracy_under_attack_drop_upper": Metric(of_each_against(largest_drop), False, False, _ATTACKED),
    "transfer_rate": Metric(of_each_against(transfer_rate), False, True, _ATTACKED),
    "attack_success_rate_rise": Metric(of_each_against(success_rate_rise), False, False, _ATTACKED),
    # A dense model that is no better than a constant answer is the wrong checkpoint.
    "dense_over_majority": Metric(_majority, False, True, frozenset({"data"})),
    # Nothing is proven of a class that no test text has.
    "class_coverage": Metric(_coverage, False, False, frozenset({"data"})),
    "size_ratio": _against(lambda v, dense: Reading(v.size_bytes / dense.size_bytes)),
    "latency_ratio": Metric(_latency_ratio, False, False, frozenset({"machine"})),
}
