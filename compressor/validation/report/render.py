"""The report for people: Markdown for a job's summary, and one HTML page that opens offline."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from compressor.display.marking import mark_changes
from compressor.display.pages import NOTHING, page_templates
from compressor.validation.gates.gates import failed_gates
from compressor.validation.report.engine import engine_rows, engine_title
from compressor.validation.report.plots import (
    accuracy_plot,
    attacks_plot,
    latency_plot,
    latency_shapes,
    layers_plot,
    tradeoff_plot,
)
from compressor.validation.report.rows import (
    absent_line,
    attack_names,
    gate_counts,
    gate_interval,
    gate_limit,
    gate_value,
    latency_groups,
    latency_rounds,
    layer_rows,
    measured_variants,
    regressions,
    slice_rows,
    summary_rows,
    variant_groups,
)
from compressor.validation.schema import VARIANTS, Appendix, AttackRow, Report

LATENCY_NOTE = (
    "Dense and pruned run in PyTorch, the artifact in ONNX Runtime. Unstructured and N:M zeros do not "
    "speed up ONNX Runtime; structured removal and int8 do."
)
_TEMPLATES = Path(__file__).parent / "templates"


def render_markdown(report: Report, appendix: Appendix) -> str:
    """Return the report as GitHub Markdown, short enough for a job's summary: verdict, gates, one table."""
    return templates(_TEMPLATES).get_template("report.md.j2").render(_context(report, appendix))


def render_html(report: Report, appendix: Appendix) -> str:
    """Return the report as one HTML page with plots and attack examples; it loads nothing."""
    figures = measured_variants(report)
    is_timed, has_classes = bool(latency_shapes(figures)), report.majority_share is not None
    return (
        templates(_TEMPLATES)
        .get_template("report.html.j2")
        .render(
            _context(report, appendix),
            # The SVGs are made here from escaped text.
            accuracy_svg=Markup(accuracy_plot(figures)) if has_classes else None,  # noqa: S704
            tradeoff_svg=Markup(tradeoff_plot(figures)) if has_classes and is_timed else None,  # noqa: S704
            attacks_svg=Markup(attacks_plot(figures)) if figures["dense"].attacks else None,  # noqa: S704
            latency_svg=Markup(latency_plot(figures)) if is_timed else None,  # noqa: S704
            layers_svg=Markup(layers_plot(appendix.layers)) if appendix.layers else None,  # noqa: S704
            variant_groups=variant_groups(report),
            slice_rows=slice_rows(report),
            latency_groups=latency_groups(report),
            latency_note=LATENCY_NOTE,
            latency_rounds=latency_rounds(figures) if is_timed else "",
            layer_rows=layer_rows(appendix.layers),
            engine_title=engine_title(report.engine) if report.engine else None,
            engine_rows=engine_rows(report.engine) if report.engine else [],
            environment=list(environment_rows(report.environment)),
            attacks=[_attack(row) for row in appendix.attacks],
        )
    )


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
        "attack_names": attack_names(figures["dense"]),
        "under_attack": "all attacks" if figures["dense"].attacks else "attack",
        "failed": failed_gates(report.gates),
        "doubtful": [gate for gate in report.gates if gate.status in ("warn", "inconclusive")],
        "counts": gate_counts(report.gates),
        "regressions": regressions(report),
        "absent_line": absent_line(report),
        "summary_rows": summary_rows(report),
        "environment_line": environment_line(report.environment),
    }


@cache
def templates(folder: Path) -> Environment:
    """Return the templates of a folder, with the filters of reports."""
    environment = page_templates(folder)
    environment.filters |= {
        "md": escape_markdown,
        "code": code_markdown,
        "breakable": breakable,
        "gate_value": gate_value,
        "gate_limit": gate_limit,
        "gate_interval": gate_interval,
    }
    return environment
