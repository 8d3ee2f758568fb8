"""What commands print: tables for people, one JSON object for machines."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import GateFailed
from compressor.system.ranks import ranks_of_environment
from compressor.system.terminal import can_write, flush_out, printable, write_out

if TYPE_CHECKING:
    from compressor.search.record import SearchRecord
    from compressor.validation.schema import Report


@contextmanager
def results_only(as_json: bool) -> Iterator[None]:
    """With `--json`, send whatever libraries print to stderr, so that stdout holds one object."""
    if not as_json:
        yield
        return
    flush_out()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        # To where the libraries' words go, which need not be there to be read.
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os.dup2(stdout, 1)
        os.close(stdout)


def print_result(as_json: bool, value: Any, text: Any) -> None:
    """Print `value` as one line of JSON, or `text`: a string, or something that rich renders.

    Control characters in it, as labels and paths may have them, are written as escapes.
    """
    if not ranks_of_environment().is_first:
        return
    if as_json:
        write_out(json_text(value))
    elif isinstance(text, str):
        write_out(printable(text))
    else:
        # Slow to import, and not needed for lines.
        from compressor.commands.rendering import render

        write_out(render(text))


def json_text(value: Any, **options: Any) -> str:
    """JSON in the characters that stdout has."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, **options)
    return text if can_write(text) else json.dumps(value, allow_nan=False, **options)


def print_report(as_json: bool, report: Report, output: Path) -> None:
    from compressor.validation.gates.gates import failed_gates
    from compressor.validation.report.tables import report_table

    print_result(as_json, report.model_dump(), "" if as_json else report_table(report))
    if not as_json:
        print_result(False, None, f"Report: {output / 'report.html'}")
    failed = [gate.sentence for gate in failed_gates(report.gates)]
    if failed:
        raise GateFailed("; ".join(failed))


def print_search(as_json: bool, record: SearchRecord) -> None:
    from compressor.validation.gates.gates import failed_gates

    if as_json:
        print_result(True, record.model_dump(mode="json"), "")
    else:
        _print_candidates(record)
    if record.chosen is None:
        raise GateFailed(record.reason)
    failed = [result.sentence for result in failed_gates(record.test_gates)]
    if failed:
        raise GateFailed(f"on the test texts: {'; '.join(failed)}")


def _print_candidates(record: SearchRecord) -> None:
    from compressor.commands.search_tables import candidates_table, outcome_table
    from compressor.search.record import ARTIFACT, PAGE, REPORT_FOLDER

    print_result(False, None, candidates_table(record))
    if record.chosen is not None:
        print_result(False, None, outcome_table(record))
    if record.earlier is not None:
        print_result(False, None, record.earlier.sentence)
    print_result(False, None, f"Page: {record.path / PAGE}")
    if record.chosen is not None:
        report = record.path / REPORT_FOLDER / "report.html"
        print_result(False, None, f"Artifact: {record.path / ARTIFACT}; report: {report}")


@contextmanager
def optional_output(output: Path | None, force: bool) -> Iterator[None]:
    """Hold the claim of an output while the work is done that is written to it."""
    if output is None:
        yield
        return
    from compressor.system.files import claim

    with claim(output, force=force):
        yield


def write_optional(output: Path | None, force: bool, name: str, value: Any) -> None:
    if output is None:
        return
    from compressor.system.files import atomic_directory, write_json

    with atomic_directory(output, force=force) as working:
        write_json(working / name, value)
