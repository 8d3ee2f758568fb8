"""A whole run: the stages in their order, each a directory, from a recipe to a report.

A stage's directory appears whole or not at all, so a run that was stopped goes on behind its last
finished stage when it is started again with the same recipe and output.
"""

from __future__ import annotations

from pathlib import Path

from compressor.console import Progress
from compressor.data import load_text_data
from compressor.environment import resolve_device
from compressor.errors import UserError
from compressor.output import check_replaceable, remove_result
from compressor.patterns import parse_pattern
from compressor.pruning import prune_directory
from compressor.recipe import Recipe, dump_recipe
from compressor.souping import soup_directory
from compressor.training import finetune_directory
from compressor.validation.gates import parse_gates
from compressor.validation.report import Report
from compressor.validation.run import REPORT, ValidationJob, validate_into
from exporters.artifact import export_directory

RECIPE = "recipe.yaml"
DENSE, PRUNED, ARTIFACT = "dense", "pruned", "artifact"


def check_recipe(recipe: Recipe) -> None:
    """Find what is wrong with a recipe's values before anything runs.

    Raises:
        UserError: pattern, gates, device, a finetune or soup section without training data, or both.
    """
    parse_pattern(recipe.prune.pattern, recipe.prune.sparsity, recipe.prune.scope)
    parse_gates(recipe.validate_.gates)
    resolve_device(recipe.run.device)
    if recipe.finetune is not None and recipe.soup is not None:
        raise UserError(
            "soup: there is a finetune section as well; the dense model is made by one of the two"
        )
    if trains_dense(recipe):
        training_texts(recipe)


def trains_dense(recipe: Recipe) -> bool:
    """Whether the dense model is to be made, and is not the recipe's model itself."""
    return recipe.finetune is not None or recipe.soup is not None


def training_texts(recipe: Recipe) -> str:
    """The data to train the dense model on.

    Raises:
        UserError: the recipe names none.
    """
    if recipe.data.train is None:
        section = "finetune" if recipe.soup is None else "soup"
        raise UserError(f"data.train: missing; the {section} section needs texts to train on")
    return recipe.data.train


def train_dense(recipe: Recipe, output: Path, progress: Progress, processes: int = 1) -> None:
    """Make the dense model by one fine-tuning, or as the average of several.

    Args:
        processes: among which attacked examples are shared out.

    Raises:
        UserError: bad model, data or output.
    """
    given = recipe.model, training_texts(recipe), recipe.data
    if recipe.finetune is not None:
        finetune_directory(*given, recipe.finetune, recipe.run, output, force=False, progress=progress)
    elif recipe.soup is not None:
        soup_directory(
            *given, recipe.soup, recipe.run, output, processes=processes, force=False, progress=progress
        )


def run_recipe(
    recipe: Recipe, output: Path, *, processes: int = 1, force: bool, progress: Progress
) -> Report:
    """Run all stages of a recipe into `output`.

    Args:
        processes: among which attacked examples are shared out.

    Raises:
        UserError: bad recipe, model, data or output; nothing is written if it shows before the
            first stage is done.
    """
    check_recipe(recipe)
    trains = recipe.prune.algorithm == "randomized"
    load_text_data(recipe.data.calibration, recipe.data, "calibration", needs_labels=trains)
    load_text_data(recipe.data.test, recipe.data, "test")
    start_run(recipe, output, force=force, progress=progress)
    try:
        return run_stages(recipe, output, progress, processes)
    except UserError:
        if not any(path.is_dir() for path in output.iterdir()):
            remove_result(output)
        raise


def start_run(recipe: Recipe, output: Path, *, force: bool, progress: Progress) -> None:
    """Make the run's folder with its `recipe.yaml`, or go on with an unfinished run of that recipe."""
    text = dump_recipe(recipe)
    written = output / RECIPE
    if written.is_file() and not (output / REPORT).exists() and written.read_text(encoding="utf-8") == text:
        progress.log(f"Going on with the unfinished run in {output}")
        return
    check_replaceable(output, force)
    remove_result(output)
    try:
        output.mkdir(parents=True)
        written.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror}") from error


def run_stages(recipe: Recipe, output: Path, progress: Progress, processes: int = 1) -> Report:
    """Run the stages that have no directory in `output` yet, then validate."""
    dense = str(output / DENSE) if trains_dense(recipe) else recipe.model
    if trains_dense(recipe) and not (output / DENSE).exists():
        train_dense(recipe, output / DENSE, progress, processes)
    if not (output / PRUNED).exists():
        prune_directory(
            dense,
            recipe.data.calibration,
            recipe.data,
            recipe.prune,
            recipe.run,
            output / PRUNED,
            force=False,
            progress=progress,
            resume=True,
        )
    if not (output / ARTIFACT).exists():
        export_directory(
            str(output / PRUNED),
            recipe.data.test,
            recipe.data,
            recipe.export,
            recipe.run,
            output / ARTIFACT,
            force=False,
            progress=progress,
        )
    job = ValidationJob(
        dense=dense,
        artifact=output / ARTIFACT,
        pruned=output / PRUNED,
        data=recipe.data.test,
        columns=recipe.data,
        config=recipe.validate_,
        attack=recipe.attack,
        run=recipe.run,
        processes=processes,
    )
    return validate_into(output, job, progress)
