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

# The summaries are those of the docstrings, which are imported with the commands.
COMMANDS = {
    "finetune": Lazy("making.finetune", "Fine-tune a BERT checkpoint into a dense classifier."),
    "soup": Lazy(
        "making.soup",
        "Make a robust dense classifier: fine-tune several times, average by accuracy under attack.",
    ),
    "prune": Lazy(
        "making.prune", "Prune the encoder of a classifier with one of the published methods, or a baseline."
    ),
    "attack": Lazy(
        "attacking.attack", "Attack a classifier or an exported artifact with TextAttack, on local resources."
    ),
    "perturb": Lazy(
        "attacking.perturb",
        "Score typos, synonyms and casing not made for the model: seconds where an attack takes minutes.",
    ),
    "export": Lazy("exporting.export", "Export a classifier to ONNX and prove its parity with PyTorch."),
    "pack": Lazy(
        "exporting.pack",
        "Pack a pruned classifier for shipping: only the weights that are not zero, bit for bit.",
    ),
    "unpack": Lazy("exporting.unpack", "Restore a packed classifier, bit for bit."),
    "verify": Lazy("exporting.verify", "Check that an artifact is, file by file, what was written."),
    "triton": Lazy(
        "exporting.triton",
        "Make a model repository for Triton Inference Server of an artifact, and a client beside it.",
    ),
    "engine": Lazy(
        "exporting.engine",
        "Read what TensorRT made of a graph: sparse kernels, latency; exit 1 if the build failed.",
    ),
    "validate": Lazy(
        "validating.validate",
        "Hold the artifact against the dense classifier: accuracy, robustness, latency, size, gates.",
    ),
    "compare": Lazy(
        "validating.compare",
        "Set two reports side by side: their artifacts' figures, differences, and what does not compare.",
    ),
    "inspect": Lazy(
        "validating.inspect",
        "Show what a classifier or an artifact holds, and what it keeps of a dense model's knowledge.",
    ),
    "track": Lazy(
        "tracking.track",
        "Log a report as one run of MLflow: options, figures, gates, files. A failed gate is no error.",
    ),
    "run": Lazy("running.run_command", "Run a whole recipe: fine-tune, prune, export, attack, validate."),
    "quickstart": Lazy(
        "running.quickstart",
        "The main job on real input: MiniLM on critic quotes, fine-tuned, pruned, attacked, validated.",
    ),
    "doctor": Lazy("validating.doctor", "Check whether this machine can do the main job."),
}
RESOURCES = {
    "list": Lazy(
        "attacking.resources_list",
        "List what attacks need besides a victim: source, licence, checksum, what TextAttack would fetch.",
    ),
    "build": Lazy(
        "attacking.resources_build",
        "Make what is made of other resources and is not there, so that the first attack need not.",
    ),
    "verify": Lazy(
        "attacking.resources_verify",
        "Read all resources; exit 1 if one is missing, or is not what was pinned or built.",
    ),
}
RECIPES = {
    "show": Lazy(
        "recipes.show",
        "Print the complete recipe as it would run: every option that the file leaves out has its default.",
    ),
    "init": Lazy(
        "recipes.init",
        "Write a starter recipe: every option with its default, and what it means as a comment.",
    ),
    "schema": Lazy(
        "recipes.schema", "Print the JSON schema of recipes, with which editors complete and check them."
    ),
}

app = typer.Typer(
    name="compress",
    cls=lazy_group(COMMANDS),
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Prune a BERT classifier, attack it, export it to ONNX, and prove what the artifact does. "
    "Exit codes: 0 done, 1 a gate failed, 2 bad input, 70 a bug, 130 or 143 stopped by a signal.",
)
resources_app = typer.Typer(
    cls=lazy_group(RESOURCES),
    no_args_is_help=True,
    help="What attacks need besides a victim: list, build, verify.",
)
recipes_app = typer.Typer(
    cls=lazy_group(RECIPES),
    no_args_is_help=True,
    help="Recipes of whole runs: show one complete, start one, their schema.",
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


app.add_typer(resources_app, name="resources")
app.add_typer(recipes_app, name="recipe")

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
        way_on += ", and it goes on after what is finished"
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
        way_out = "free some, or take smaller batches or shorter texts"
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
