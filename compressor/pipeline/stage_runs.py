"""How each stage of a run is run: the function of the stage, with what the recipe says."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from compressor.attacks.stage import attack_directory
from compressor.config.recipe import Recipe
from compressor.errors import GateFailed
from compressor.options import SearchConfig
from compressor.pipeline.keys import (
    ARTIFACT,
    ATTACK,
    DENSE,
    PRUNED,
    REPORTS,
    SEARCH,
    Stage,
    TrainDense,
    attack_stage,
    selection_texts,
    training_texts,
    trains_dense,
)
from compressor.pruning.interface import prune_directory
from compressor.search.candidates import SearchJob
from compressor.search.record import ARTIFACT as CHOSEN_ARTIFACT
from compressor.search.record import REPORT_FOLDER, read_search
from compressor.search.stage import search_directory
from compressor.system.context import Context
from compressor.system.files import atomic_directory
from compressor.system.markers import remove_own
from compressor.training.finetune_stage import finetune_directory
from compressor.training.soup_stage import soup_directory
from compressor.validation.schema import VARIANTS
from compressor.validation.stage import ValidationJob, validate_into
from exporters.stage import export_directory
from exporters.texts import ExportTexts


def run_stage(
    stage: Stage,
    recipe: Recipe,
    context: Context,
    train: TrainDense | None = None,
    shared: Mapping[str, int] | None = None,
) -> None:
    """Run one stage of a recipe, in place of what it wrote before.

    It goes on with what a stopped run left of an equal stage; what another one left is thrown away.

    Args:
        context: of the run; its output is the folder in which the stages that this one follows are done.
        train: makes the dense model; None does what the recipe says.
        shared: number of test texts among those that models are made with, by their role.

    Raises:
        UserError: bad model, data or options.
    """
    data, output = recipe.data, context.output
    dense = str(output / DENSE) if trains_dense(recipe) else recipe.model
    pruned, artifact = output / PRUNED, output / ARTIFACT
    models = {DENSE: dense, PRUNED: str(pruned), ARTIFACT: str(artifact)}
    attacked = next((name for name in VARIANTS if stage.name == attack_stage(name)), None)
    if attacked is not None:
        against = None if attacked == DENSE else output / ATTACK / DENSE
        own = replace(context, output=output / ATTACK / attacked)
        attack_directory(models[attacked], data.test, recipe.attack, own, against)
    elif stage.name == "dense":
        (train or train_dense)(recipe, replace(context, output=output / DENSE))
    elif stage.name == "search":
        _search(recipe, dense, replace(context, output=output / SEARCH))
    elif recipe.search is not None:
        _take_report(output)
    elif stage.name == "prune":
        prune_directory(dense, data.calibration, recipe.prune, replace(context, output=pruned))
    elif stage.name == "export":
        own = replace(context, output=artifact)
        sources = ExportTexts(
            calibration=data.calibration, reference=data.reference, vocabulary=data.vocabulary
        )
        export_directory(str(pruned), data.test, recipe.export, own, sources)
    else:
        job = ValidationJob(
            dense=dense,
            artifact=artifact,
            pruned=pruned,
            data=data.test,
            config=recipe.validate_,
            attack=recipe.attack,
            made_attacks={name: output / ATTACK / name for name in VARIANTS},
            allow_test_texts=data.allow_test_texts,
            shared=shared or {},
        )
        validate_into(job, context)


def _search(recipe: Recipe, dense: str, context: Context) -> None:
    """Run the search of a recipe, and copy the chosen artifact to where other recipes have theirs.

    Raises:
        UserError: bad model, texts or tables.
    """
    data = recipe.data
    job = SearchJob(
        model=dense,
        calibration=data.calibration,
        selection=selection_texts(recipe),
        test=data.test,
        vocabulary=data.vocabulary,
        config=recipe.search or SearchConfig(),
        validate=recipe.validate_,
        attack=recipe.attack,
    )
    record = search_directory(job, context)
    artifact = context.output.with_name(ARTIFACT)
    if record.chosen is None:
        remove_own(artifact)
        return
    with atomic_directory(artifact, force=True) as working:
        shutil.copytree(context.output / CHOSEN_ARTIFACT, working, dirs_exist_ok=True)


def _take_report(output: Path) -> None:
    """Copy the report of the artifact that a search chose into the folder of the run.

    Raises:
        GateFailed: it chose none.
    """
    report = output / SEARCH / REPORT_FOLDER
    if not report.is_dir():
        raise GateFailed(read_search(output / SEARCH).reason)
    for name in REPORTS:
        shutil.copyfile(report / name, output / name)


def train_dense(recipe: Recipe, context: Context) -> None:
    """Make the dense model by one fine-tuning, or as the average of several, in place of what is there.

    Raises:
        UserError: bad model, data or output.
    """
    if recipe.finetune is not None:
        finetune_directory(recipe.model, training_texts(recipe), recipe.finetune, context)
    elif recipe.soup is not None:
        soup_directory(recipe.model, training_texts(recipe), recipe.soup, context)
