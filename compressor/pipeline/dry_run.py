"""What a run would do, how long it would take here, and what its pattern buys; nothing is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compressor.config.recipe import Recipe
from compressor.options import TaskName
from compressor.pipeline.folder import RunFolder, Step
from compressor.pipeline.keys import attack_stage, stages_of, task_of_run
from compressor.pipeline.run import check_metrics, check_model, check_recipe, check_texts
from compressor.pipeline.runtime_gains import Gain, gains_of
from compressor.system.console import format_seconds
from compressor.system.environment import resolve_device


@dataclass(frozen=True)
class PlannedStage:
    """What would become of a stage.

    Attributes:
        reasons: why it would run; empty if it would be reused.
        seconds: an estimate; 0 if it would be reused.
        assumes: what the estimate rests on besides the options.
    """

    name: str
    reasons: tuple[str, ...]
    seconds: float
    assumes: str


@dataclass(frozen=True)
class DryRun:
    """What a run would do."""

    stages: list[PlannedStage]
    gains: list[Gain]

    @property
    def seconds(self) -> float:
        """An estimate of the whole run."""
        return sum(stage.seconds for stage in self.stages)

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"seconds": self.seconds}


def dry_run(recipe: Recipe, output: Path, *, force: bool) -> DryRun:
    """Plan a run as `run_recipe` would begin it.

    Raises:
        UserError: as `run_recipe`, before its first stage.
    """
    check_recipe(recipe)
    task = task_of_run(recipe)
    plan = RunFolder(output, force=force).plan(stages_of(recipe, task))
    gains = gains_of(recipe.prune, resolve_device(recipe.run.device).type)
    return DryRun(_timed(recipe, task, plan), gains)


def _timed(recipe: Recipe, task: TaskName, plan: list[Step]) -> list[PlannedStage]:
    if not any(step.runs for step in plan):
        return [PlannedStage(step.stage.name, (), 0.0, "") for step in plan]
    # Not needed, and slow to import, where all is reused.
    from compressor.pipeline.estimates import Estimate, estimate, measure

    check_metrics(recipe, task)
    check_model(recipe)
    check_texts(recipe, task)
    pace, sizes = measure(recipe, task)
    planned: list[PlannedStage] = []
    attacks = [step.stage.name for step in plan if step.runs and step.stage.name.startswith(attack_stage(""))]
    for step in plan:
        name = step.stage.name
        found = Estimate(0.0)
        if step.runs:
            found = estimate(recipe, name, pace, sizes, first_attack=name in attacks[:1])
        planned.append(PlannedStage(name, step.reasons, round(found.seconds, 1), found.assumes))
    return planned


def in_words(found: DryRun) -> str:
    """For people."""
    lines = []
    for stage in found.stages:
        if not stage.reasons:
            lines.append(f"{stage.name}: would be reused")
            continue
        assumes = f", at {stage.assumes}" if stage.assumes else ""
        about = f"about {format_seconds(stage.seconds)}{assumes}"
        lines.append(f"{stage.name}: would run ({'; '.join(stage.reasons)}); {about}")
    if found.seconds:
        lines.append(f"In all about {format_seconds(found.seconds)}: estimated from a measurement here.")
    lines += ["", "What the pattern buys:"]
    lines += [f"- {gain.text} ({gain.source})." for gain in found.gains]
    return "\n".join(lines)
