"""Texts as a training step sees them, some of their words replaced: the interface, and how that is done."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from compressor.data.texts import TextData
from compressor.models.batching import Encoded
from compressor.training.mixture import Replacements

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Substitution(ABC):
    """Texts as a training step sees them: some words replaced, other ones at each step.

    What is drawn depends on the seed, the step, the text and the number of the draw alone, so that a training
    that was stopped goes on with the same texts.

    Attributes:
        replacements: what a word may be replaced by, of a `Mixture`; a word without any stays.
        share: of the words that something may replace.
    """

    tokenizer: PreTrainedTokenizerBase
    data: TextData
    max_length: int
    replacements: Replacements
    share: float
    seed: int

    @abstractmethod
    def seen(self, places: Sequence[int], step: int, model: PreTrainedModel, labels: Tensor) -> list[Encoded]:
        """What a step trains on: the tokenised texts (or pairs) at those places, words replaced.

        Args:
            step: counted from 0.
            labels: of these texts, on the model's device.
        """


def with_words(text: str, replaced: Sequence[tuple[int, int, str]]) -> str:
    """The text with some of its words replaced; where nothing would be left of it, as it is.

    With a word that is dropped goes the space before it, or at the start the one after it.

    Args:
        replaced: start and end of each word in characters, in their order, and what takes its place.
    """
    found, done = "", 0
    for start, end, other in replaced:
        found += text[done:start]
        done = end
        if other:
            found += other
        elif found.endswith(" "):
            found = found[:-1]
        elif not found and text[end : end + 1] == " ":
            done += 1
    found += text[done:]
    return found if WORD.search(found) else text
