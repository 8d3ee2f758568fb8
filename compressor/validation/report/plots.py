"""Plots of a validation as inline SVG: readable in light and dark mode, the same bytes every time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from matplotlib.ticker import PercentFormatter

from compressor.display.drawing import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    drawing,
    inline_svg,
    legend_above,
    quiet,
    scale_to,
)
from compressor.validation.schema import IntervalFigures, LatencyFigures, LayerRow, VariantFigures

Shape = tuple[int, int]

_COLOURS = {"dense": GREY, "pruned": BLUE, "artifact": ORANGE}
_MARKERS = {"dense": "o", "pruned": "s", "artifact": "D"}


def accuracy_plot(figures: Mapping[str, VariantFigures]) -> str:
    """Return an SVG with bars of each variant's accuracy, and of its accuracy under attack if there was one.

    A regression's variants have neither.
    """
    with drawing(4.4, 3.0) as figure:
        axes = figure.add_subplot()
        width = 0.8 / len(figures)
        for number, (name, variant) in enumerate(figures.items()):
            shift = (number - (len(figures) - 1) / 2) * width
            if variant.accuracy is None:
                continue
            attack = variant.robustness
            shares = [variant.accuracy] + ([] if attack is None else [attack.accuracy_under_attack])
            places = [group + shift for group in range(len(shares))]
            bars = axes.bar(places, shares, width * 0.9, color=_COLOURS[name], label=name)
            axes.bar_label(bars, [f"{share:.1%}" for share in shares], padding=2, fontsize=8)
        attacked = any(variant.robustness is not None for variant in figures.values())
        several = any(variant.attacks for variant in figures.values())
        names = ["accuracy"]
        if attacked:
            names.append("under all attacks" if several else "accuracy under attack")
        axes.set_xticks(range(len(names)), names)
        axes.tick_params(axis="x", length=0)
        # Room above 100% for the label of a full bar.
        axes.set_ylim(0, 1.08)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        quiet(axes, grid="y")
        legend_above(figure, axes, len(figures))
        return inline_svg(figure, "accuracy-plot", "Accuracy and accuracy under attack of each variant")


def attacks_plot(figures: Mapping[str, VariantFigures]) -> str:
    """Return an SVG with each variant's accuracy under each of several attacks, and under all of them.

    Whiskers are 95 % intervals.
    """
    names = [one.robustness.attack for one in figures["dense"].attacks]
    with drawing(4.4, 1.1 + 0.5 * (len(names) + 1)) as figure:
        axes = figure.add_subplot()
        step = 0.7 / len(figures)
        for number, (name, variant) in enumerate(figures.items()):
            shift = (number - (len(figures) - 1) / 2) * step
            found = [one.robustness for one in variant.attacks]
            if variant.robustness is not None:
                found.append(variant.robustness)
            shares = [one.accuracy_under_attack for one in found]
            ends = [_whisker(one.accuracy_under_attack, one.accuracy_under_attack_interval) for one in found]
            axes.errorbar(
                shares,
                [row + shift for row in range(len(found))],
                xerr=[[low for (low,), _ in ends], [high for _, (high,) in ends]],
                color=_COLOURS[name],
                fmt=_MARKERS[name],
                markersize=5,
                label=name,
            )
        rows = len(names) + 1
        axes.set_yticks(range(rows), [*names, "all of them"])
        axes.set_ylim(rows - 0.5, -0.5)
        for row in range(1, rows):
            axes.axhline(row - 0.5, color=INK, alpha=0.2, linewidth=0.6)
        axes.tick_params(axis="y", length=0)
        # Room for whole markers at 0 % and 100 %.
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("accuracy under attack")
        quiet(axes, grid="x")
        legend_above(figure, axes, len(figures))
        title = f"Accuracy of each variant under {', '.join(names)}, and under all of them"
        return inline_svg(figure, "attacks-plot", title)


def tradeoff_plot(figures: Mapping[str, VariantFigures]) -> str:
    """Return an SVG with the accuracies of each variant over its median time at the smallest shape.

    That under attack is left out where nothing was attacked. Whiskers are 95 % intervals. A regression's
    variants have no accuracy.
    """
    shape = latency_shapes(figures)[0]
    with drawing(4.4, 3.0) as figure:
        axes = figure.add_subplot()
        times = []
        for name, variant in figures.items():
            entry = latency_by_shape(variant).get(shape)
            attack, accuracy_ends = variant.robustness, variant.accuracy_interval
            if entry is None or variant.accuracy is None or accuracy_ends is None:
                continue
            times.append(entry.p50_ms)
            style: dict[str, Any] = {"color": _COLOURS[name], "fmt": _MARKERS[name], "markersize": 6}
            axes.errorbar(
                entry.p50_ms,
                variant.accuracy,
                yerr=_whisker(variant.accuracy, accuracy_ends),
                label=name,
                **style,
            )
            if attack is not None:
                axes.errorbar(
                    entry.p50_ms,
                    attack.accuracy_under_attack,
                    yerr=_whisker(attack.accuracy_under_attack, attack.accuracy_under_attack_interval),
                    markerfacecolor="none",
                    **style,
                )
        # Room for whole markers at 0 % and 100 %.
        axes.set_ylim(-0.04, 1.04)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel(f"p50 at {shape[0]} × {shape[1]}, milliseconds")
        scale_to(axes, "x", times)
        quiet(axes, grid="y")
        legend_above(figure, axes, len(figures))
        return inline_svg(figure, "tradeoff-plot", "Accuracy and accuracy under attack over latency")


def _whisker(value: float, ends: IntervalFigures) -> list[list[float]]:
    """Distances of both ends; rounding may put a value a hair outside its interval."""
    return [[max(0.0, value - ends.low)], [max(0.0, ends.high - value)]]


def latency_plot(figures: Mapping[str, VariantFigures]) -> str:
    """Return an SVG with each variant's median time at each shape and a whisker to its 95th percentile."""
    shapes = latency_shapes(figures)
    with drawing(4.4, 1.1 + 0.5 * len(shapes)) as figure:
        axes = figure.add_subplot()
        step = 0.7 / len(figures)
        times: list[float] = []
        for number, (name, variant) in enumerate(figures.items()):
            shift = (number - (len(figures) - 1) / 2) * step
            at = latency_by_shape(variant)
            rows = [row for row, shape in enumerate(shapes) if shape in at]
            places = [row + shift for row in rows]
            p50 = [at[shapes[row]].p50_ms for row in rows]
            p95 = [at[shapes[row]].p95_ms for row in rows]
            times += p50 + p95
            colour = _COLOURS[name]
            axes.hlines(places, p50, p95, color=colour, linewidth=1.5)
            axes.plot(p95, places, "|", color=colour, markersize=7, markeredgewidth=1.5)
            axes.plot(p50, places, _MARKERS[name], color=colour, markersize=5, label=name)
        axes.set_yticks(range(len(shapes)), [f"{batch} × {length}" for batch, length in shapes])
        axes.set_ylim(len(shapes) - 0.5, -0.5)
        for row in range(1, len(shapes)):
            axes.axhline(row - 0.5, color=INK, alpha=0.2, linewidth=0.6)
        axes.tick_params(axis="y", length=0)
        axes.set_ylabel("batch × length")
        axes.set_xlabel("milliseconds: marker p50, end of the line p95")
        scale_to(axes, "x", times)
        quiet(axes, grid="x")
        legend_above(figure, axes, len(figures))
        return inline_svg(figure, "latency-plot", "Latency of each variant at each batch size and length")


def layers_plot(layers: Sequence[LayerRow]) -> str:
    """Return an SVG with each layer's sparsity and, where any is known, its relative error.

    On a logarithmic axis an error of nought has no place and is left out like an unknown one.
    """
    labels = short_names([layer.name for layer in layers])
    known = [
        (row, layer.relative_error)
        for row, layer in enumerate(layers)
        if layer.relative_error is not None and math.isfinite(layer.relative_error)
    ]
    with drawing(6.4, 0.8 + 0.165 * len(layers)) as figure:
        panels = figure.subplots(1, 2 if known else 1, sharey=True, squeeze=False)[0]
        rows = range(len(layers))
        panels[0].barh(rows, [layer.sparsity for layer in layers], 0.7, color=_COLOURS["pruned"])
        panels[0].set_xlim(0, 1)
        panels[0].xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        panels[0].set_xlabel("sparsity")
        panels[0].set_yticks(rows, labels, fontsize=7.5)
        panels[0].set_ylim(len(layers) - 0.4, -0.6)
        if known:
            places, errors = zip(*known, strict=True)
            panels[1].plot(errors, places, "D", color=_COLOURS["artifact"], markersize=3.5)
            panels[1].set_xlabel("relative reconstruction error")
            scale_to(panels[1], "x", errors)
        for panel in panels:
            panel.tick_params(axis="y", length=0)
            quiet(panel, grid="x")
        return inline_svg(figure, "layers-plot", "Sparsity and relative reconstruction error of each layer")


def latency_by_shape(variant: VariantFigures) -> dict[Shape, LatencyFigures]:
    """Return a variant's latency figures by batch size and sequence length."""
    return {(entry.batch_size, entry.sequence_length): entry for entry in variant.latency}


def latency_shapes(figures: Mapping[str, VariantFigures]) -> list[Shape]:
    """Return the shapes that any variant was timed at, in ascending order."""
    return sorted({shape for variant in figures.values() for shape in latency_by_shape(variant)})


def short_names(names: Sequence[str]) -> list[str]:
    """Return the dotted names without the leading parts that all of them share."""
    parts = [name.split(".") for name in names]
    columns = zip(*(part[:-1] for part in parts), strict=False)
    shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    return [".".join(part[shared:]) for part in parts]
