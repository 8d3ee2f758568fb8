"""What a search found, for people: Markdown for a job's summary, and one HTML page that opens offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup

from compressor.search.plots import search_plot
from compressor.search.record import ARTIFACT, RECIPE, REPORT_FOLDER, SEARCH_RECORD, TABLE, SearchRecord
from compressor.search.rows import (
    candidate_columns,
    candidate_rows,
    headline,
    is_attacked,
    obstacles,
    outcome_rows,
    prediction_groups,
    score_name,
    table_rows,
    width_rows,
)
from compressor.validation.gates.gates import failed_gates
from compressor.validation.report.render import environment_line, environment_rows, templates

_TEMPLATES = Path(__file__).parent / "templates"


def search_markdown(record: SearchRecord) -> str:
    """Return the outcome as GitHub Markdown: verdict, gates, the table of candidates."""
    return templates(_TEMPLATES).get_template("search.md.j2").render(_context(record))


def search_html(record: SearchRecord) -> str:
    """Return the outcome as one HTML page with plots; it loads nothing."""
    return (
        templates(_TEMPLATES)
        .get_template("search.html.j2")
        .render(
            _context(record),
            # The SVGs are made here from escaped text.
            latency_svg=Markup(search_plot(record, "latency")),  # noqa: S704
            size_svg=Markup(search_plot(record, "size")),  # noqa: S704
            score_name=score_name(record),
            width_rows=width_rows(record),
            environment=list(environment_rows(record.environment)),
        )
    )


def _context(record: SearchRecord) -> dict[str, Any]:
    """What both forms show; numbers are text already, so that the two agree."""
    return {
        "record": record,
        "headline": headline(record),
        "failed": failed_gates(record.test_gates),
        "obstacles": obstacles(record),
        "outcome_rows": outcome_rows(record),
        "candidate_columns": candidate_columns(record),
        "candidate_rows": candidate_rows(record),
        "attacked": is_attacked(record),
        "prediction_groups": prediction_groups(record),
        "tables": table_rows(record),
        "files": _files(record),
        "environment_line": environment_line(record.environment),
    }


def _files(record: SearchRecord) -> dict[str, str]:
    """The files of the output and what they are, beside the pages."""
    chosen = {
        f"{REPORT_FOLDER}/report.html": "report of the chosen artifact on the test texts",
        RECIPE: "recipe that makes and validates the chosen artifact, without a search",
        TABLE: "latency table that it was made for",
        f"{ARTIFACT}/manifest.json": "manifest of the chosen artifact",
    }
    return {SEARCH_RECORD: "all figures", **({} if record.chosen is None else chosen)}
