"""The stages of a run, and for each all that decides its result: what its key is made of.

See `compressor.models.reuse` for the rule. A stage's key also holds the keys of the stages that it follows.
Of the stage that measures times, processor and threads are in it as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from compressor.config.recipe import Recipe
from compressor.data.labels import NUMBER_NAMES
from compressor.data.texts import Role, load_text_data
from compressor.errors import UserError
from compressor.models.classifier import model_content, model_labels, model_task
from compressor.models.reuse import Kind, decides
from compressor.options import ColumnsConfig, Section, TaskName, shown
from compressor.pruning.interface import algorithm_named
from compressor.system.context import Context
from compressor.system.environment import processor_name, thread_count
from compressor.system.files import json_sha256, sha256_of
from compressor.validation.gates.baseline import read_report

DENSE, PRUNED, ARTIFACT, ATTACK, SEARCH = "dense", "pruned", "artifact", "attack", "search"
# Texts that only the export reads; they need no labels.
EXPORT_ROLES: tuple[Role, ...] = ("vocabulary", "reference")
REPORTS = ("report.json", "report.md", "report.html", "junit.xml")


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


# Makes the dense model of a recipe in the output of a context.
TrainDense: TypeAlias = Callable[[Recipe, Context], None]


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


def selection_texts(recipe: Recipe) -> str:
    """The data by which a search compares its candidates.

    Raises:
        UserError: the recipe names none.
    """
    if recipe.data.selection is None:
        raise UserError(
            "data.selection: missing; the search section needs labelled texts that are no test texts"
        )
    return recipe.data.selection


class _Stages:
    """The stages of a recipe, in their order.

    Attributes:
        found: by their names.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self.found: dict[str, Stage] = {}

    def add(
        self,
        name: str,
        kind: Kind,
        outputs: tuple[str, ...],
        after: tuple[str, ...],
        options: Mapping[str, Section | None],
        **inputs: Any,
    ) -> None:
        """Add a stage.

        Args:
            after: names of the stages that it follows.
            options: its sections.
            inputs: contents of what it reads.
        """
        keys = {other: self.found[other].key for other in after}
        facts = decides(kind, self._recipe.run, options, after=keys, **inputs)
        self.found[name] = Stage(name, outputs, after, facts)


def stages_of(recipe: Recipe, task: TaskName) -> list[Stage]:
    """The stages of a recipe in their order.

    Args:
        task: the run's, see `task_of_run`.

    Raises:
        UserError: a model or data set is missing, or the recipe's device.
    """
    stages = _Stages(recipe)
    model: dict[str, Any] = {"model": {"content": model_content(recipe.model)}}
    dense: tuple[str, ...] = ()
    if trains_dense(recipe):
        kind: Kind = "finetune" if recipe.soup is None else "soup"
        sections = {"finetune": recipe.finetune, "soup": recipe.soup}
        data = _texts(recipe, task, "train")
        stages.add("dense", kind, (DENSE,), (), sections, **model, data=data)
        model, dense = {}, ("dense",)
    if recipe.search is not None:
        _add_search(stages, recipe, task, dense, model)
    else:
        _add_pruning(stages, recipe, task, dense, model)
    return list(stages.found.values())


def _add_search(
    stages: _Stages, recipe: Recipe, task: TaskName, dense: tuple[str, ...], model: dict[str, Any]
) -> None:
    """The search, and the report of what it chose."""
    options = {"search": recipe.search, "validate": recipe.validate_, "attack": recipe.attack}
    data = _texts(recipe, task, "calibration", "selection", "vocabulary", "test")
    stages.add(
        "search", "search", (SEARCH, ARTIFACT), dense, options, **model, **_measured(recipe), data=data
    )
    stages.add("validate", "validate", REPORTS, ("search",), {})


def _add_pruning(
    stages: _Stages, recipe: Recipe, task: TaskName, dense: tuple[str, ...], model: dict[str, Any]
) -> None:
    """The pruning, the export, the attacks and the validation."""
    calibration, test = _texts(recipe, task, "calibration"), _texts(recipe, task, "test")
    stages.add("prune", "prune", (PRUNED,), dense, {"prune": recipe.prune}, **model, data=calibration)
    exported = _texts(recipe, task, "test", *EXPORT_ROLES)
    stages.add("export", "export", (ARTIFACT,), ("prune",), {"export": recipe.export}, data=exported)
    # An attack turns one class into another; numbers have none.
    if task == "classification":
        first = attack_stage(DENSE)
        followed = {
            first: dense,
            attack_stage(PRUNED): ("prune", first),
            attack_stage(ARTIFACT): ("export", first),
        }
        for name, after in followed.items():
            output = f"{ATTACK}/{name.removeprefix(attack_stage(''))}"
            own = model if name == first else {}
            stages.add(name, "attack", (output,), after, {"attack": recipe.attack}, **own, data=test)
    measured = _measured(recipe) | {"data": test}
    options = {"validate": recipe.validate_}
    stages.add("validate", "validate", REPORTS, tuple(stages.found), options, **model, **measured)


def _texts(recipe: Recipe, task: TaskName, *roles: Role) -> dict[str, Any]:
    """How texts are read, and the contents of those with these roles; the export's may be left out.

    Raises:
        UserError: the recipe names none, or they cannot be read.
    """
    columns = recipe.data.model_dump(include=set(ColumnsConfig.model_fields))
    named = [role for role in roles if role not in EXPORT_ROLES or getattr(recipe.data, role) is not None]
    return columns | {role: _data_content(recipe, task, role) for role in named}


def _measured(recipe: Recipe) -> dict[str, Any]:
    """What the figures of a validation depend on beside its options, models and texts."""
    found: dict[str, Any] = {
        "threads": thread_count(recipe.run),
        "machine": {"processor": processor_name()},
        "allow_test_texts": recipe.data.allow_test_texts,
    }
    if recipe.validate_.baseline is not None:
        found["baseline"] = read_report(Path(recipe.validate_.baseline)).model_dump(mode="json")
    return found


def _data_content(recipe: Recipe, task: TaskName, role: Role) -> dict[str, str]:
    """What changes if a data set does: of a file its SHA-256, of a hub data set that of its texts."""
    required = {"train": training_texts, "selection": selection_texts}
    source = required[role](recipe) if role in required else getattr(recipe.data, role)
    key = f"data.{role}"
    try:
        if Path(source).is_file():
            return {"content": sha256_of(Path(source))}
        needs_labels = _needs_labels(recipe, role)
        names = known_labels(task)
        data = load_text_data(source, recipe.data, role, label_names=names, needs_labels=needs_labels)
    except OSError as error:
        raise UserError(f"{key}: {shown(source)}: cannot be read: {error.strerror}") from error
    return {"content": data.fingerprint}


def _needs_labels(recipe: Recipe, role: Role) -> bool:
    """Whether a data set must have labels."""
    if role == "calibration":
        return algorithm_named(recipe.prune.algorithm).needs_labels
    return role not in EXPORT_ROLES
