"""What the stages that train return."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compressor.attacks.records import MeanAccuracy
from compressor.intervals import Interval
from compressor.system.results import StageRecord
from compressor.training.soup import Trial


class FinetuneRecord(StageRecord):
    """A fine-tuned classifier: the content of `training.json`, its directory and its weights.

    Attributes:
        steps: training steps.
        seconds: that these took.
        options: the section `finetune` of a recipe.
        labels: class names, by index.
        model: source and SHA-256 of the checkpoint.
        data: source, fingerprint and columns of the texts.
        substitution_vectors: whose neighbours replaced words; None where none did.
        substitution_synonyms: that replaced words; None where none did.
        environment: machine and versions.
        began_on: machines on which earlier parts were made, if there were others.
        path: the directory of the classifier.
        sha256: of its weights.
    """

    steps: int
    seconds: float
    options: dict[str, Any]
    seed: int
    labels: list[str]
    model: dict[str, Any]
    data: dict[str, Any]
    substitution_vectors: str | None
    substitution_synonyms: str | None = None
    environment: dict[str, Any]
    began_on: list[dict[str, Any]] | None = None
    path: Path
    sha256: str | None


class SoupRecord(StageRecord):
    """An average of fine-tuned classifiers: the content of `soup.json`, its directory and its weights.

    Attributes:
        seconds: that runs and attacks took, those that were there already aside.
        options: the section `soup` of a recipe.
        labels: class names, by index.
        model: source and SHA-256 of the checkpoint.
        data: source, fingerprint and columns of the texts.
        holdout: number and fingerprint of the texts that runs were compared on.
        resources: what the attacks used, by name.
        runs: options, directory and figures of each fine-tuning run.
        trials: the steps of the greedy average.
        kept: places in `runs` of those that are averaged.
        accuracy: of the average, on the held-out texts, from 0 to 1.
        accuracy_under_attack: on the attacked ones of them, from 0 to 1.
        examples: number of the attacked texts.
        environment: machine and versions.
        path: the directory of the classifier.
        sha256: of its weights.
    """

    seconds: float
    options: dict[str, Any]
    seed: int
    labels: list[str]
    model: dict[str, Any]
    data: dict[str, Any]
    holdout: dict[str, Any]
    resources: dict[str, Any]
    runs: list[dict[str, Any]]
    trials: list[Trial]
    kept: list[int]
    attack: str
    accuracy: float
    accuracy_under_attack: float
    attack_success_rate: float | None
    queries_per_example: float | None
    examples: int
    accuracy_interval: Interval
    accuracy_under_attack_interval: Interval
    attack_success_rate_interval: Interval | None
    mean_accuracy_under_attack: MeanAccuracy | None
    environment: dict[str, Any]
    path: Path
    sha256: str | None
