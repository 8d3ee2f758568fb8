"""The command line: its commands and their names, its errors and exit codes."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated

import typer

from compressor import __version__
from compressor.commands import attacking, exporting, making, recipes, running, tracking, validating
from compressor.errors import GateFailed, UserError
from compressor.ranks import ranks_of_environment

app = typer.Typer(
    name="compress",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Prune a BERT classifier, attack it, export it to ONNX, and prove what the artifact does. "
    "Exit codes: 0 done, 1 a gate failed, 2 bad input.",
)
resources_app = typer.Typer(
    no_args_is_help=True, help="What attacks need besides a victim: list, build, verify."
)
recipes_app = typer.Typer(
    no_args_is_help=True, help="Recipes of whole runs: show one complete, start one, their schema."
)

SHARED_BY_RANKS = ("attack", "prune")


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    if version:
        print(f"compress {__version__}")
        raise typer.Exit
    if ranks_of_environment().world > 1 and context.invoked_subcommand not in SHARED_BY_RANKS:
        raise UserError(
            f"torchrun shares out the work of compress {' and '.join(SHARED_BY_RANKS)} alone; start "
            f"compress {context.invoked_subcommand} without it"
        )


app.command()(making.finetune)
app.command()(making.soup)
app.command()(making.prune)
app.command()(attacking.attack)
app.command()(attacking.perturb)
app.command()(exporting.export)
app.command()(exporting.pack)
app.command()(exporting.unpack)
app.command()(exporting.verify)
app.command()(exporting.triton)
app.command()(exporting.engine)
app.command()(validating.validate)
app.command()(validating.compare)
app.command()(validating.inspect)
app.command()(tracking.track)
app.add_typer(resources_app, name="resources")
app.add_typer(recipes_app, name="recipe")
app.command("run")(running.run_command)
app.command()(running.quickstart)
app.command()(validating.doctor)
resources_app.command("list")(attacking.resources_list)
resources_app.command("build")(attacking.resources_build)
resources_app.command("verify")(attacking.resources_verify)
recipes_app.command("show")(recipes.show)
recipes_app.command("init")(recipes.init)
recipes_app.command("schema")(recipes.schema)

# What libraries would print besides; a user's own settings win. No telemetry.
QUIET = {
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}


def execute(arguments: list[str]) -> int:
    """Run one command line and return its exit code; errors of people get one line, no traceback."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        code = app(arguments, standalone_mode=False)
        return int(code or 0)
    except GateFailed as error:
        print(f"gate failed: {error}", file=sys.stderr)
        return 1
    except (UserError, typer.TyperException) as error:
        message = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        line = " ".join(message.split())
        print(f"error: {line}", file=sys.stderr)
        if "--json" in arguments:
            print(json.dumps({"error": line}, ensure_ascii=False))
        return 2
    except (KeyboardInterrupt, typer.Abort):
        print("stopped; run the same command again", file=sys.stderr)
        return 130


def main() -> None:
    """Entry point of `compress`."""
    sys.exit(execute(sys.argv[1:]))


if __name__ == "__main__":
    main()
