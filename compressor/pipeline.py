"""A whole run: the stages in their order, each a directory, from a recipe to a report.

A stage that the run's folder holds already, made of the same options, input and code, is reused. One
that is replaced appears whole or not at all, so a run that was stopped goes on behind its last finished
stage when it is started again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError

from compressor.console import Progress
from compressor.data import load_text_data
from compressor.environment import describe_environment, resolve_device
from compressor.errors import UserError
from compressor.output import read_json
from compressor.patterns import parse_pattern
from compressor.pruning import prune_directory
from compressor.recipe import Recipe, dump_recipe
from compressor.robustness.attack_stage import attack_directory
from compressor.run_folder import RunFolder, Step
from compressor.souping import soup_directory
from compressor.stages import (
    ARTIFACT,
    ATTACK,
    DENSE,
    PRUNED,
    Stage,
    attack_stage,
    stages_of,
    training_texts,
    trains_dense,
)
from compressor.training import finetune_directory
from compressor.validation.gates import parse_gates
from compressor.validation.report import Report
from compressor.validation.run import REPORT, ValidationJob, validate_into
from exporters.artifact import export_directory

VARIANTS = (DENSE, PRUNED, ARTIFACT)


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


def train_dense(recipe: Recipe, output: Path, progress: Progress, processes: int = 1) -> None:
    """Make the dense model by one fine-tuning, or as the average of several, in place of what is there.

    Args:
        processes: among which attacked examples are shared out.

    Raises:
        UserError: bad model, data or output.
    """
    given = recipe.model, training_texts(recipe), recipe.data
    if recipe.finetune is not None:
        finetune_directory(*given, recipe.finetune, recipe.run, output, force=True, progress=progress)
    elif recipe.soup is not None:
        soup_directory(
            *given, recipe.soup, recipe.run, output, processes=processes, force=True, progress=progress
        )


# Makes the dense model of a recipe in a folder.
TrainDense: TypeAlias = Callable[[Recipe, Path, Progress, int], None]


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
    stages = stages_of(recipe)
    if any(step.runs for step in folder.plan(stages)):
        check_texts(recipe)
    folder.make(dump_recipe(recipe))
    try:
        return run_stages(recipe, stages, folder, progress, processes)
    except UserError:
        folder.remove_if_empty()
        raise


def check_texts(recipe: Recipe) -> None:
    """Raise a `UserError` if calibration or test texts cannot be used."""
    trains = recipe.prune.algorithm == "randomized"
    load_text_data(recipe.data.calibration, recipe.data, "calibration", needs_labels=trains)
    load_text_data(recipe.data.test, recipe.data, "test")


def run_stages(
    recipe: Recipe,
    stages: Sequence[Stage],
    folder: RunFolder,
    progress: Progress,
    processes: int = 1,
    train: TrainDense = train_dense,
) -> Report:
    """Run those of the recipe's stages that the folder does not hold, and return the report.

    Raises:
        UserError: see `run_recipe`.
    """
    plan = folder.plan(stages)
    text = dump_recipe(recipe)
    circumstances = _circumstances(recipe, folder)
    for step in plan:
        stage = step.stage
        progress.log(f"{stage.name}: {_in_words(step)}")
        if step.runs:
            resume = folder.can_resume(stage, circumstances)
            folder.begin(stage, circumstances)
            start = time.monotonic()
            _run_stage(stage, recipe, folder, progress, processes, train, resume)
            folder.finish(stage, time.monotonic() - start, text)
    folder.write_recipe(text)
    progress.log(_summary(plan))
    return _read_report(folder.path / REPORT)


def _run_stage(
    stage: Stage,
    recipe: Recipe,
    folder: RunFolder,
    progress: Progress,
    processes: int,
    train: TrainDense,
    resume: bool,
) -> None:
    output, data, run = folder.path, recipe.data, recipe.run
    dense = str(output / DENSE) if trains_dense(recipe) else recipe.model
    models = {DENSE: dense, PRUNED: str(output / PRUNED), ARTIFACT: str(output / ARTIFACT)}
    attacked = next((name for name in VARIANTS if stage.name == attack_stage(name)), None)
    if attacked is not None:
        attack_directory(
            models[attacked],
            data.test,
            data,
            recipe.attack,
            run,
            output / ATTACK / attacked,
            against=None if attacked == DENSE else output / ATTACK / DENSE,
            processes=processes,
            resume=resume,
            force=True,
            progress=progress,
        )
    elif stage.name == "dense":
        train(recipe, output / DENSE, progress, processes)
    elif stage.name == "prune":
        prune_directory(
            dense,
            data.calibration,
            data,
            recipe.prune,
            run,
            output / PRUNED,
            force=True,
            progress=progress,
            resume=resume,
        )
    elif stage.name == "export":
        export_directory(
            models[PRUNED],
            data.test,
            data,
            recipe.export,
            run,
            output / ARTIFACT,
            force=True,
            progress=progress,
        )
    else:
        job = ValidationJob(
            dense=dense,
            artifact=output / ARTIFACT,
            pruned=output / PRUNED,
            data=data.test,
            columns=data,
            config=recipe.validate_,
            attack=recipe.attack,
            run=run,
            processes=processes,
            keep_attacks=frozenset(VARIANTS),
        )
        validate_into(output, job, progress)


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
