"""Arguments and options that several commands share, and that no recipe has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str, typer.Argument(help="BERT classifier: directory or hub id, safetensors.", show_default=False)
]
Encoder = Annotated[str, typer.Argument(help="BERT checkpoint: directory or hub id.", show_default=False)]
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
    Path, typer.Option("--output", help="Directory for the result; must not exist.", show_default=False)
]
RunOutput = Annotated[
    Path,
    typer.Option(
        "--output",
        help="Directory of the run; stages of an earlier run in it are reused.",
        show_default=False,
    ),
]
OptionalOutput = Annotated[
    Path | None, typer.Option("--output", help="Directory for the result as JSON; must not exist.")
]
Processes = Annotated[
    int,
    typer.Option(
        min=1, help="Processes that share out the attacked examples, and the threads; same outcomes."
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A value in place of the recipe's, such as prune.sparsity=0.75; may be repeated.",
        show_default=False,
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Replace an output that an earlier command wrote, and what a stopped one of other options or "
        "input left.",
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Never throw away what a stopped run left, also with --force. To go on with it, start the same "
        "command again: it needs no option.",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout; all else goes to stderr.")
]
