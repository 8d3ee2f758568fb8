"""Accuracy by number of calibration texts and by sparsity, without retraining: tables and plots.

    python -m benchmarks.curves DENSE CALIBRATION TEST [--quick] [--output FILE]

Figures 3 and 4 of Li et al., EMNLP 2023, with the adaptive method's rivals beside it. The plots are
written beside the result. A run that was stopped goes on where it was; delete the output to start anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from matplotlib.axes import Axes

from benchmarks.experiment import (
    CALIBRATION_TEXTS,
    Calibration,
    Dense,
    Experiment,
    Output,
    Seeds,
    Test,
    accuracy_cell,
    run_table,
)
from benchmarks.results_file import RESULTS, markdown_table
from compressor.display.drawing import BLUE, GREY, ORANGE, drawing, legend_above, quiet, svg_file

SPARSITY = 0.75
SIZES = (16, 64, 256, 1024, 2048)
SPARSITIES = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
COLOURS = {"adaptive": ORANGE, "SparseGPT": BLUE, "magnitude": GREY}
MARKERS = {"adaptive": "o", "SparseGPT": "s", "magnitude": "^"}


def plan(seeds: int, quick: bool) -> list[dict[str, Any]]:
    """The lines of both curves; the first seed of everything comes first."""
    lines = []
    for seed in range(1 if quick else seeds):
        points = [("calibration", size, SPARSITY) for size in (SIZES[:2] if quick else SIZES)]
        points += [
            ("sparsity", CALIBRATION_TEXTS, share) for share in (SPARSITIES[2:3] if quick else SPARSITIES)
        ]
        for curve, size, sparsity in points:
            for method in COLOURS:
                # It neither reads the calibration texts nor draws anything.
                if method == "magnitude" and (seed or curve == "calibration"):
                    continue
                config = {
                    "algorithm": method.lower(),
                    "calibration_examples": size,
                    "sparsity": sparsity,
                }
                lines.append({"curve": curve, "method": method, "seed": seed, "config": config})
    return lines


def _point(row: dict[str, Any]) -> float:
    """Where a table's line is on its curve."""
    config: dict[str, Any] = row["config"]
    return float(config["calibration_examples" if row["curve"] == "calibration" else "sparsity"])


def _rows_at(result: dict[str, Any], curve: str, method: str) -> dict[float, list[dict[str, Any]]]:
    """The lines of one method, one for each seed, by their point on the curve."""
    found: dict[float, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        if (row["curve"], row["method"]) == (curve, method):
            found.setdefault(_point(row), []).append(row)
    return dict(sorted(found.items()))


def table(result: dict[str, Any], curve: str) -> str:
    """Accuracy in per cent with its spread over seeds; methods in columns."""
    points = sorted({_point(row) for row in result["rows"] if row["curve"] == curve})
    form = "{:.0f} texts" if curve == "calibration" else "{:.0%} zeros"
    rows = [
        [
            form.format(point),
            *(accuracy_cell(_rows_at(result, curve, method).get(point, [])) for method in COLOURS),
        ]
        for point in points
    ]
    return markdown_table([f"dense {100 * result['dense_accuracy']:.1f}", *COLOURS], rows)


def _draw(axes: Axes, result: dict[str, Any], curve: str) -> None:
    for method, colour in COLOURS.items():
        at = _rows_at(result, curve, method)
        if not at:
            continue
        accuracies = [[row["accuracy"] for row in rows] for rows in at.values()]
        means = np.array([np.mean(values) for values in accuracies])
        axes.plot(list(at), means, MARKERS[method] + "-", color=colour, markersize=4, label=method)
        low, high = ([f(values) for values in accuracies] for f in (min, max))
        axes.fill_between(list(at), low, high, color=colour, alpha=0.2, linewidth=0)
    axes.axhline(result["dense_accuracy"], color="#444444", linestyle=":", linewidth=1, label="dense")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}")
    axes.set_ylabel("accuracy in per cent")
    quiet(axes, grid="y")


def plot(result: dict[str, Any], curve: str) -> str:
    """The curve as an SVG: means over seeds, and a band from the lowest to the highest."""
    with drawing(5.0, 3.2) as figure:
        axes = figure.add_subplot()
        _draw(axes, result, curve)
        if curve == "calibration":
            sizes = sorted({_point(row) for row in result["rows"] if row["curve"] == curve})
            axes.set_xscale("log", base=2)
            axes.set_xticks(sizes, [f"{size:.0f}" for size in sizes])
            axes.set_xlabel(f"calibration texts, at {SPARSITY:.0%} zeros")
            title = "Accuracy by number of calibration texts"
        else:
            axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}")
            axes.set_xlabel(f"zeros in per cent, with {CALIBRATION_TEXTS} calibration texts")
            title = "Accuracy by sparsity"
        legend_above(figure, axes, 4)
        return svg_file(figure, f"curve-{curve}", title)


def main(
    dense: Dense,
    calibration: Calibration,
    test: Test,
    output: Output = RESULTS / "curves.json",
    seeds: Seeds = 3,
    quick: Annotated[bool, typer.Option("--quick", help="Three points, one seed.")] = False,
) -> None:
    """Draw accuracy by number of calibration texts and by sparsity."""
    result = run_table(Experiment(dense, calibration, test), plan(seeds, quick), output)
    for curve in ("calibration", "sparsity"):
        print(table(result, curve), end="\n\n")
        svg: Path = output.with_name(f"{output.stem}_{curve}.svg")
        svg.write_text(plot(result, curve), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
