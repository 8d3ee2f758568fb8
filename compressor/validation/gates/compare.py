"""Two reports side by side: what differs between their artifacts, and where figures do not compare."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from compressor.intervals import Interval
from compressor.validation.gates.baseline import RESTS_ON, differences
from compressor.validation.gates.metric import Basis, Measured, Metric
from compressor.validation.gates.readings import (
    CLASS_METRICS,
    FOOTPRINT_METRICS,
    INVARIANCE_METRICS,
    METRICS,
)
from compressor.validation.schema import Report


@dataclass(frozen=True)
class ComparedFigure:
    """One figure of both artifacts.

    Attributes:
        shape: batch size and sequence length, for times; else None.
        difference: the second's minus the first's; None where the two do not compare.
        interval: of the difference, at 95 %, for figures that have one.
        differs: what the figures rest on that differs between the reports.
    """

    metric: str
    shape: str | None
    first: float
    second: float
    difference: float | None
    interval: Interval | None
    differs: list[Basis]


@dataclass(frozen=True)
class Comparison:
    """Two reports.

    Attributes:
        differs: for each basis of figures, the entries of the environments that differ, if any do.
        seeds: of both; with other seeds other examples are attacked.
        left_out: metrics that one of the two lacks.
    """

    verdicts: tuple[str, str]
    seeds: tuple[int, int]
    differs: dict[Basis, list[str]]
    figures: list[ComparedFigure]
    left_out: list[str]


def compare_reports(first: Report, second: Report) -> Comparison:
    """Hold the artifacts of two reports against each other, figure by figure.

    Accuracies on the same examples are compared example by example; other intervals take the two figures as
    independent, which makes them wider, never narrower.
    """
    found = {basis: differences(first.environment, second.environment, basis) for basis in RESTS_ON}
    differs = {basis: names for basis, names in found.items() if names}
    left_out = _left_out(first, second)
    return Comparison(
        verdicts=(first.verdict, second.verdict),
        seeds=(first.seed, second.seed),
        differs=differs,
        figures=[
            figure
            for name, metric in METRICS.items()
            if name not in left_out
            for figure in _compared(name, metric, first, second, set(differs))
        ],
        left_out=left_out,
    )


def _left_out(first: Report, second: Report) -> list[str]:
    artifacts = [report.variants.artifact for report in (first, second)]
    lacks = any(figures.footprint is None for figures in artifacts)
    alone = any(figures.invariance is None for figures in artifacts)
    other = first.task_metric != second.task_metric
    of_others = _several(first) != _several(second)
    numbers = any(report.majority_share is None for report in (first, second))
    return [
        name
        for name in METRICS
        if (lacks and name in FOOTPRINT_METRICS)
        or (alone and name in INVARIANCE_METRICS)
        or (other and name.startswith("task_score"))
        or (of_others and "attack" in METRICS[name].basis)
        or (numbers and name in CLASS_METRICS)
    ]


def _several(report: Report) -> list[str]:
    """Names of the attacks, where there were several."""
    return [one.robustness.attack for one in report.variants.artifact.attacks]


def _compared(
    name: str, metric: Metric, first: Report, second: Report, differs: set[Basis]
) -> Iterator[ComparedFigure]:
    one, other = (report.variants.artifact for report in (first, second))
    readings = metric.read(Measured.of(first), one), metric.read(Measured.of(second), other)
    broken = sorted(metric.basis & differs)
    for place in readings[0]:
        if place in readings[1]:
            a, b = (entries[place] for entries in readings)
            yield ComparedFigure(
                metric=name,
                shape=place or None,
                first=a.value,
                second=b.value,
                difference=None if broken else b.value - a.value,
                interval=None if broken else metric.difference_interval(place, b, a, other, one),
                differs=broken,
            )
