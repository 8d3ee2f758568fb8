"""How plots look, whoever draws them: settings, axes, and SVG that is the same bytes every time."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

# Stands for the colour of text, which only the page knows that a plot is put into; no series has it.
INK = "#010203"
# Okabe and Ito's colours or near them, with at least 3:1 against a light and a dark background.
GREY, BLUE, ORANGE = "#808080", "#2f7fc1", "#d55e00"
_WIDE_RANGE = 20.0


@contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """A figure in inches, drawn with these settings whatever the user's matplotlibrc holds."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # Text stays text in the SVG, so whoever shows it brings the letters that are missing here.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        matplotlib.rcdefaults()
        ink = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color")
        settings: Any = {
            **dict.fromkeys(ink, INK),
            **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none"),
            "axes.axisbelow": True,
            "font.size": 9,
            "svg.fonttype": "none",
            # A name with dollars in it is a name.
            "text.parse_math": False,
        }
        matplotlib.rcParams.update(settings)
        yield Figure(figsize=(width, height), layout="constrained")


def quiet(axes: Axes, grid: Literal["x", "y"]) -> None:
    """Two spines and faint lines across `grid`."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, alpha=0.2, linewidth=0.6)


def legend_above(figure: Figure, axes: Axes, columns: int, title: str | None = None) -> None:
    """One legend for the whole figure, from the series of `axes`, under a title."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=columns,
        frameon=False,
        title=title,
        title_fontsize="large",
    )


def scale_to(axes: Axes, along: Literal["x", "y"], values: Sequence[float]) -> None:
    """From nought if the values are close together; logarithmic, with plain numbers, if they are not."""
    positive = [value for value in values if value > 0]
    spread = max(positive) / min(positive) if positive else 1.0
    if spread <= _WIDE_RANGE:
        axes.set(**{f"{along}lim": (0, max(values) * 1.08 or 1)})
        return
    log_scale(axes, along, spread)


def log_scale(axes: Axes, along: Literal["x", "y"], spread: float) -> None:
    """Make an axis logarithmic, with plain numbers.

    Args:
        spread: ratio of the largest value to the smallest.
    """
    # A nought has no place there: it leaves a gap, not a line that dives out of the picture.
    set_scale = axes.set_xscale if along == "x" else axes.set_yscale
    set_scale("log", nonpositive="mask")
    axis: Axis = axes.xaxis if along == "x" else axes.yaxis
    # Labels side by side need more room than labels on top of each other.
    few = spread < (50 if along == "x" else 500)
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    # The default, powers of ten with raised exponents, is many small texts in an SVG.
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def svg_of(figure: Figure, name: str, **options: Any) -> str:
    """`figure` as an SVG document without date or version; `name` seeds its ids."""
    matplotlib.rcParams["svg.hashsalt"] = name
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type")) | options.pop("metadata", {})
    figure.savefig(buffer, format="svg", metadata=metadata, **options)
    return buffer.getvalue()


def svg_file(figure: Figure, name: str, title: str) -> str:
    """`figure` as an SVG that stands alone: on white, with a title that readers aloud find."""
    return svg_of(figure, name, facecolor="white", metadata={"Title": title})


def inline_svg(figure: Figure, name: str, title: str) -> str:
    """Return `figure` as SVG to put into a page: no prolog, no metadata, ids of its own, the page's ink.

    Args:
        name: unique in the page; it begins the ids.
        title: what readers aloud say in place of the drawing.
    """
    svg = svg_of(figure, name)
    svg = svg[svg.index("<svg") :].strip()
    svg = svg.replace(INK, "currentColor").replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "")
    # A rule for `*` would hold for the whole page; the drawing inherits the same from its root.
    svg = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    # Matplotlib numbers the groups of every figure alike, and a page holds several figures.
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    head, _, body = svg.partition(">")
    label = escape(title)
    strokes = "stroke-linejoin: round; stroke-linecap: butt"
    return f'{head} style="{strokes}" role="img" aria-label="{label}">\n <title>{label}</title>{body}'
