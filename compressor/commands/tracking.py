"""The command that hands a report to MLflow: track."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compressor.commands.arguments import Json
from compressor.commands.printing import print_result, results_only


def track(
    report: Annotated[
        Path,
        typer.Argument(help="Folder of a run or a validation, or a report.json.", show_default=False),
    ],
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            "--tracking-uri",
            help="MLflow's server or folder; MLFLOW_TRACKING_URI, or ./mlruns, if not given.",
        ),
    ] = None,
    experiment: Annotated[str, typer.Option("--experiment", help="Made if there is none.")] = "compress",
    run_name: Annotated[
        str | None, typer.Option("--run-name", help="The name of the report's folder if not given.")
    ] = None,
    with_artifact: Annotated[
        bool,
        typer.Option(
            "--with-artifact", help="Upload the whole artifact, not only its manifest and bill of materials."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Log a report as one run of MLflow: options, figures, gates, files. A failed gate is no error."""
    from dataclasses import asdict

    from compressor.pipeline.mlflow import log_source, read_source

    folder = report if report.is_dir() else report.parent
    with results_only(as_json):
        source = read_source(report, with_artifact=with_artifact)
        run = log_source(source, experiment, run_name or folder.resolve().name, tracking_uri)
    print_result(
        as_json,
        asdict(run),
        f"Run: {run.run_id} ({run.run_name}, experiment {run.experiment}, {run.files} files)\n"
        f"Look at: {run.place}",
    )
