"""What a search finds: its candidates, and the one that was chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from compressor.options import MetricName, Objective, RobustnessFigure
from compressor.system.files import read_json
from compressor.system.results import StageRecord
from compressor.validation.gates.gates import failed_gates
from compressor.validation.schema import (
    OF_CLASSES,
    GateResult,
    IntervalFigures,
    MeanDifferenceFigures,
    Verdict,
)

# In the output of a search; the last four where a candidate was chosen.
SEARCH_RECORD, PAGE, SUMMARY = "search.json", "search.html", "search.md"
ARTIFACT, REPORT_FOLDER, RECIPE, TABLE = "artifact", "report", "recipe.yaml", "latency-table.json"
SCHEMA_VERSION: Literal[1] = 1
IN_BATCHES = "Between texts alone and in batches; null where it was not measured."
UNDER_ATTACK = "Mean over word budgets where the attack has them; null where it was not attacked."


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelTimes(_Part):
    """Median latency of one model at one shape, in milliseconds."""

    batch_size: int = Field(ge=1)
    length: int = Field(ge=1)
    ms: float = Field(gt=0)


class ShapeTimes(_Part):
    """Median latency at one shape, in milliseconds."""

    batch_size: int = Field(ge=1)
    length: int = Field(ge=1)
    dense_ms: float = Field(gt=0, description="Of the dense model in PyTorch.")
    artifact_ms: float = Field(gt=0)
    predicted_ms: float | None = Field(description="By the latency table; null for a shape that it has not.")


class QualityFigures(_Part):
    """What a model answers to one set of texts."""

    accuracy: float | None = Field(ge=0, le=1, description=OF_CLASSES)
    accuracy_interval: IntervalFigures | None = Field(description=OF_CLASSES)
    task_score: float
    task_score_interval: IntervalFigures
    accuracy_under_attack: float | None = Field(description=UNDER_ATTACK)
    accuracy_under_attack_interval: IntervalFigures | None = Field(description=UNDER_ATTACK)
    batch_disagreement: float | None = Field(description=IN_BATCHES)
    worst_batch_shift: float | None = Field(description=IN_BATCHES)


class ModelFigures(QualityFigures):
    """What was measured of a model."""

    size_bytes: int = Field(ge=0)
    latency: list[ModelTimes]


class OutcomeFigures(_Part):
    """The chosen candidate beside the dense model, on the test texts."""

    dense: ModelFigures
    artifact: ModelFigures
    accuracy_drop: MeanDifferenceFigures | None = Field(description=OF_CLASSES)
    accuracy_under_attack_drop: MeanDifferenceFigures | None = Field(description=UNDER_ATTACK)
    speedup: float = Field(gt=0, description="Over dense PyTorch, geometric mean over the measured shapes.")


class EarlierFigures(_Part):
    """The artifact that an earlier search chose, and whether the new one is better."""

    source: str = Field(description="Output of the earlier search.")
    speedup: float = Field(gt=0, description="Over dense PyTorch, in its own run.")
    size_bytes: int = Field(ge=0)
    better: bool = Field(
        description="Whether the new one holds its gates and is clearly faster, or smaller if that is asked."
    )
    sentence: str = Field(description="The comparison in words.")


class WidthFigures(_Part):
    """What an encoder layer of a candidate keeps."""

    heads: int = Field(ge=0)
    neurons: int = Field(ge=0)


class CandidateFigures(QualityFigures):
    """A candidate, measured on the selection texts."""

    number: int = Field(ge=0, description="In the order of their making; 0 is the dense model, exported.")
    table: str = Field(description="File of the latency table that it was made for.")
    runtime: str
    precision: str
    target: float | None = Field(description="Speed-up that was asked for; null for the dense model.")
    widths: list[WidthFigures] = Field(description="Of each encoder layer.")
    speedup: float = Field(gt=0, description="Over dense PyTorch, geometric mean over the measured shapes.")
    latency: list[ShapeTimes]
    size_bytes: int = Field(ge=0)
    size_ratio: float = Field(ge=0)
    gates: list[GateResult]
    unsure: list[str] = Field(
        description="Gates on quality that hold, but not with the confidence that the search asks for."
    )
    quality_holds: bool = Field(description="Whether it surely holds all gates but those on cost.")
    attacked: bool = Field(description="Whether the gates on attacks are among the results.")
    holds: bool = Field(description="Whether it holds all gates, those on quality surely.")
    seconds: float = Field(
        ge=0,
        description="Time by which the search took longer for it. Where several were made at once, all of "
        "that time is the first one's.",
    )
    pruned: str | None = Field(
        description="Its classifier, in the folder of the candidates; null for the dense model."
    )
    artifact: str = Field(description="Its artifact, in the folder of the candidates.")
    report: str = Field(description="Its report, in the folder of the candidates.")

    @property
    def name(self) -> str:
        """Return how people call it."""
        return "dense, exported" if self.target is None else f"{self.target:.3g}x"

    @property
    def not_held(self) -> list[GateResult]:
        """Return the results of the gates that it does not hold, or not surely."""
        failed = failed_gates(self.gates)
        return [result for result in self.gates if result in failed or result.gate in self.unsure]

    @property
    def problems(self) -> str:
        """Return the metrics of the gates that it does not hold, or not surely."""
        names = [f"{own.metric}{' (unsure)' if own.gate in self.unsure else ''}" for own in self.not_held]
        return ", ".join(dict.fromkeys(names))


class SearchRecord(StageRecord):
    """The outcome of a search, as `search.json` has it.

    Attributes:
        objective: what was to be best.
        gates: as they were given.
        task_metric: what `task_score` is.
        attack_metric: what the accuracy under attack is: over any number of changed words, or its mean over
            word budgets, where the attack has them.
        texts: sources of the calibration, selection and test texts, and of those of the vocabulary, if any.
        dense: source and SHA-256 of the dense classifier.
        dense_figures: of the dense model in PyTorch, on the selection texts.
        candidates: in the order in which they were made.
        front: numbers of the candidates that no other one beats in both quality and the objective.
        chosen: number of the chosen candidate; None where none holds the gates.
        nearest: number of the candidate that is nearest to the gates, where none holds them.
        verdict: of the chosen candidate on the test texts; `fail` where there is none.
        reason: why none was chosen, or why the search ended.
        test_gates: the gates on the test texts; empty where nothing was chosen.
        test_figures: what they were held against; None where nothing was chosen.
        earlier: the outcome of an earlier search, if one was given.
        environment: machine and versions.
        path: directory of the search.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    objective: Objective
    gates: list[str]
    task_metric: MetricName
    attack_metric: RobustnessFigure
    texts: dict[str, str]
    dense: dict[str, Any]
    dense_figures: ModelFigures
    candidates: list[CandidateFigures]
    front: list[int]
    chosen: int | None
    nearest: int | None
    verdict: Verdict
    reason: str
    test_gates: list[GateResult]
    test_figures: OutcomeFigures | None
    earlier: EarlierFigures | None = None
    environment: dict[str, Any]
    path: Path


def read_search(directory: Path) -> SearchRecord:
    """Read what a search wrote into a directory.

    Raises:
        UserError: there is no record of a search.
    """
    return SearchRecord(**read_json(directory / SEARCH_RECORD), path=directory)


def search_schema() -> dict[str, Any]:
    """Return the JSON schema of `search.json`, which does not name its own directory."""
    schema = SearchRecord.model_json_schema()
    del schema["properties"]["path"]
    schema["required"].remove("path")
    return schema


def front_of(candidates: list[CandidateFigures], objective: Objective) -> list[int]:
    """Return the numbers of the candidates that no other one beats, the most accurate first.

    A candidate is beaten by one that is at least as good in the task's score and in the objective, and better
    in one of both.
    """

    def cost(one: CandidateFigures) -> float:
        return one.size_bytes if objective == "size" else 1.0 / one.speedup

    found = [
        one
        for one in candidates
        if not any(
            other.task_score >= one.task_score
            and cost(other) <= cost(one)
            and (other.task_score, -cost(other)) != (one.task_score, -cost(one))
            for other in candidates
        )
    ]
    return [one.number for one in sorted(found, key=lambda one: (-one.task_score, cost(one)))]
