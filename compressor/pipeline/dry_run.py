"""What a run would do, stage by stage; nothing is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compressor.config.recipe import Recipe
from compressor.pipeline.folder import RunFolder
from compressor.pipeline.keys import stages_of, task_of_run
from compressor.pipeline.run import check_metrics, check_model, check_recipe, check_texts


@dataclass(frozen=True)
class PlannedStage:
    """What would become of a stage.

    Attributes:
        reasons: why it would run; empty if it would be reused.
    """

    name: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class DryRun:
    """What a run would do."""

    stages: list[PlannedStage]

    def facts(self) -> dict[str, Any]:
        """Return the plan as JSON takes it."""
        return asdict(self)


def dry_run(recipe: Recipe, output: Path, *, force: bool) -> DryRun:
    """Plan a run as `run_recipe` would begin it.

    Raises:
        UserError: as `run_recipe`, before its first stage.
    """
    check_recipe(recipe)
    task = task_of_run(recipe)
    plan = RunFolder(output, force=force).plan(stages_of(recipe, task))
    if any(step.runs for step in plan):
        check_metrics(recipe, task)
        check_model(recipe)
        check_texts(recipe, task)
    return DryRun([PlannedStage(step.stage.name, step.reasons) for step in plan])


def in_words(found: DryRun) -> str:
    """Return the plan as text, a line for each stage."""
    return "\n".join(
        f"{stage.name}: would run ({'; '.join(stage.reasons)})"
        if stage.reasons
        else f"{stage.name}: would be reused"
        for stage in found.stages
    )
