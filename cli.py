"""The command line: its commands and their names, its errors and exit codes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from typing import Annotated

import typer

from compressor.commands.lazy import Lazy, lazy_group
from compressor.commands.printing import print_result
from compressor.errors import GateFailed, SeveralUserErrors, UserError, first_line
from compressor.system.disk import is_disk_full
from compressor.system.ranks import ranks_of_environment
from compressor.system.signals import Stopped, ignore_stopping, stop_asked, stop_by_unwinding
from compressor.system.terminal import (
    flush_out,
    on_one_line,
    prepare_streams,
    printable,
    stdout_is_broken,
    write_error,
    write_out,
)
from compressor.version import __version__

# Headings of the help, by what a person wants to do.
START = "Run all stages"
TRAIN = "Train and prune"
TEST = "Test and compare"
DEPLOY = "Export and deploy"

# The summaries repeat the docstrings, so that the help imports no command.
COMMANDS = {
    "quickstart": Lazy(
        "running.quickstart",
        "Run all stages on packaged data: fine-tune MiniLM on critic quotes, search, attack, validate.",
        START,
    ),
    "run": Lazy(
        "running.run_command", "Run a whole recipe: fine-tune, prune, export, attack, validate.", START
    ),
    "search": Lazy(
        "searching.search",
        "Search for the fastest or smallest artifact that holds the gates, and prove it on the test texts.",
        START,
    ),
    "doctor": Lazy("validating.doctor", "Check whether this machine can run all stages.", START),
    "finetune": Lazy("making.finetune", "Fine-tune an encoder into a dense classifier.", TRAIN),
    "soup": Lazy(
        "making.soup",
        "Fine-tune several times and average the runs that are most robust under attack (model soup).",
        TRAIN,
    ),
    "latency-table": Lazy(
        "searching.latency_table",
        "Measure what heads and neurons cost on this machine, for pruning that heeds latency.",
        TRAIN,
    ),
    "prune": Lazy(
        "making.prune", "Prune the encoder of a classifier with a published method or a baseline.", TRAIN
    ),
    "vocabulary": Lazy(
        "making.vocabulary",
        "Reduce the vocabulary of a classifier to the pieces that the texts of a task need.",
        TRAIN,
    ),
    "attack": Lazy(
        "attacking.attack",
        "Attack a classifier or an exported artifact with TextAttack, using local resources only.",
        TEST,
    ),
    "perturb": Lazy(
        "attacking.perturb",
        "Measure accuracy under random typos, synonyms and casing: takes seconds, an attack takes minutes.",
        TEST,
    ),
    "validate": Lazy(
        "validating.validate",
        "Compare the artifact with the dense classifier: accuracy, robustness, latency, size, gates.",
        TEST,
    ),
    "inspect": Lazy(
        "validating.inspect",
        "Show layers, sparsity and patterns of a model, and its differences from a dense one (--against).",
        TEST,
    ),
    "compare": Lazy(
        "validating.compare",
        "Compare two reports: the metrics of both artifacts, their differences, and what is not comparable.",
        TEST,
    ),
    "track": Lazy(
        "tracking.track",
        "Log a report to MLflow as one run: options, metrics, gates, files. A failed gate is not an error.",
        TEST,
    ),
    "export": Lazy(
        "exporting.export", "Export a classifier to ONNX and check its parity with PyTorch.", DEPLOY
    ),
    "engine": Lazy(
        "exporting.engine",
        "Report the TensorRT engine of a graph: sparse kernels, latency; exit code 1 if its build failed.",
        DEPLOY,
    ),
    "triton": Lazy(
        "exporting.triton",
        "Create a model repository for Triton Inference Server from an artifact, and a client.",
        DEPLOY,
    ),
    "pack": Lazy(
        "exporting.pack", "Pack a pruned classifier losslessly: a bitmask and the nonzero weights.", DEPLOY
    ),
    "unpack": Lazy("exporting.unpack", "Restore a packed classifier, bit for bit the same.", DEPLOY),
    "verify": Lazy(
        "exporting.verify",
        "Check every file of an artifact against its manifest, and with --run its answers on this machine.",
        DEPLOY,
    ),
}
RESOURCES = {
    "list": Lazy(
        "attacking.resources_list",
        "List the attack resources: source, licence, checksum, and the download that each replaces.",
    ),
    "build": Lazy(
        "attacking.resources_build",
        "Build the attack resources that are computed from others, before the first attack needs them.",
    ),
    "verify": Lazy(
        "attacking.resources_verify",
        "Check all attack resources; exit code 1 if one is missing or has changed.",
    ),
}
RECIPES = {
    "show": Lazy("recipes.show", "Print the complete recipe as it would run, with all defaults filled in."),
    "init": Lazy(
        "recipes.init",
        "Write a starter recipe: every option with its default, and its description as a comment.",
    ),
    "schema": Lazy(
        "recipes.schema", "Print the JSON schema of recipes, for completion and checks in editors."
    ),
}

app = typer.Typer(
    name="compress",
    cls=lazy_group(COMMANDS),
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Prune a text classifier, attack it, export it to ONNX, and validate the exported artifact. "
    "Exit codes: 0 done, 1 a gate failed, 2 bad input, 70 a bug, 130 or 143 stopped by a signal.",
)
resources_app = typer.Typer(
    cls=lazy_group(RESOURCES),
    no_args_is_help=True,
    help="Attack resources: list, build, verify.",
)
recipes_app = typer.Typer(
    cls=lazy_group(RECIPES),
    no_args_is_help=True,
    help="Recipes of whole runs: show, init, schema.",
)

PROGRAM = "compress"
COMPLETION = "_COMPRESS_COMPLETE"
SHARED_BY_RANKS = ("attack", "prune")


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    if version:
        write_out(f"compress {__version__}")
        raise typer.Exit
    if ranks_of_environment().world > 1 and context.invoked_subcommand not in SHARED_BY_RANKS:
        raise UserError(
            f"torchrun shares out the work of compress {' and '.join(SHARED_BY_RANKS)} alone; start "
            f"compress {context.invoked_subcommand} without it"
        )


app.add_typer(resources_app, name="resources", rich_help_panel=TEST)
app.add_typer(recipes_app, name="recipe", rich_help_panel=START)

# What libraries would print besides; a user's own settings win. No telemetry.
QUIET = {
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}


# Exit codes besides 0: those of signals are 128 and the signal's number.
GATE_FAILED, BAD_INPUT, BUG = 1, 2, 70
# The same command goes on after what a stopped one has finished.
GOING_ON = ("attack", "finetune", "prune", "quickstart", "run", "soup", "validate")


def execute(arguments: list[str]) -> int:
    """Run one command line and return its exit code; errors of people get one line, no traceback.

    Never raises: a bug gives its traceback on stderr and the code 70. Signal handlers and streams are as they
    were; `main` sets up those of a program.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        code = _run(arguments)
        flush_out()
        return code
    except BaseException as error:
        # What a library made of the exception that stops it.
        return _ended(arguments, stop_asked() or error)


def _ended(arguments: list[str], error: BaseException) -> int:
    """Say in one line what ended a command, and return its exit code."""
    if isinstance(error, GateFailed):
        _debug(error)
        write_error(f"gate failed: {on_one_line(str(error))}")
        return GATE_FAILED
    if isinstance(error, typer.TyperException):
        message = " ".join(error.format_message().split())
        # Without one the command's help was printed, since no subcommand was given.
        return _bad_input(arguments, [message], error) if message else BAD_INPUT
    if isinstance(error, SeveralUserErrors):
        return _bad_input(arguments, [error.heading, *error.problems], error)
    if isinstance(error, UserError):
        return _bad_input(arguments, [str(error)], error)
    if isinstance(error, KeyboardInterrupt):
        return _stopped(arguments, Stopped(signal.SIGINT))
    if isinstance(error, Stopped):
        return _stopped(arguments, error)
    if isinstance(error, SystemExit) and COMPLETION in os.environ:
        return int(error.code or 0)
    return _unexpected(arguments, error)


def _run(arguments: list[str]) -> int:
    """Run a command; return 0, or what it wants to exit with."""
    if COMPLETION in os.environ:
        # A shell asks what could come next; Typer answers and exits.
        app(arguments, prog_name=PROGRAM)
    # Not by calling `app`, which would make 1 of a closed pipe, and of the end of stdin no error.
    command = typer.main.get_command(app)
    try:
        with command.make_context(PROGRAM, list(arguments)) as context:
            command.invoke(context)
    except typer.Exit as end:
        return int(end.exit_code)
    return 0


def _bad_input(arguments: list[str], problems: list[str], error: BaseException) -> int:
    _debug(error)
    first, *others = map(on_one_line, problems)
    write_error("\n".join([f"error: {first}", *(f"  {line}" for line in others)]))
    _as_json(arguments, {"error": " ".join([first, "; ".join(others)]).strip()})
    return BAD_INPUT


def _stopped(arguments: list[str], stopped: Stopped) -> int:
    command = arguments[0] if arguments else ""
    way_on = "start it again"
    if command in GOING_ON:
        way_on += ", and it resumes after the finished parts"
    line = f"stopped by {stopped}: its output is as it was before; {way_on}"
    write_error(line)
    _as_json(arguments, {"error": line})
    return stopped.exit_code


def _unexpected(arguments: list[str], error: BaseException) -> int:
    """What no code expected: in most cases a bug."""
    by_rich = isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError)
    if by_rich or (isinstance(error, BrokenPipeError) and stdout_is_broken()):
        # While help was printed: results go through `write_out`.
        return 0
    if is_disk_full(error):
        return _bad_input(arguments, [f"no space left on a disk: {first_line(error)}"], error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        way_out = "free some, or use smaller batches or shorter texts"
        return _bad_input(arguments, [f"out of memory: {first_line(error)}; {way_out}"], error)
    write_error(printable("".join(traceback.format_exception(error)).rstrip()))
    line = (
        f"{type(error).__name__}: {first_line(error)}; this is a bug in compress {__version__}: please "
        f"report it with the lines above and the command"
    )
    write_error(f"error: {on_one_line(line)}")
    _as_json(arguments, {"error": on_one_line(line)})
    return BUG


def _as_json(arguments: list[str], value: dict[str, str]) -> None:
    """Print the one object that `--json` promises."""
    if "--json" in arguments:
        with contextlib.suppress(UserError):
            print_result(True, value, None)


def _debug(error: BaseException) -> None:
    """With COMPRESS_DEBUG=1 show where an error that has a line of its own comes from."""
    if os.environ.get("COMPRESS_DEBUG", "0") not in ("", "0"):
        write_error(printable("".join(traceback.format_exception(error)).rstrip()))


def main() -> None:
    """Entry point of `compress`: a program that has its streams and signals for itself."""
    prepare_streams()
    stop_by_unwinding()
    code = execute(sys.argv[1:])
    ignore_stopping()
    sys.exit(code)


if __name__ == "__main__":
    main()
