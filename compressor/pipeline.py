"""A whole run: the stages in their order, each a directory, from a recipe to a report.

A stage that the run's folder holds already, made of the same options, input and code, is reused. One
that is replaced appears whole or not at all, so a run that was stopped goes on behind its last finished
stage when it is started again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from compressor.classifier import check_checkpoint
from compressor.console import Progress
from compressor.data import load_text_data
from compressor.environment import describe_environment, resolve_device
from compressor.errors import UserError
from compressor.options import TaskName
from compressor.options.export import precision_of
from compressor.output import read_json
from compressor.patterns import parse_pattern
from compressor.pruning import check_pruning
from compressor.recipe import Recipe, dump_recipe
from compressor.run_folder import RunFolder, Step
from compressor.souping import check_soup
from compressor.stages import (
    REPORTS,
    TrainDense,
    known_labels,
    stages_of,
    task_of_run,
    training_texts,
    trains_dense,
)
from compressor.validation.baseline import check_task, prepare_gates
from compressor.validation.gates import parse_gates
from compressor.validation.report import Report
from compressor.word_substitution import check_substitution


def check_recipe(recipe: Recipe) -> None:
    """Find what is wrong with a recipe's values before anything runs.

    Raises:
        UserError: pattern, gates or their baseline, device, options of the export that contradict each
            other, a finetune or soup section without training data, or both, or whose own options
            contradict each other.
    """
    parse_pattern(recipe.prune.pattern, recipe.prune.sparsity, recipe.prune.scope)
    check_pruning(recipe.prune)
    prepare_gates(recipe.validate_, recipe.attack)
    precision_of(recipe.export)
    resolve_device(recipe.run.device)
    if recipe.finetune is not None and recipe.soup is not None:
        raise UserError(
            "soup: there is a finetune section as well; the dense model is made by one of the two"
        )
    if recipe.soup is not None:
        check_soup(recipe.soup)
    if recipe.finetune is not None:
        check_substitution(recipe.finetune)
    if trains_dense(recipe):
        training_texts(recipe)


def run_recipe(
    recipe: Recipe, output: Path, *, processes: int = 1, force: bool, progress: Progress
) -> Report:
    """Run the stages of a recipe in `output` that cannot be reused from there.

    Args:
        processes: among which attacked examples are shared out.
        force: begin anew, without what is in `output`.

    Raises:
        UserError: bad recipe, model, data or output; nothing is written if it shows before the
            first stage is done.
    """
    check_recipe(recipe)
    folder = RunFolder(output, force=force)
    task = task_of_run(recipe)
    plan = folder.plan(stages_of(recipe, task))
    if any(step.runs for step in plan):
        check_metrics(recipe, task)
        check_model(recipe)
        check_texts(recipe, task)
    folder.make(dump_recipe(recipe))
    try:
        return run_stages(recipe, plan, folder, progress, processes)
    except UserError:
        folder.remove_if_empty()
        raise


def check_metrics(recipe: Recipe, task: TaskName) -> None:
    """Raise a `UserError` if gates or the metric are not of what the run's models do."""
    check_task(parse_gates(recipe.validate_.gates), recipe.validate_, task)


def check_model(recipe: Recipe) -> None:
    """Raise a `UserError` if the run's model cannot be used, or does not take the recipe's lengths."""
    lengths = {
        "max_length": recipe.data.max_length,
        "sequence_lengths": max(recipe.validate_.sequence_lengths),
    }
    check_checkpoint(recipe.model, lengths=lengths, for_finetuning=trains_dense(recipe))


def check_texts(recipe: Recipe, task: TaskName) -> None:
    """Raise a `UserError` if calibration or test texts cannot be used."""
    names, trains = known_labels(task), recipe.prune.trains
    load_text_data(
        recipe.data.calibration, recipe.data, "calibration", label_names=names, needs_labels=trains
    )
    load_text_data(recipe.data.test, recipe.data, "test", label_names=names)


def run_stages(
    recipe: Recipe,
    plan: Sequence[Step],
    folder: RunFolder,
    progress: Progress,
    processes: int = 1,
    train: TrainDense | None = None,
) -> Report:
    """Run those stages of a plan that are not reused, and return the report.

    Args:
        train: makes the dense model; None does what the recipe says.

    Raises:
        UserError: see `run_recipe`.
    """
    text = dump_recipe(recipe)
    circumstances = _circumstances(recipe, folder)
    for step in plan:
        stage = step.stage
        progress.log(f"{stage.name}: {_in_words(step)}")
        if step.runs:
            resume = folder.can_resume(stage, circumstances)
            folder.begin(stage, circumstances)
            # Not needed, and slow to import, where all is reused.
            from compressor.stage_runs import run_stage

            start = time.monotonic()
            run_stage(stage, recipe, folder.path, resume, progress, processes, train)
            folder.finish(stage, time.monotonic() - start, text)
    folder.write_recipe(text)
    progress.log(_summary(plan))
    return _read_report(folder.path / REPORTS[0])


def _circumstances(recipe: Recipe, folder: RunFolder) -> dict[str, Any]:
    """What the checkpoint of a stage tells besides the facts of its key: names of places, and the machine."""
    return {
        "folder": str(folder.path),
        "working_directory": str(Path.cwd()),
        "model": recipe.model,
        "data": recipe.data.model_dump(),
        "environment": describe_environment(recipe.run),
    }


def _in_words(step: Step) -> str:
    return f"runs ({'; '.join(step.reasons)})" if step.runs else "reused"


def _summary(plan: Sequence[Step]) -> str:
    """Which stages ran, and which were reused."""
    parts = [
        (verb, [step.stage.name for step in plan if step.runs is runs])
        for verb, runs in (("reused", False), ("ran", True))
    ]
    return "; ".join(f"{verb}: {', '.join(names)}" for verb, names in parts if names)


def _read_report(path: Path) -> Report:
    try:
        return Report.model_validate(read_json(path))
    except ValidationError as error:
        raise UserError(f"{path}: is not what compress run writes; start anew with --force") from error
