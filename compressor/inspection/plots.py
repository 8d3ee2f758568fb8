"""Plots of how much of the dense model's knowledge is kept, as SVG files that stand alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from compressor.display.drawing import BLUE, ORANGE, drawing, legend_above, quiet, scale_to, svg_file

_COLOURS = {"clean": BLUE, "attacked": ORANGE}
_MODELS = ("dense", "sparse")
_MARKERS = {"clean": "o", "attacked": "D"}
_DISTANCES = {"cosine": "cosine", "relative_euclidean": "relative Euclidean"}
_POINTS = 72  # in an inch


def knowledge_plots(knowledge: Mapping[str, Any]) -> dict[str, str]:
    """Return the SVG of each plot of a `compare_directories` record, by the name of its file."""
    return {
        "cls-distance.svg": cls_distance_plot(knowledge),
        "reconstruction-error.svg": reconstruction_plot(knowledge),
        "attention.svg": attention_plot(knowledge),
    }


def cls_distance_plot(knowledge: Mapping[str, Any]) -> str:
    """Return an SVG with the distance of [CLS] to the dense model's behind each encoder layer (table 4).

    On a logarithmic axis a distance of nought has no place and no mark.
    """
    title = "Distance of [CLS] to the dense model's"
    with drawing(6.4, 3.3) as figure:
        panels = figure.subplots(1, len(_DISTANCES))
        for panel, (key, label) in zip(panels, _DISTANCES.items(), strict=True):
            every: list[float] = []
            for name, entry in knowledge["sets"].items():
                rows = [row for row in entry["cls_distance"] if row["layer"]]
                distances = [row[key] for row in rows]
                _series(panel, name, [row["layer"] for row in rows], distances, entry)
                every += distances
            panel.set_title(label, fontsize=9)
            _layer_axis(panel, len(rows))
            scale_to(panel, "y", every)
            quiet(panel, "y")
        _label_axes(figure, "encoder layer", "distance")
        legend_above(figure, panels[0], len(knowledge["sets"]), title)
        return svg_file(figure, "cls-distance", f"{title}, layer by layer")


def reconstruction_plot(knowledge: Mapping[str, Any]) -> str:
    """Return an SVG with the relative reconstruction error over the layers, a panel a matrix.

    A layer that could not be compared has no mark, nor has one without error on a logarithmic axis.
    """
    [first, *_] = knowledge["sets"].values()
    matrices = list(dict.fromkeys(row["matrix"] for row in first["reconstruction"]))
    title = "Reconstruction error of the linear layers"
    every: list[float] = []
    with drawing(6.4, 4.7) as figure:
        panels = figure.subplots(2, 3, sharex=True, sharey=True)
        for panel, matrix in zip(panels.flat, matrices, strict=True):
            known: list[float] = []
            for name, entry in knowledge["sets"].items():
                rows = [row for row in entry["reconstruction"] if row["matrix"] == matrix]
                # Not a number: no mark, and no line over the gap.
                errors = [math.nan if row["skipped"] else row["relative_error"] for row in rows]
                _series(panel, name, [row["layer"] for row in rows], errors, entry)
                known += [error for error in errors if not math.isnan(error)]
            if not known:
                reasons = "\n".join(sorted({row["skipped"] for row in rows}))
                note = f"not comparable:\n{reasons}"
                panel.text(0.5, 0.5, note, transform=panel.transAxes, ha="center", va="center", fontsize=8)
            every += known
            panel.set_title(matrix, fontsize=9)
            quiet(panel, "y")
        _layer_axis(panels[0, 0], len(rows))
        scale_to(panels[0, 0], "y", every or [1.0])
        compared = sum(len(entry["reconstruction"]) for entry in knowledge["sets"].values())
        gaps = len(every) < compared or (0.0 in every and panels[0, 0].get_yscale() == "log")
        along = "encoder layer" + (" (without a mark: not comparable, or no error)" if gaps else "")
        _label_axes(figure, along, "relative squared error")
        legend_above(figure, panels[0, 0], len(knowledge["sets"]), title)
        return svg_file(figure, "reconstruction-error", title)


def attention_plot(knowledge: Mapping[str, Any]) -> str:
    """Return an SVG with attention maps, mean over the heads: rows clean and attacked, columns dense
    and sparse, one colour scale (figure 2)."""
    layer, maps = knowledge["attention"]["layer"], knowledge["attention"]["maps"]
    side = min(6.0, max(2.4, 0.14 * max(len(entry["tokens"]) for entry in maps.values())))
    highest = max(max(map(max, entry[model])) for entry in maps.values() for model in _MODELS)
    title = f"Attention in encoder layer {layer}, mean over the heads"
    with drawing(2 * side + 2.0, (side + 1.2) * len(maps) + 0.4) as figure:
        panels = figure.subplots(len(maps), len(_MODELS), squeeze=False)
        for row, (name, entry) in zip(panels, maps.items(), strict=True):
            for panel, model in zip(row, _MODELS, strict=True):
                # One pixel a token, whatever size it is shown at.
                image = panel.imshow(
                    entry[model], cmap="Blues", vmin=0, vmax=highest, interpolation="none", aspect="auto"
                )
                panel.set_title(f"{model}, {name} text", fontsize=9)
                _token_ticks(panel, entry["tokens"], side / len(entry["tokens"]))
            row[1].set_yticklabels([])
        figure.suptitle(title, fontsize="large")
        _label_axes(figure, "attended token", "attending token")
        figure.colorbar(image, ax=panels, label="attention", shrink=1 / len(maps), aspect=25)
        return svg_file(figure, "attention", title)


def _label_axes(figure: Figure, along: str, up: str) -> None:
    figure.supxlabel(along, fontsize=9)
    figure.supylabel(up, fontsize=9)


def _layer_axis(panel: Axes, layers: int) -> None:
    panel.set_xlim(0.5, layers + 0.5)
    panel.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _series(panel: Axes, name: str, places: list[int], values: list[float], entry: Mapping[str, Any]) -> None:
    panel.plot(
        places,
        values,
        marker=_MARKERS[name],
        markersize=4,
        linewidth=1.2,
        color=_COLOURS[name],
        label=f"{name} ({entry['texts']} texts)",
    )


def _token_ticks(panel: Axes, tokens: list[str], cell: float) -> None:
    """Tokens on both axes, as many as there is room for; `cell` is a token's width in inches."""
    size = min(7.5, max(5.0, 0.75 * cell * _POINTS))
    step = math.ceil(1.1 * size / _POINTS / cell)
    places = range(0, len(tokens), step)
    labels = tokens[::step]
    panel.set_xticks(places, labels, rotation=90, fontsize=size)
    panel.set_yticks(places, labels, fontsize=size)
    panel.tick_params(length=0, pad=2)
