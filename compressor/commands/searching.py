"""Commands that look for the best artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compressor.commands.arguments import Json
from compressor.commands.flags import section_flags
from compressor.commands.printing import print_result, results_only
from compressor.options import LatencyTableConfig, RunConfig
from compressor.system.console import terminal_progress


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
