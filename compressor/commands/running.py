"""Commands of whole runs: run, quickstart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compressor.commands.arguments import JSON_HELP, Force, Json, Processes, RunOutput, Set
from compressor.commands.flags import ADVANCED, section_flags
from compressor.commands.printing import print_report, print_result, print_search, results_only
from compressor.errors import UserError
from compressor.options import AttackConfig, PruneConfig, RunConfig
from compressor.system.console import terminal_progress

if TYPE_CHECKING:
    from compressor.config.recipe import Recipe
    from compressor.validation.schema import Report


@section_flags
def run_command(
    recipe: Annotated[Path, typer.Argument(help="Recipe in YAML.", show_default=False)],
    output: RunOutput,
    settings: Set = None,
    device: Annotated[str | None, typer.Option("--device", help="Override the recipe's device.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Override the recipe's seed.")] = None,
    processes: Processes = 1,
    dry: Annotated[
        bool,
        typer.Option("--dry-run", help="Report which stages would run, and why."),
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Run a whole recipe: fine-tune, prune, export, attack, validate.

    Stages in OUTPUT that have the same options, input and code are reused: after a change only the stages
    that depend on it run again, and an interrupted run resumes.
    """
    from compressor.config.overrides import Override, parse_overrides
    from compressor.config.recipe import load_recipe
    from compressor.pipeline.run import run_recipe

    overrides = parse_overrides(settings or [])
    for name, value in (("device", device), ("seed", seed)):
        if value is not None:
            overrides.append(Override(("run", name), value, f"--{name} {value}"))
    loaded = load_recipe(recipe, overrides)
    if dry:
        from compressor.pipeline.dry_run import dry_run, in_words

        with results_only(as_json):
            found = dry_run(loaded, output, force=force)
        print_result(as_json, found.facts(), in_words(found))
        return
    with results_only(as_json):
        report = run_recipe(loaded, output, processes=processes, force=force, progress=terminal_progress())
    _print_run(as_json, loaded, report, output)


@section_flags
def quickstart(
    options: PruneConfig,
    attacked: AttackConfig,
    run: RunConfig,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            help="Directory of the run; stages of an earlier run are reused if they are up to date.",
        ),
    ] = Path("runs/quickstart"),
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            rich_help_panel="Instead of a search",
            help="Prune once, with the options below, and export to fp32: the short way.",
        ),
    ] = False,
    force: Force = False,
    as_json: Annotated[
        bool, typer.Option("--json", rich_help_panel=f"{ADVANCED}Output", help=JSON_HELP)
    ] = False,
) -> None:
    """Run all stages on packaged data: fine-tune MiniLM on critic quotes, search, attack, validate.

    The search takes the fastest int8 artifact that holds the gates, and compares it with the dense model.
    """
    from compressor.pipeline.quickstart import quickstart_recipe, run_quickstart, search_recipe

    data = output.absolute() / "data"
    if not prune and options != PruneConfig():
        raise UserError("the search decides how the model is pruned; add --prune for options of pruning")
    recipe = quickstart_recipe(data, options, attacked, run) if prune else search_recipe(data, attacked, run)
    with results_only(as_json):
        report = run_quickstart(output, recipe, force=force, progress=terminal_progress())
    _print_run(as_json, recipe, report, output)


def _print_run(as_json: bool, recipe: Recipe, report: Report, output: Path) -> None:
    """Print the report of a run, and of a search its candidates as well."""
    if recipe.search is not None and not as_json:
        from compressor.pipeline.keys import SEARCH
        from compressor.search.record import read_search

        print_search(False, read_search(output / SEARCH))
    else:
        print_report(as_json, report, output)
