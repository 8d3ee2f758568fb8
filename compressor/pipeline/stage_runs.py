"""How each stage of a run is run: the function of the stage, with what the recipe says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from compressor.attacks.stage import attack_directory
from compressor.config.recipe import Recipe
from compressor.pipeline.keys import (
    ARTIFACT,
    ATTACK,
    DENSE,
    PRUNED,
    Stage,
    TrainDense,
    attack_stage,
    training_texts,
    trains_dense,
)
from compressor.pruning.interface import prune_directory
from compressor.system.console import Progress
from compressor.training.finetune_stage import finetune_directory
from compressor.training.soup_stage import soup_directory
from compressor.validation.schema import VARIANTS
from compressor.validation.stage import ValidationJob, validate_into
from exporters.stage import export_directory


def run_stage(
    stage: Stage,
    recipe: Recipe,
    output: Path,
    progress: Progress,
    processes: int = 1,
    train: TrainDense | None = None,
    shared: Mapping[str, int] | None = None,
) -> None:
    """Run one stage of a recipe, in place of what it wrote before.

    It goes on with what a stopped run left of an equal stage; what another one left is thrown away.

    Args:
        output: the run's folder, in which the stages that this one follows are done.
        processes: among which attacked examples are shared out.
        train: makes the dense model; None does what the recipe says.
        shared: number of test texts among those that models are made with, by their role.

    Raises:
        UserError: bad model, data or options.
    """
    data, run = recipe.data, recipe.run
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
            force=True,
            progress=progress,
        )
    elif stage.name == "dense":
        (train or train_dense)(recipe, output / DENSE, progress, processes)
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
        )
    elif stage.name == "export":
        export_directory(
            models[PRUNED],
            data.test,
            data,
            recipe.export,
            run,
            output / ARTIFACT,
            calibration=data.calibration,
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
            allow_test_texts=data.allow_test_texts,
            shared=shared or {},
        )
        validate_into(output, job, progress)


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
