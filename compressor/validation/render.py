"""The report for people: Markdown for a job's summary, and one HTML page that opens offline."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from compressor.marking import mark_changes
from compressor.pages import NOTHING, number, page_templates, percent
from compressor.validation.plots import (
    accuracy_plot,
    latency_by_shape,
    latency_plot,
    latency_shapes,
    layers_plot,
)
from compressor.validation.report import (
    VARIANTS,
    AgainstFigures,
    Appendix,
    AttackRow,
    GateResult,
    IntervalFigures,
    LatencyFigures,
    LayerRow,
    Report,
    VariantFigures,
)

INTERVAL = "Its 95 % interval"
DROP = "Drop under attack to dense"
TRANSFER = "Fooled by the attacks on dense"
LATENCY_NOTE = (
    "Dense and pruned run in PyTorch, the artifact in ONNX Runtime. Unstructured and N:M zeros do not "
    "speed up ONNX Runtime; structured removal and int8 do."
)
_TEMPLATES = Path(__file__).parent / "templates"


def render_markdown(report: Report, appendix: Appendix) -> str:
    """Return the report as GitHub Markdown: verdict, gates, variants, latency, facts, environment."""
    return _templates().get_template("report.md.j2").render(_context(report, appendix))


def render_html(report: Report, appendix: Appendix) -> str:
    """Return the report as one HTML page with plots and attack examples; it loads nothing."""
    figures = measured_variants(report)
    return (
        _templates()
        .get_template("report.html.j2")
        .render(
            _context(report, appendix),
            # The SVGs are made here from escaped text.
            accuracy_svg=Markup(accuracy_plot(figures)),  # noqa: S704
            latency_svg=Markup(latency_plot(figures)) if latency_shapes(figures) else None,  # noqa: S704
            layers_svg=Markup(layers_plot(appendix.layers)) if appendix.layers else None,  # noqa: S704
            layer_rows=layer_rows(appendix.layers),
            attacks=[_attack(row) for row in appendix.attacks],
        )
    )


def measured_variants(report: Report) -> dict[str, VariantFigures]:
    """Return the variants that were at hand, by name, the dense model first."""
    found = {name: getattr(report.variants, name) for name in VARIANTS}
    return {name: figures for name, figures in found.items() if figures is not None}


def variant_rows(report: Report) -> list[list[str]]:
    """Return the table of variants: a row for each figure, its name first, then a cell a variant."""
    variants = [getattr(report.variants, name) for name in VARIANTS]
    columns = [_variant_cells(figures) if figures else {} for figures in variants]
    return [[name, *(column.get(name, NOTHING) for column in columns)] for name in columns[0]]


def latency_groups(report: Report) -> list[tuple[str, list[list[str]]]]:
    """Return for each shape its name and a row a variant: name, p50, p95, throughput, speed to dense."""
    figures = measured_variants(report)
    by_variant = {name: latency_by_shape(variant) for name, variant in figures.items()}
    return [
        (
            f"{shape[0]} × {shape[1]}",
            [
                [name, *_latency_cells(entries.get(shape), by_variant["dense"].get(shape))]
                for name, entries in by_variant.items()
            ],
        )
        for shape in latency_shapes(figures)
    ]


def layer_rows(layers: Sequence[LayerRow]) -> list[list[str]]:
    """Return a row for each layer: name, sparsity, relative error."""
    return [[layer.name, percent(layer.sparsity), number(layer.relative_error, ".3g")] for layer in layers]


def environment_rows(environment: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield name and value of each entry; those of an inner mapping carry its name in front."""
    for key, value in environment.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from environment_rows(value, f"{name}: ")
        else:
            yield name, _plain(value)


def environment_line(environment: Mapping[str, Any]) -> str:
    """Return the machine and the packages in one line; inner mappings but the packages are left out."""
    own = {key: value for key, value in environment.items() if not isinstance(value, Mapping)}
    packages = environment.get("packages")
    listed = packages if isinstance(packages, Mapping) else {}
    entries = [f"{name} {value}" for name, value in environment_rows(own)]
    return "; ".join(entries + [f"{name} {_plain(value)}" for name, value in listed.items()])


def gate_value(gate: GateResult) -> str:
    """Return the value in the bound's unit, with digits enough to tell it from the bound."""
    short = f"{gate.value:.4g}"
    return f"{gate.value:.9g}" if short == f"{gate.limit:.4g}" else short


def interval(ends: IntervalFigures | None) -> str:
    """Return both ends of an interval of shares as percentages, None as a dash."""
    return NOTHING if ends is None else f"{ends.low:.1%} to {ends.high:.1%}"


def escape_markdown(text: object) -> str:
    """Return `text` in one line, with what Markdown or a table would take for markup escaped."""
    line = " ".join(str(text).split())
    # An underscore inside a word is no markup; metrics and file names stay readable as source.
    return re.sub(r"[\\`*\[\]|~$]|<(?=[A-Za-z/!?])|&(?=[#\w])|(?<!\w)_|_(?!\w)", r"\\\g<0>", line)


def breakable(name: str) -> Markup:
    """Return `name` as HTML that a narrow column may break after an underscore."""
    return Markup("_<wbr>").join(name.split("_"))


def code_markdown(text: object) -> str:
    """Return `text` as a code span that may stand in a table."""
    line = " ".join(str(text).split()).replace("`", "'")
    return "`" + line.replace("|", r"\|") + "`"


def _variant_cells(figures: VariantFigures) -> dict[str, str]:
    attack = figures.robustness
    return {
        "Accuracy": percent(figures.accuracy),
        "Test examples": str(figures.examples),
        "Accuracy under attack": percent(attack.accuracy_under_attack),
        INTERVAL: interval(attack.accuracy_under_attack_interval),
        **_against_cells(figures.against_dense),
        "Accuracy before the attack": percent(attack.accuracy),
        "Attack success rate": percent(attack.attack_success_rate),
        "Queries per example": number(attack.queries_per_example, ".1f"),
        "Attacked examples": str(attack.examples),
        "Sparsity of the encoder": percent(figures.sparsity),
        # A model from the hub has no directory to measure.
        "Size, MB": number(figures.size_bytes / 1e6 if figures.size_bytes else None, ".1f"),
    }


def _against_cells(against: AgainstFigures | None) -> dict[str, str]:
    """The comparison with the dense model; its own column has dashes."""
    if against is None:
        return dict.fromkeys((DROP, f"{DROP}, 95 % interval", TRANSFER), NOTHING)
    drop, transfer = against.accuracy_under_attack_drop, against.transfer
    return {
        DROP: percent(drop.difference),
        f"{DROP}, 95 % interval": interval(drop.interval),
        TRANSFER: f"{percent(transfer.rate)} of {transfer.texts}",
    }


def _latency_cells(entry: LatencyFigures | None, dense: LatencyFigures | None) -> list[str]:
    if entry is None:
        return [NOTHING] * 4
    speed = dense.p50_ms / entry.p50_ms if dense else None
    return [
        f"{entry.p50_ms:.2f}",
        f"{entry.p95_ms:.2f}",
        f"{entry.examples_per_second:.1f}",
        NOTHING if speed is None else f"{speed:.2f}×",
    ]


def _plain(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(entry) for entry in value)
    return str(value)


def _attack(row: AttackRow) -> dict[str, Any]:
    original, perturbed = mark_changes(row.original, row.perturbed)
    return {"row": row, "original": original, "perturbed": perturbed}


def _context(report: Report, appendix: Appendix) -> dict[str, Any]:
    """What both forms show; numbers are text already, so that the two agree."""
    figures = measured_variants(report)
    return {
        "report": report,
        "facts": appendix.facts,
        "variants": VARIANTS,
        "paths": {name: entry.path for name, entry in figures.items()},
        "attack_names": ", ".join(sorted({entry.robustness.attack for entry in figures.values()})),
        "failed": [gate for gate in report.gates if gate.status == "fail"],
        "variant_rows": variant_rows(report),
        "latency_groups": latency_groups(report),
        "latency_note": LATENCY_NOTE,
        "environment": list(environment_rows(report.environment)),
        "environment_line": environment_line(report.environment),
    }


@cache
def _templates() -> Environment:
    environment = page_templates(_TEMPLATES)
    environment.filters |= {
        "md": escape_markdown,
        "code": code_markdown,
        "breakable": breakable,
        "gate_value": gate_value,
    }
    return environment
