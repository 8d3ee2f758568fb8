"""Commands that look for the best artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compressor.commands.arguments import Force, Json, Model, Output
from compressor.commands.flags import section_flags
from compressor.commands.printing import print_result, print_search, results_only
from compressor.options import (
    AttackConfig,
    ColumnsConfig,
    LatencyTableConfig,
    RunConfig,
    SearchConfig,
    ValidateConfig,
)
from compressor.system.console import terminal_progress
from compressor.system.context import terminal_context


@section_flags
def latency_table(
    model: Annotated[
        str,
        typer.Argument(
            help="Model: directory or hub id. Only its config.json is read; the times are of random weights.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", help="File of the table, in JSON; must not exist yet.", show_default=False),
    ],
    options: LatencyTableConfig,
    run: RunConfig,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    as_json: Json = False,
) -> None:
    """Measure what heads and neurons cost on this machine, for pruning that heeds latency."""
    from compressor.commands.search_tables import latency_tables
    from compressor.search.latency import latency_table as measure

    with results_only(as_json):
        table = measure(model, options, run, output, force=force, progress=terminal_progress())
    print_result(as_json, table.model_dump(), "" if as_json else latency_tables(table))
    if not as_json:
        print_result(False, None, f"Latency table: {output}")


@section_flags
def search(
    model: Model,
    calibration: Annotated[
        str,
        typer.Option(
            "--calibration", help="Texts to prune with, without labels: file or hub id.", show_default=False
        ),
    ],
    selection: Annotated[
        str,
        typer.Option(
            "--selection",
            help="Labelled texts by which candidates are compared; no test texts: file or hub id.",
            show_default=False,
        ),
    ],
    test: Annotated[
        str,
        typer.Option(
            "--test",
            help="Labelled texts on which the chosen artifact is validated, once: file or hub id.",
            show_default=False,
        ),
    ],
    output: Output,
    options: SearchConfig,
    validated: ValidateConfig,
    attacked: AttackConfig,
    columns: ColumnsConfig,
    run: RunConfig,
    vocabulary: Annotated[
        str | None,
        typer.Option("--vocabulary", help="Texts whose pieces of the vocabulary the artifacts keep."),
    ] = None,
    take: Annotated[
        int | None,
        typer.Option("--take", min=0, help="Choose the candidate of this number, in place of the best."),
    ] = None,
    earlier: Annotated[
        str | None,
        typer.Option(
            "--earlier",
            help="Output of an earlier search: says whether the chosen artifact is better than that one's.",
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Search for the fastest or smallest artifact that holds the gates, and prove it on the test texts.

    Candidates are kept in OUTPUT.candidates: the same command resumes after an interruption, and one with
    other gates reuses what it shares. Exit code 1 if nothing holds the gates; the nearest candidate is named.
    """
    from compressor.search.candidates import SearchJob
    from compressor.search.stage import search_directory

    job = SearchJob(model, calibration, selection, test, vocabulary, options, validated, attacked)
    context = terminal_context(output, columns, run, force=force)
    with results_only(as_json):
        record = search_directory(job, context, take, earlier)
    print_search(as_json, record)
