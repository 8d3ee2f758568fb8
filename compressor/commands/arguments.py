"""Arguments and options that several commands share, and that no recipe has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str, typer.Argument(help="Classifier: directory or hub id, safetensors.", show_default=False)
]
Encoder = Annotated[str, typer.Argument(help="Encoder: directory or hub id.", show_default=False)]
ModelOrArtifact = Annotated[
    str, typer.Argument(help="Classifier (directory or hub id) or exported artifact.", show_default=False)
]
Data = Annotated[
    str,
    typer.Option(
        "--data", help="Labelled texts: csv, tsv, jsonl or parquet file, or hub id.", show_default=False
    ),
]
Output = Annotated[
    Path, typer.Option("--output", help="Directory for the result; must not exist yet.", show_default=False)
]
RunOutput = Annotated[
    Path,
    typer.Option(
        "--output",
        help="Directory of the run; stages of an earlier run are reused if they are up to date.",
        show_default=False,
    ),
]
OptionalOutput = Annotated[
    Path | None, typer.Option("--output", help="Directory for the result as JSON; must not exist yet.")
]
Processes = Annotated[
    int,
    typer.Option(
        min=1,
        help="Number of processes for attacks; they split texts and threads. The results are the same.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a value of the recipe, such as prune.sparsity=0.75; can be repeated.",
        show_default=False,
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Replace an existing output of compress, and the partial results of an interrupted run with "
        "other options or input.",
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Keep the partial results of an interrupted run, even with --force. This option is not needed "
        "to resume: the same command resumes by itself.",
    ),
]
JSON_HELP = "Print one JSON object to stdout; everything else goes to stderr."
Json = Annotated[bool, typer.Option("--json", help=JSON_HELP)]
