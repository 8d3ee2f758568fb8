"""The embedded main job: a real encoder and real critic quotes, from fine-tuning to the report."""

from __future__ import annotations

import bz2
import csv
import io
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from compressor.config.recipe import Recipe, dump_recipe
from compressor.options import (
    AttackConfig,
    DataConfig,
    FinetuneConfig,
    PruneConfig,
    RunConfig,
    SearchConfig,
    ValidateConfig,
)
from compressor.pipeline.folder import RunFolder
from compressor.pipeline.keys import stages_of, task_of_run
from compressor.pipeline.run import check_recipe, check_texts, run_context, run_stages
from compressor.pipeline.stage_runs import train_dense
from compressor.system.assets import QUOTES_FILE, QUOTES_PACKAGE, asset_file, encoder_directory
from compressor.system.cache import cache_directory
from compressor.system.console import Progress
from compressor.system.context import Context
from compressor.system.files import atomic_directory, claims_run, read_json, write_json
from compressor.training.finetune_stage import TRAINING_RECORD
from compressor.validation.schema import Report

TRAIN_EXAMPLES = 8000
TEST_EXAMPLES = 2000
SELECTION_EXAMPLES = 1000
SPLIT_SEED = 0
# Of the search: a speed that pays, and a recovery that two cores do in minutes.
SPEEDUPS = [10.5]
SEARCH_MINUTES = 10.0
RECOVERY_STEPS, RECOVERY_RATE = 600, 4e-4
# As in a server with a worker for each core.
LATENCY_THREADS = 1
SEARCH_GATES = [
    "dense_over_majority >= 0.05",
    "accuracy_drop <= 0.025",
    "batch_disagreement <= 0",
    "worst_batch_shift <= 1e-4",
]
MAX_LENGTH = 64


def load_quotes() -> list[tuple[str, str, str]]:
    """The critic quotes as (film, text, "fresh" or "rotten"), plot summaries and repeats left out."""
    raw = bz2.decompress(asset_file(QUOTES_PACKAGE, QUOTES_FILE).read_bytes()).decode("utf-8")
    quotes = []
    seen = set()
    for row in csv.DictReader(io.StringIO(raw)):
        # The tsv files have no quoting, so white space that would break a line becomes one space.
        text = " ".join(row["text"].split())
        if row["category"] != "plot" and text and text not in seen:
            seen.add(text)
            quotes.append((row["movie_name"], text, row["category"]))
    return quotes


def split_by_film(quotes: list[tuple[str, str, str]]) -> dict[str, list[tuple[str, str]]]:
    """Training, selection and test quotes as (text, label); no film of the test quotes is in the others.

    Whole films, in an order drawn with a fixed seed, go to the test set until it has
    `TEST_EXAMPLES` quotes; training and selection quotes are drawn from the other films.
    """
    generator = np.random.default_rng(SPLIT_SEED)
    films = sorted({film for film, _, _ in quotes})
    test: list[tuple[str, str]] = []
    test_films = set()
    for film in generator.permutation(films).tolist():
        if len(test) >= TEST_EXAMPLES:
            break
        test_films.add(film)
        test += [(text, label) for name, text, label in quotes if name == film]
    rest = [(text, label) for name, text, label in quotes if name not in test_films]
    drawn = [rest[i] for i in generator.permutation(len(rest))]
    return {
        "train": drawn[:TRAIN_EXAMPLES],
        "selection": drawn[TRAIN_EXAMPLES : TRAIN_EXAMPLES + SELECTION_EXAMPLES],
        "test": test[:TEST_EXAMPLES],
    }


def write_data(directory: Path) -> None:
    """Write `train.tsv`, `selection.tsv` and `test.tsv` (columns text and label) into `directory`."""
    for name, rows in split_by_film(load_quotes()).items():
        lines = ["text\tlabel", *(f"{text}\t{label}" for text, label in rows)]
        (directory / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def search_recipe(data: Path, attack: AttackConfig, run: RunConfig) -> Recipe:
    """The recipe of the main job: a search under gates, on the data that `write_data` wrote."""
    recipe = quickstart_recipe(data, PruneConfig(), attack, run)
    return recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update={"selection": str(data / "selection.tsv")}),
            "search": SearchConfig(
                budget_minutes=SEARCH_MINUTES,
                speedups=SPEEDUPS,
                calibration_examples=512,
                recovery_steps=RECOVERY_STEPS,
                recovery_rates=[RECOVERY_RATE],
            ),
            "validate_": ValidateConfig(
                gates=[*SEARCH_GATES, f"warn: {attack.figure}_drop <= 0.05"],
                latency_rounds=10,
                latency_seconds=10,
                latency_threads=LATENCY_THREADS,
                footprint=False,
            ),
        }
    )


def quickstart_recipe(data: Path, prune: PruneConfig, attack: AttackConfig, run: RunConfig) -> Recipe:
    """The recipe that prunes once, on the data that `write_data` wrote."""
    return Recipe(
        model=str(encoder_directory()),
        data=DataConfig(
            train=str(data / "train.tsv"),
            calibration=str(data / "train.tsv"),
            test=str(data / "test.tsv"),
            max_length=MAX_LENGTH,
        ),
        run=run,
        finetune=FinetuneConfig(epochs=1),
        prune=prune,
        attack=attack,
    )


@claims_run
def run_quickstart(output: Path, recipe: Recipe, *, force: bool, progress: Progress) -> Report:
    """Fine-tune (or take from the cache), prune or search, export, attack and validate, all on real input.

    Args:
        recipe: by `quickstart_recipe` or `search_recipe`, with the data in the folder `data` of the output.

    Raises:
        UserError: the packages with encoder and quotes are missing, or bad options.
    """
    output = output.absolute()
    check_recipe(recipe)
    folder = RunFolder(output, force=force)
    folder.make(dump_recipe(recipe))
    if not (output / "data").exists():
        with atomic_directory(output / "data") as working:
            write_data(working)
    task = task_of_run(recipe)
    stages = stages_of(recipe, task)
    plan = folder.plan(stages)
    shared = check_texts(recipe, task) if any(step.runs for step in plan) else {}
    train = partial(_dense_from_cache, stages[0].key)
    return run_stages(recipe, plan, folder, run_context(recipe, folder.path, progress), train, shared)


def _dense_from_cache(key: str, recipe: Recipe, context: Context) -> None:
    """Put the fine-tuned classifier in place; train it first if the cache has none of this recipe.

    Args:
        key: of all that decides it.
    """
    cached = cache_directory() / "quickstart" / key
    if (cached / TRAINING_RECORD).is_file():
        context.progress.log(f"Taking the fine-tuned classifier from {cached}")
    else:
        train_dense(recipe, replace(context, output=cached))
    with atomic_directory(context.output, force=True) as working:
        shutil.copytree(cached, working, dirs_exist_ok=True)
        # The same texts, at the path that they have in this run.
        record = read_json(working / TRAINING_RECORD)
        record["data"]["source"] = recipe.data.train
        write_json(working / TRAINING_RECORD, record)
