"""What an attack leaves behind: a record of each example, their summary, and how both are read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Literal, TypeAlias

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from compressor.errors import UserError, first_line
from compressor.intervals import Interval, mean_interval, wilson_interval
from compressor.system.files import read_json_lines

ROBUSTNESS_RECORD = "robustness.json"
EXAMPLES_RECORD = "examples.jsonl"

Outcome: TypeAlias = Literal["skipped", "succeeded", "failed"]
Count = Annotated[int, Field(ge=0, strict=True)]
Amount = Annotated[float, Field(ge=0, strict=True)]


@dataclass(frozen=True)
class AttackedExample:
    """What an attack did to one example.

    Attributes:
        outcome: "skipped" (the model was wrong before), "succeeded" or "failed".
        queries: texts that the attack asked for.
        scored: those that the model scored; the others were in the cache.
        words: number of words before the attack.
        words_changed: share of them that differ after it.
        cosine: of the sentence embeddings before and after a successful attack; else None.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    text: str
    text_pair: str | None
    perturbed: str
    perturbed_pair: str | None
    label: Count
    outcome: Outcome
    queries: Count
    scored: Count
    words: Count
    words_changed: Amount
    seconds: Amount
    cosine: Annotated[float, Field(strict=True)] | None = None

    def holds_out(self, share: float = 1.0) -> bool:
        """Whether the model stays right if no more than that share of the words, rounded up, may change."""
        if self.outcome != "succeeded":
            return self.outcome == "failed"
        # As TextAttack's MaxWordsPerturbed rounds.
        return self._changed > math.ceil(self.words * share)

    def held_budgets(self, longest: float) -> float:
        """Share of the word budgets from 0 to `longest` within which the model stays right.

        The integral of `holds_out` over the budgets, divided by `longest`.
        """
        if self.outcome != "succeeded":
            return float(self.outcome == "failed")
        # One word may change within any budget.
        return min(max(self._changed - 1, 0) / max(self.words, 1) / longest, 1.0)

    @property
    def _changed(self) -> int:
        return round(self.words_changed * self.words)


@dataclass(frozen=True)
class Robustness:
    """Summary of an attack; shares are 0 to 1.

    Attributes:
        accuracy: on the attacked examples, before the attack.
        accuracy_under_attack: share of all examples that stay right.
        attack_success_rate: successes among the examples that were right; None if there were none.
        queries_per_example: mean over the examples that were attacked; None if there were none.
        *_interval: Wilson's, at 95 %, of the share of that name.
    """

    attack: str
    accuracy: float
    accuracy_under_attack: float
    attack_success_rate: float | None
    queries_per_example: float | None
    examples: int
    accuracy_interval: Interval
    accuracy_under_attack_interval: Interval
    attack_success_rate_interval: Interval | None


def summarize(examples: list[AttackedExample], attack: str) -> Robustness:
    """The figures of an attack.

    Raises:
        ValueError: no examples.
    """
    if not examples:
        raise ValueError("no examples were attacked")
    attempted = [example for example in examples if example.outcome != "skipped"]
    succeeded = sum(example.outcome == "succeeded" for example in attempted)
    count = len(examples)
    return Robustness(
        attack=attack,
        accuracy=len(attempted) / count,
        accuracy_under_attack=(len(attempted) - succeeded) / count,
        attack_success_rate=succeeded / len(attempted) if attempted else None,
        queries_per_example=sum(e.queries for e in attempted) / len(attempted) if attempted else None,
        examples=count,
        accuracy_interval=wilson_interval(len(attempted), count),
        accuracy_under_attack_interval=wilson_interval(len(attempted) - succeeded, count),
        attack_success_rate_interval=wilson_interval(succeeded, len(attempted)) if attempted else None,
    )


@dataclass(frozen=True)
class Successes:
    """What the successful attacks took, on average; None if there were none."""

    queries: float | None
    words_changed: float | None
    cosine: float | None


def successes(examples: Sequence[AttackedExample]) -> Successes:
    """Means over the successful attacks, whose cosines are known."""
    found = [example for example in examples if example.outcome == "succeeded"]
    if not found:
        return Successes(None, None, None)
    return Successes(
        queries=fmean(example.queries for example in found),
        words_changed=fmean(example.words_changed for example in found),
        cosine=fmean(example.cosine for example in found if example.cosine is not None),
    )


@dataclass(frozen=True)
class WordBudget:
    """What an attack that may change so many words comes to.

    Attributes:
        max_words_changed: largest share of a text's words.
        interval: Wilson's, at 95 %.
    """

    max_words_changed: float
    accuracy_under_attack: float
    interval: Interval


def under_word_budgets(examples: Sequence[AttackedExample], shares: Sequence[float]) -> list[WordBudget]:
    """Accuracy under attack if no more than each share of the words, rounded up, may change.

    Exact for attacks that put one word after the other in another's place, each once at most and in an
    order that is fixed before the first change: with a budget they take the same way and stop earlier.

    Raises:
        ValueError: no examples.
    """
    if not examples:
        raise ValueError("no examples were attacked")
    budgets = []
    for share in shares:
        held = sum(example.holds_out(share) for example in examples)
        interval = wilson_interval(held, len(examples))
        budgets.append(WordBudget(share, held / len(examples), interval))
    return budgets


@dataclass(frozen=True)
class MeanAccuracy:
    """Accuracy under attack, averaged over the shares of words that may change.

    Attributes:
        longest_budget: the shares are 0 to this.
        mean: 0 to 1.
        interval: at 95 %.
    """

    longest_budget: float
    mean: float
    interval: Interval


def mean_accuracy(examples: Sequence[AttackedExample], longest: float) -> MeanAccuracy:
    """Accuracy under attack, averaged over all word budgets from 0 to `longest`.

    As a restricted mean survival time it looks at how long each example holds out, where the accuracy under
    attack looks at whether it does: models are told apart on a fraction of the examples.
    Exact for the attacks that `under_word_budgets` is exact for.

    Raises:
        ValueError: no examples.
    """
    held = [example.held_budgets(longest) for example in examples]
    return MeanAccuracy(longest, fmean(held), mean_interval(held))


def read_example(entry: object) -> AttackedExample:
    """The example of an object that was read from JSON.

    Raises:
        ValueError: it is not a record of an attacked example.
    """
    return _EXAMPLE.validate_python(entry)


_EXAMPLE = TypeAdapter(AttackedExample)


def read_examples(directory: Path) -> list[AttackedExample]:
    """The attacked examples that `attack_directory` wrote into `directory`.

    Raises:
        UserError: there are none, or they are broken.
    """
    path = directory / EXAMPLES_RECORD
    try:
        return [read_example(entry) for entry in read_json_lines(path)]
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: is no record of attacked examples; run compress attack again: {_why(error)}"
        ) from error


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
    return first_line(error)
