"""What every benchmark does with its result: JSON beside the others, and a Markdown table on stdout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compressor.system.files import read_json, write_json

RESULTS = Path(__file__).parent / "results"


def write_result(output: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON, whole or not at all."""
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_suffix(".unfinished")
    write_json(unfinished, result)
    unfinished.replace(output)


def known_rows(output: Path) -> list[dict[str, Any]]:
    """The rows of an earlier run that wrote `output`; none if there was none."""
    return list(read_json(output)["rows"]) if output.is_file() else []


def find_row(rows: Sequence[dict[str, Any]], line: dict[str, Any]) -> dict[str, Any] | None:
    """The row that was made for a line of the plan: it holds all that names the line."""
    return next((row for row in rows if all(row.get(key) == line[key] for key in line)), None)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; cells are written as `str` gives them."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
