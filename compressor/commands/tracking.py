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
        typer.Argument(help="Directory of a run or a validation, or a report.json.", show_default=False),
    ],
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            "--tracking-uri",
            help="MLflow server or directory; by default MLFLOW_TRACKING_URI, or else ./mlruns.",
        ),
    ] = None,
    experiment: Annotated[
        str, typer.Option("--experiment", help="Experiment; created if it does not exist.")
    ] = "compress",
    run_name: Annotated[
        str | None,
        typer.Option("--run-name", help="Name of the run; by default that of the report's directory."),
    ] = None,
    with_artifact: Annotated[
        bool,
        typer.Option(
            "--with-artifact",
            help="Upload all files of the artifact, not only its manifest and bill of materials.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Log a report to MLflow as one run: options, metrics, gates, files. A failed gate is not an error."""
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
