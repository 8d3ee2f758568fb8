"""The stages of a run, and for each all that decides its result: what its key is made of.

A key changes with the stage's options, the content of what it reads, the keys of the stages it follows,
the seed, the device, and the code: the versions of packages, and the content of every file of
`compressor` and `exporters`. All files and not those that a stage imports: an edit too many runs a stage
again, one too few would pass an old result off as the code's. For a released version it never changes.
Threads and processes are not in it, but for the stage that measures times: they leave outcomes as they are.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from compressor.classifier import model_content, model_labels, model_task
from compressor.console import Progress
from compressor.data import Role, load_text_data
from compressor.environment import package_versions, processor_name, resolve_device, thread_count
from compressor.errors import UserError
from compressor.labels import NUMBER_NAMES
from compressor.options import (
    ColumnsConfig,
    ResourcesConfig,
    Section,
    SubstitutionResourcesConfig,
    TaskName,
    shown,
)
from compressor.output import json_sha256, sha256_of
from compressor.recipe import Recipe
from compressor.validation.baseline import read_report

DENSE, PRUNED, ARTIFACT, ATTACK = "dense", "pruned", "artifact", "attack"
REPORTS = ("report.json", "report.md", "report.html", "junit.xml")
CODE = ("compressor", "exporters")


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: as people see it.
        outputs: what it writes, relative to the run's folder: one directory, or files.
        after: names of the stages whose output it reads.
        facts: all that decides the result, ready for JSON.
    """

    name: str
    outputs: tuple[str, ...]
    after: tuple[str, ...]
    facts: dict[str, Any]

    @property
    def key(self) -> str:
        """SHA-256 of the facts."""
        return json_sha256({"stage": self.name, **self.facts})


# Makes the dense model of a recipe in a folder, by as many processes, and goes on with a stopped run or not.
TrainDense: TypeAlias = Callable[[Recipe, Path, Progress, int, bool], None]


def attack_stage(variant: str) -> str:
    """Name of the stage that attacks a variant."""
    return f"attack {variant}"


def trains_dense(recipe: Recipe) -> bool:
    """Whether the dense model is to be made, and is not the recipe's model itself."""
    return recipe.finetune is not None or recipe.soup is not None


def task_of_run(recipe: Recipe) -> TaskName:
    """Whether the run's models answer with classes or with numbers.

    Raises:
        UserError: the recipe's model is missing, or no BERT model.
    """
    if recipe.finetune is not None:
        return recipe.finetune.task
    return "classification" if recipe.soup is not None else model_task(recipe.model)


def known_labels(task: TaskName) -> tuple[str, ...] | None:
    """The label names that data is to be read with before there is a model: those of a regression."""
    return NUMBER_NAMES if task == "regression" else None


def labels_of_run(recipe: Recipe, task: TaskName) -> list[str] | None:
    """The label names of the run's models, before there are any; None of a model that is no classifier.

    Raises:
        UserError: the recipe's model or training data cannot be used.
    """
    if task == "regression":
        return list(NUMBER_NAMES)
    if trains_dense(recipe):
        return load_text_data(training_texts(recipe), recipe.data, "train").label_names
    return model_labels(recipe.model)


def training_texts(recipe: Recipe) -> str:
    """The data to train the dense model on.

    Raises:
        UserError: the recipe names none.
    """
    if recipe.data.train is None:
        section = "finetune" if recipe.soup is None else "soup"
        raise UserError(f"data.train: missing; the {section} section needs texts to train on")
    return recipe.data.train


def stages_of(recipe: Recipe, task: TaskName) -> list[Stage]:
    """The stages of a recipe in their order.

    Args:
        task: the run's, see `task_of_run`.

    Raises:
        UserError: a model or data set is missing, or the recipe's device.
    """
    run = {"seed": recipe.run.seed, "device": resolve_device(recipe.run.device).type}
    base = {"code": code_version(), "packages": package_versions(), "run": run}
    columns = recipe.data.model_dump(include=set(ColumnsConfig.model_fields))
    calibration = {**columns, "calibration": _data_content(recipe, task, "calibration")}
    test = {**columns, "test": _data_content(recipe, task, "test")}
    stages: dict[str, Stage] = {}

    def add(name: str, outputs: tuple[str, ...], after: tuple[str, ...], **facts: Any) -> None:
        keys = {other: stages[other].key for other in after}
        stages[name] = Stage(name, outputs, after, {**base, "after": keys, **facts})

    model: dict[str, Any] = {"model": {"content": model_content(recipe.model)}}
    dense: tuple[str, ...] = ()
    if trains_dense(recipe):
        options = recipe.model_dump(mode="json", include={"finetune", "soup"})
        options["resources"] = _training_resources(recipe)
        data = {**columns, "train": _data_content(recipe, task, "train")}
        add("dense", (DENSE,), (), **model, **options, data=data)
        model, dense = {}, ("dense",)
    pruning = {
        "prune": recipe.prune.model_dump(mode="json"),
        "resources": _resources(recipe.prune.adaptive, SubstitutionResourcesConfig, "prune.adaptive"),
        "data": calibration,
    }
    add("prune", (PRUNED,), dense, **model, **pruning)
    add("export", (ARTIFACT,), ("prune",), export=recipe.export.model_dump(mode="json"), data=test)
    # An attack turns one class into another; numbers have none.
    if task == "classification":
        attack = {
            "attack": recipe.attack.model_dump(mode="json"),
            "resources": _resources(recipe.attack, ResourcesConfig, "attack"),
            "data": test,
        }
        first = attack_stage(DENSE)
        add(first, (f"{ATTACK}/{DENSE}",), dense, **model, **attack)
        add(attack_stage(PRUNED), (f"{ATTACK}/{PRUNED}",), ("prune", first), **attack)
        add(attack_stage(ARTIFACT), (f"{ATTACK}/{ARTIFACT}",), ("export", first), **attack)
    measured = {
        "validate": recipe.validate_.model_dump(mode="json"),
        "run": {**run, "threads": thread_count(recipe.run)},
        "machine": {"processor": processor_name()},
        "data": test,
    }
    if recipe.validate_.baseline is not None:
        measured["baseline"] = read_report(Path(recipe.validate_.baseline)).model_dump(mode="json")
    add("validate", REPORTS, tuple(stages), **model, **measured)
    return list(stages.values())


@functools.cache
def code_version() -> str:
    """A SHA-256 over every file of this program's packages."""
    digest = hashlib.sha256()
    for package in CODE:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise RuntimeError(f"package {package} has no files")
        folder = Path(spec.origin).parent
        for file in sorted(folder.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(
                    f"{sha256_of(file)}  {package}/{file.relative_to(folder).as_posix()}\n".encode()
                )
    return digest.hexdigest()


def _data_content(recipe: Recipe, task: TaskName, role: Role) -> dict[str, str]:
    """What changes if a data set does: of a file its SHA-256, of a hub data set that of its texts."""
    source = training_texts(recipe) if role == "train" else getattr(recipe.data, role)
    key = f"data.{role}"
    try:
        if Path(source).is_file():
            return {"content": sha256_of(Path(source))}
        needs_labels = role != "calibration" or recipe.prune.trains
        names = known_labels(task)
        data = load_text_data(source, recipe.data, role, label_names=names, needs_labels=needs_labels)
    except OSError as error:
        raise UserError(f"{key}: {shown(source)}: cannot be read: {error.strerror}") from error
    return {"content": data.fingerprint}


def _training_resources(recipe: Recipe) -> dict[str, dict[str, str]]:
    if recipe.finetune is not None:
        return _resources(recipe.finetune, SubstitutionResourcesConfig, "finetune")
    if recipe.soup is None:
        return {}
    own = _resources(recipe.soup, SubstitutionResourcesConfig, "soup")
    return own | _resources(recipe.soup.attack, ResourcesConfig, "soup.attack")


def _resources(config: Section, options: type[Section], section: str) -> dict[str, dict[str, str]]:
    """Content of the files that a section's options of a kind name; packages have versions and checksums."""
    found = {}
    for name in options.model_fields:
        path = Path(getattr(config, name) or "")
        try:
            files = sorted(path.iterdir()) if getattr(config, name) and path.is_dir() else [path]
            lines = [f"{sha256_of(file)}  {file.name}" for file in files if file.is_file()]
        except OSError as error:
            raise UserError(
                f"{section}.{name}: {shown(str(path))}: cannot be read: {error.strerror}"
            ) from error
        if lines:
            found[name] = {"content": hashlib.sha256("\n".join(lines).encode()).hexdigest()}
    return found
