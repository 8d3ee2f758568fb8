"""A whole run: the stages in their order, each a directory, from a recipe to a report.

A stage that the run's folder holds already, made of the same options, input and code, is reused. One
that is replaced appears whole or not at all, so a run that was stopped goes on behind its last finished
stage when it is started again.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from compressor.config.recipe import Recipe, dump_recipe
from compressor.data.overlap import check_shared
from compressor.data.texts import TextData, load_text_data
from compressor.errors import UserError, check_all
from compressor.models.classifier import check_checkpoint
from compressor.models.ranking import check_ranking
from compressor.options import ExportConfig, PruneConfig, TaskName
from compressor.options.export import precision_of
from compressor.pipeline.folder import RunFolder, Step
from compressor.pipeline.keys import (
    REPORTS,
    TrainDense,
    known_labels,
    labels_of_run,
    selection_texts,
    stages_of,
    task_of_run,
    training_texts,
    trains_dense,
)
from compressor.pruning.interface import algorithm_named, check_pruning, pattern_of
from compressor.system.checkpoint import remove_leftovers
from compressor.system.console import Progress
from compressor.system.context import Context
from compressor.system.environment import resolve_device
from compressor.system.files import claims_run, read_json
from compressor.training.soup_stage import check_soup
from compressor.training.word_substitution import check_substitution
from compressor.validation.gates.baseline import check_task, prepare_gates
from compressor.validation.gates.gates import parse_gates
from compressor.validation.schema import Report


def check_recipe(recipe: Recipe) -> None:
    """Find what is wrong with a recipe's values before anything runs.

    Raises:
        UserError: all that is wrong of pattern, gates or their baseline, device, options of the export that
            contradict each other, a finetune or soup section without training data, or both, or whose own
            options contradict each other.
    """
    checks: list[Callable[[], object]] = [
        lambda: pattern_of(recipe.prune),
        lambda: check_pruning(recipe.prune),
        lambda: prepare_gates(recipe.validate_, recipe.attack),
        lambda: precision_of(recipe.export),
        lambda: resolve_device(recipe.run.device),
        lambda: _check_dense(recipe),
    ]
    if recipe.search is not None:
        checks.append(lambda: _check_search(recipe))
    if recipe.soup is not None:
        checks.append(functools.partial(check_soup, recipe.soup))
    if recipe.finetune is not None:
        checks.append(functools.partial(check_substitution, recipe.finetune))
    if trains_dense(recipe):
        checks.append(lambda: training_texts(recipe))
    check_all("the recipe", checks)


def _check_dense(recipe: Recipe) -> None:
    if recipe.finetune is not None and recipe.soup is not None:
        raise UserError(
            "soup: there is a finetune section as well; the dense model is made by one of the two"
        )


def _check_search(recipe: Recipe) -> None:
    """Raise a `UserError` if a search lacks its texts, or a section decides what it is to find."""
    selection_texts(recipe)
    for name, given, default in (
        ("prune", recipe.prune, PruneConfig()),
        ("export", recipe.export, ExportConfig()),
    ):
        if given != default:
            raise UserError(f"{name}: the search decides how the model is pruned and exported; leave it out")
    if recipe.data.reference is not None:
        raise UserError("data.reference: a search's artifacts carry made texts; leave it out")


@claims_run
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
    shared: dict[str, int] = {}
    if any(step.runs for step in plan):
        check_metrics(recipe, task)
        check_model(recipe)
        shared = check_texts(recipe, task)
    folder.make(dump_recipe(recipe))
    try:
        context = run_context(recipe, folder.path, progress, processes)
        return run_stages(recipe, plan, folder, context, shared=shared)
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


def check_texts(recipe: Recipe, task: TaskName) -> dict[str, int]:
    """Count the test texts among those that the models are made with, by the role of these.

    Raises:
        UserError: texts cannot be used, have labels that the run's models will not know, or some are test
            texts and that is not allowed.
    """
    made_with: dict[str, TextData] = {}
    names: Sequence[str] | None
    if trains_dense(recipe):
        train = load_text_data(training_texts(recipe), recipe.data, "train", label_names=known_labels(task))
        made_with["train"], names = train, train.label_names
    else:
        names = labels_of_run(recipe, task)
    test = load_text_data(recipe.data.test, recipe.data, "test", label_names=names)
    check_ranking(recipe.validate_.task_metric, test)
    made_with["calibration"] = load_text_data(
        recipe.data.calibration,
        recipe.data,
        "calibration",
        label_names=names,
        needs_labels=algorithm_named(recipe.prune.algorithm).needs_labels,
    )
    if recipe.search is not None:
        made_with["selection"] = load_text_data(
            selection_texts(recipe), recipe.data, "selection", label_names=names
        )
        check_ranking(recipe.validate_.task_metric, made_with["selection"])
    if recipe.data.vocabulary is not None:
        made_with["vocabulary"] = load_text_data(
            recipe.data.vocabulary, recipe.data, "vocabulary", label_names=names, needs_labels=False
        )
    if recipe.data.reference is not None:
        # Nothing is made with them, so they may be test texts.
        load_text_data(recipe.data.reference, recipe.data, "reference", label_names=names, needs_labels=False)
    allowed = recipe.data.allow_test_texts
    return {
        role: check_shared(f"data.{role}", data, test, allowed=allowed) for role, data in made_with.items()
    }


def run_context(recipe: Recipe, output: Path, progress: Progress, processes: int = 1) -> Context:
    """Return what the stages of a run are given; each replaces what it wrote before."""
    return Context(
        output=output,
        columns=recipe.data,
        run=recipe.run,
        progress=progress,
        processes=processes,
        force=True,
    )


def run_stages(
    recipe: Recipe,
    plan: Sequence[Step],
    folder: RunFolder,
    context: Context,
    train: TrainDense | None = None,
    shared: Mapping[str, int] | None = None,
) -> Report:
    """Run those stages of a plan that are not reused, and return the report.

    Args:
        context: of the run, see `run_context`.
        train: makes the dense model; None does what the recipe says.
        shared: as `check_texts` counts; for the report.

    Raises:
        UserError: see `run_recipe`.
    """
    text = dump_recipe(recipe)
    for step in plan:
        stage = step.stage
        context.progress.log(f"{stage.name}: {_in_words(step)}")
        if step.runs:
            folder.begin(stage)
            # Not needed, and slow to import, where all is reused.
            from compressor.pipeline.stage_runs import run_stage

            start = time.monotonic()
            run_stage(stage, recipe, context, train, shared)
            folder.finish(stage, time.monotonic() - start, text)
        else:
            # A stage may have been killed when its result was whole.
            for name in stage.outputs:
                if (folder.path / name).is_dir():
                    remove_leftovers(folder.path / name)
    folder.write_recipe(text)
    context.progress.log(_summary(plan))
    return _read_report(folder.path / REPORTS[0])


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
        raise UserError(f"{path}: is not what compress run writes; start again with --force") from error
