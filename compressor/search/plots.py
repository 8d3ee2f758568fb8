"""Plots of a search as inline SVG: quality of every candidate against its speed, and against its size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from compressor.display.drawing import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    drawing,
    inline_svg,
    legend_above,
    log_scale,
    quiet,
    svg_file,
)
from compressor.options import Objective
from compressor.search.record import CandidateFigures, ModelFigures, SearchRecord, front_of
from compressor.search.rows import score_name

Kind: TypeAlias = Literal["dense, PyTorch", "dense, exported", "holds the gates", "fails a gate"]

# Kinds differ in their markers, so that nobody needs to tell colours apart.
_STYLES: dict[Kind, dict[str, Any]] = {
    "dense, PyTorch": {"color": GREY, "fmt": "o", "markersize": 6},
    "dense, exported": {"color": BLUE, "fmt": "s", "markersize": 6},
    "holds the gates": {"color": ORANGE, "fmt": "D", "markersize": 6},
    "fails a gate": {"color": GREY, "fmt": "x", "markersize": 7, "markeredgewidth": 2},
}
_RING: dict[str, Any] = {"marker": "o", "s": 190, "facecolors": "none", "edgecolors": INK, "linewidths": 1.5}
_INCHES = 4.4, 3.7
_AXES: dict[Objective, str] = {
    "latency": "times as fast as the dense model in PyTorch",
    "size": "size, MB",
}


@dataclass(frozen=True)
class Point:
    """A model in a plot.

    Attributes:
        label: what stands beside it.
        x: its cost; `y`: its quality, with both ends of the 95 % interval.
    """

    label: str
    kind: Kind
    x: float
    y: float
    low: float
    high: float


def search_plot(record: SearchRecord, by: Objective) -> str:
    """Return an SVG with every candidate and the dense model, the front as a line, the chosen one ringed.

    Quality is the task's score, on the selection texts, with 95 % intervals. The axis of costs is
    logarithmic.
    """
    with drawing(*_INCHES) as figure:
        _draw(figure, record, by)
        return inline_svg(figure, f"{by}-plot", _title(record, by))


def search_picture(record: SearchRecord, by: Objective) -> str:
    """Return the same as an SVG file that stands alone."""
    with drawing(*_INCHES) as figure:
        _draw(figure, record, by)
        return svg_file(figure, f"{by}-plot", _title(record, by))


def _draw(figure: Figure, record: SearchRecord, by: Objective) -> None:
    points, axes = _points(record, by), figure.add_subplot()
    _draw_front(axes, record, by)
    for kind, style in _STYLES.items():
        _draw_points(axes, [point for point in points if point.kind == kind], kind, style)
    marked = record.chosen if record.chosen is not None else record.nearest
    if marked is not None:
        one = record.candidates[marked]
        name = "nearest to the gates" if record.chosen is None else "chosen"
        axes.scatter([_cost(one, by)], [_quality(one)[0]], label=name, zorder=4, **_RING)
    _scale(axes, record, points)
    axes.set_xlabel(_AXES[by])
    axes.set_ylabel(f"{score_name(record)}, selection texts")
    quiet(axes, grid="y")
    legend_above(figure, axes, 2)


def _draw_front(axes: Axes, record: SearchRecord, by: Objective) -> None:
    front = [record.candidates[number] for number in front_of(record.candidates, by)]
    xs, ys = [_cost(one, by) for one in front], [_quality(one)[0] for one in front]
    axes.plot(xs, ys, "--", color=INK, alpha=0.6, linewidth=1, zorder=1, label="front")


def _draw_points(axes: Axes, points: Sequence[Point], kind: Kind, style: dict[str, Any]) -> None:
    if not points:
        return
    xs, ys = [point.x for point in points], [point.y for point in points]
    # Rounding may put a value a hair outside its interval.
    ends = [
        [max(0.0, point.y - point.low) for point in points],
        [max(0.0, point.high - point.y) for point in points],
    ]
    axes.errorbar(xs, ys, yerr=ends, elinewidth=1, label=kind, **style)
    for point in points:
        axes.annotate(point.label, (point.x, point.y), xytext=(6, 5), textcoords="offset points", fontsize=8)


def _scale(axes: Axes, record: SearchRecord, points: Sequence[Point]) -> None:
    """Set the ends of both axes; quality is not drawn from nought, as its differences are small."""
    xs = [point.x for point in points]
    log_scale(axes, "x", max(xs) / min(xs))
    axes.set_xlim(min(xs) / 1.15, max(xs) * 1.25)
    low, high = min(point.low for point in points), max(point.high for point in points)
    room = 0.06 * (high - low) or 0.01
    axes.set_ylim(low - room, high + room)
    if record.task_metric == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))


def _title(record: SearchRecord, by: Objective) -> str:
    """What the picture shows, for those who do not see it."""
    told = [f"{point.label} at {point.x:.3g}, {point.y:.3f}" for point in _points(record, by)]
    return f"{score_name(record)} over {_AXES[by]}. {'; '.join(told)}."


def _points(record: SearchRecord, by: Objective) -> list[Point]:
    dense = record.dense_figures
    x = 1.0 if by == "latency" else dense.size_bytes / 1e6
    first = Point("dense", "dense, PyTorch", x, *_quality(dense))
    return [
        first,
        *(Point(str(one.number), _kind(one), _cost(one, by), *_quality(one)) for one in record.candidates),
    ]


def _kind(one: CandidateFigures) -> Kind:
    if one.target is None:
        return "dense, exported"
    return "holds the gates" if one.holds else "fails a gate"


def _cost(one: CandidateFigures, by: Objective) -> float:
    return one.speedup if by == "latency" else one.size_bytes / 1e6


def _quality(figures: CandidateFigures | ModelFigures) -> tuple[float, float, float]:
    """The task's score and both ends of its interval."""
    ends = figures.task_score_interval
    return figures.task_score, ends.low, ends.high
