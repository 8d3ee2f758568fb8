"""What the stages that attack and perturb return."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from compressor.attacks.records import MeanAccuracy, Successes, WordBudget
from compressor.intervals import Interval, PairedDifference
from compressor.system.results import StageRecord


class AttackFigures(BaseModel):
    """What one attack came to; shares are 0 to 1.

    Attributes:
        attack: its name; of several together, their names with commas between them.
        accuracy: on the attacked examples, before the attack.
        accuracy_under_attack: share of all examples that stay right.
        attack_success_rate: successes among the examples that were right; None if there were none.
        queries_per_example: mean over the examples that were attacked; None if there were none.
        *_interval: at 95 %, of the share of that name.
        successes: what the successful attacks took, on average.
        word_budgets: accuracy under attack where only a share of the words may change.
        mean_accuracy_under_attack: over the shares of words that may change; None if it is not known.
        resources: what the attack used, by name.
        against: the comparison with the attack on another model, if there is one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    attack: str
    accuracy: float
    accuracy_under_attack: float
    attack_success_rate: float | None
    queries_per_example: float | None
    examples: int
    accuracy_interval: Interval
    accuracy_under_attack_interval: Interval
    attack_success_rate_interval: Interval | None
    successes: Successes
    word_budgets: list[WordBudget]
    mean_accuracy_under_attack: MeanAccuracy | None
    resources: dict[str, Any]
    against: dict[str, Any] | None = None


class AttackRecord(AttackFigures, StageRecord):
    """An attack, or several: the content of `robustness.json` and its directory.

    Figures of several are those under all of them: a text counts if it holds under each.

    Attributes:
        attacks: the figures of each of several attacks.
        model: the attacked classifier or artifact.
        data: source, fingerprint and columns of the texts.
        options: the section `attack` of a recipe.
        similarity: how two texts are compared.
        environment: machine and versions.
        began_on: machines on which earlier parts were made, if there were others.
        path: the directory of the records.
    """

    attacks: list[AttackFigures] = []
    model: str
    data: dict[str, Any]
    options: dict[str, Any]
    seed: int
    similarity: str
    environment: dict[str, Any]
    began_on: list[dict[str, Any]] | None = None
    path: Path


@dataclass(frozen=True)
class PerturbedAccuracy:
    """Accuracy on one kind of texts, from 0 to 1.

    Attributes:
        kind: `clean`, a kind of perturbation, or `all` for texts that are right in every form.
        drop_from_clean: what it lost of the accuracy on the clean texts; None for these.
    """

    kind: str
    accuracy: float
    interval: Interval
    drop_from_clean: PairedDifference | None


class PerturbRecord(StageRecord):
    """Answers to perturbed texts: the content of `perturbations.json` and its directory; shares are 0 to 1.

    Attributes:
        perturbations: accuracy on the clean texts, on each kind of perturbed ones, and on all at once.
        changed: share of the texts that each kind changes.
        seconds: that perturbing and classifying took.
        examples: number of texts.
        model: the classifier or artifact.
        data: source, fingerprint and columns of the texts.
        options: of the perturbations.
        resources: what the perturbations used, by name.
        environment: machine and versions.
        against: the comparison with another model, if there is one.
        path: the directory of the records.
    """

    perturbations: list[PerturbedAccuracy]
    changed: dict[str, float]
    seconds: float
    examples: int
    model: str
    data: dict[str, Any]
    options: dict[str, Any]
    seed: int
    resources: dict[str, Any]
    environment: dict[str, Any]
    against: dict[str, Any] | None = None
    path: Path
