"""The attack on one example, and its record."""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import torch

from compressor.attacks.recipes import build_attack, has_words
from compressor.attacks.records import AttackedExample, Outcome
from compressor.attacks.victims import Victim, as_input
from compressor.options import AttackConfig
from compressor.system.console import Progress


class Attacker:
    """A built attack on a victim.

    Each example has its own random state, drawn from the seed and its place in the data, so that its
    outcome depends neither on the examples before it nor on the process that attacks it.

    Attributes:
        resources: description of what the attack uses besides the victim.
    """

    def __init__(self, victim: Victim, config: AttackConfig, seed: int, progress: Progress) -> None:
        self._victim = victim
        self._seed = seed
        self._attack, self.resources = build_attack(config, victim, progress)

    def attack(self, index: int, text: str, pair: str | None, label: int) -> AttackedExample:
        """What becomes of the example at place `index`."""
        if not has_words(f"{text} {pair or ''}"):
            # Not every recipe bears a text without words.
            return _held_out(self._victim, text, pair, label)
        # TextFooler leaves the first text of a pair alone if the two are named so.
        given = text if pair is None else OrderedDict(premise=text, hypothesis=pair)
        start, before = time.monotonic(), self._victim.scored
        with random_state(self._seed, index):
            self._attack.clear_cache()
            result = self._attack.attack(given, label)
        record = _record(result, text, pair, label)
        seconds = round(time.monotonic() - start, 4)
        return replace(record, scored=self._victim.scored - before, seconds=seconds)


def _held_out(victim: Victim, text: str, pair: str | None, label: int) -> AttackedExample:
    """The record of a text in which there is nothing to change: one query tells whether it is right."""
    start = time.monotonic()
    right = int(victim([as_input(text, pair)]).argmax()) == label
    outcome: Outcome = "failed" if right else "skipped"
    seconds = round(time.monotonic() - start, 4)
    return AttackedExample(text, pair, text, pair, label, outcome, 1, 1, 0, 0.0, seconds)


@contextmanager
def random_state(seed: int, index: int) -> Iterator[None]:
    """TextAttack draws from the global generators; set them, and put them back."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        value = int(np.random.SeedSequence((seed, index)).generate_state(1)[0])
        random.seed(value)
        np.random.seed(value)
        torch.manual_seed(value)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def _outcome(result: Any) -> Outcome:
    kind = type(result).__name__
    if kind == "MaximizedAttackResult":
        # Input reduction: TextAttack goes as far as it gets, and leaves it open how far that must be.
        return "succeeded" if result.perturbed_result.attacked_text.num_words <= 1 else "failed"
    outcomes: dict[str, Outcome] = {
        "SkippedAttackResult": "skipped",
        "SuccessfulAttackResult": "succeeded",
        "FailedAttackResult": "failed",
    }
    return outcomes[kind]


def _record(result: Any, text: str, pair: str | None, label: int) -> AttackedExample:
    """What TextAttack tells of an example; what it scored and how long it took are still nought."""
    original, perturbed = result.original_result.attacked_text, result.perturbed_result.attacked_text
    outcome = _outcome(result)
    # What input reduction took away is told even where more than one word is left.
    told = outcome == "succeeded" or type(result).__name__ == "MaximizedAttackResult"
    texts = list(perturbed._text_input.values())
    return AttackedExample(
        text=text,
        text_pair=pair,
        perturbed=texts[0] if told else text,
        perturbed_pair=pair if pair is None or not told else texts[1],
        label=label,
        outcome=outcome,
        queries=int(result.num_queries),
        scored=0,
        words=original.num_words,
        words_changed=_share_changed(original.words, perturbed.words) if told else 0.0,
        seconds=0.0,
    )


def _share_changed(before: Sequence[str], after: Sequence[str]) -> float:
    """Share of the words that are gone or others; a space put into one does not count for those behind it."""
    if len(before) == len(after):
        return sum(old != new for old, new in zip(before, after, strict=True)) / len(before)
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    kept = sum(block.size for block in matcher.get_matching_blocks())
    return 1 - kept / len(before)
