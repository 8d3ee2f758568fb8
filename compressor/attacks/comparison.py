"""Two victims under the same attack: which is less robust, and do attacks on one fool the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compressor.attacks.records import ROBUSTNESS_RECORD, AttackedExample, read_examples
from compressor.attacks.victims import Victim, as_input
from compressor.data.texts import TextData
from compressor.errors import UserError
from compressor.intervals import (
    Interval,
    MeanDifference,
    PairedDifference,
    paired_difference,
    paired_mean_difference,
    wilson_interval,
)
from compressor.system.differences import leaves
from compressor.system.files import read_json


@dataclass(frozen=True)
class Transfer:
    """Another model's adversarial texts, replayed.

    Attributes:
        texts: successful attacks on the other model whose original this model gets right.
        fooled: those whose perturbed text it gets wrong.
        rate: their share; None if there were no such texts.
        interval: Wilson's, at 95 %.
    """

    texts: int
    fooled: int
    rate: float | None
    interval: Interval | None


def accuracy_drop(
    other: Sequence[AttackedExample], own: Sequence[AttackedExample], share: float = 1.0
) -> PairedDifference:
    """Accuracy under attack of the other model minus one's own, on the same examples in the same order.

    Args:
        share: of a text's words that may change; below 1 exact where `under_word_budgets` is.
    """
    return paired_difference([e.holds_out(share) for e in other], [e.holds_out(share) for e in own])


def replay(examples: Sequence[AttackedExample], victim: Victim) -> Transfer:
    """Score the successful attacks among another model's examples: one query a text, no search."""
    succeeded = [example for example in examples if example.outcome == "succeeded"]
    if not succeeded:
        return Transfer(0, 0, None, None)
    originals = victim([as_input(e.text, e.text_pair) for e in succeeded]).argmax(dim=1).tolist()
    perturbed = victim([as_input(e.perturbed, e.perturbed_pair) for e in succeeded]).argmax(dim=1).tolist()
    fooled = [
        after != example.label
        for example, before, after in zip(succeeded, originals, perturbed, strict=True)
        if before == example.label
    ]
    if not fooled:
        return Transfer(0, 0, None, None)
    count = sum(fooled)
    return Transfer(len(fooled), count, count / len(fooled), wilson_interval(count, len(fooled)))


def mean_accuracy_drop(
    other: Sequence[AttackedExample], own: Sequence[AttackedExample], longest: float
) -> MeanDifference:
    """The other model's `mean_accuracy` minus one's own, on the same examples in the same order."""
    return paired_mean_difference(
        [e.held_budgets(longest) for e in other], [e.held_budgets(longest) for e in own]
    )


@dataclass(frozen=True)
class FinishedAttack:
    """What the attack stage wrote for another model."""

    directory: Path
    record: Mapping[str, Any]
    examples: list[AttackedExample]

    def check(self, key: str, value: object) -> None:
        """Raise a `UserError` unless the attack's record has that value, what is empty aside, under `key`."""
        # Records of earlier versions lack the options of attacks that packages register.
        if dict(leaves(self.record.get(key))) != dict(leaves(value)):
            raise UserError(
                f"{self.directory / ROBUSTNESS_RECORD}: {key} is {self.record.get(key)!r}, here it is "
                f"{value!r}; only attacks with the same options, resources and seed compare"
            )


def load_attack(directory: Path, options: Mapping[str, Any], seed: int, data: TextData) -> FinishedAttack:
    """The attack on another model with which one that is about to run will be compared.

    Args:
        directory: what the attack stage wrote.
        options, seed, data: of the attack that is about to run.

    Raises:
        UserError: no attack's record, or one of other options or other examples.
    """
    path = directory / ROBUSTNESS_RECORD
    if not path.is_file():
        raise UserError(f"{directory}: holds no {ROBUSTNESS_RECORD}; give the output of compress attack")
    record = read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get("resources"), dict):
        raise UserError(f"{path}: is not a record of an attack; give the output of compress attack")
    found = FinishedAttack(directory, record, read_examples(directory))
    found.check("options", dict(options))
    found.check("seed", seed)
    pairs: Sequence[str | None] = data.pairs or [None] * len(data)
    here = list(zip(data.texts, pairs, data.class_labels, strict=True))
    if [(e.text, e.text_pair, e.label) for e in found.examples] != here:
        raise UserError(f"{directory}: other examples were attacked; attack both models on the same --data")
    return found


def compare(
    other: FinishedAttack,
    examples: Sequence[AttackedExample],
    victim: Victim,
    word_budgets: Sequence[float],
    longest_budget: float | None,
) -> dict[str, Any]:
    """Hold a finished attack against that on another model, ready for JSON.

    Args:
        other: as `load_attack` gives it.
        examples: what became of the same examples on one's own model.
        victim: one's own model.
        word_budgets: shares of words for which the drop is told as well. Two models that always fall to
            the unbounded attack have no drop there, and may have one here.
        longest_budget: end of those that the mean accuracy is over; None if the attack does not tell it.
    """
    mean_drop = None
    if longest_budget is not None:
        mean_drop = asdict(mean_accuracy_drop(other.examples, examples, longest_budget))
    return {
        "model": other.record["model"],
        "accuracy_under_attack_drop": asdict(accuracy_drop(other.examples, examples)),
        "word_budgets": [
            {
                "max_words_changed": share,
                "accuracy_under_attack_drop": asdict(accuracy_drop(other.examples, examples, share)),
            }
            for share in word_budgets
        ],
        "mean_accuracy_under_attack_drop": mean_drop,
        "transfer": asdict(replay(other.examples, victim)),
    }
