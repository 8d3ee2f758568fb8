"""Texts as a training step sees them, some of their words replaced: the interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from compressor.data.texts import TextData
from compressor.models.batching import Encoded

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Substitution(ABC):
    """Texts as a training step sees them: some words replaced, other ones at each step.

    What is drawn depends on the seed, the step, the text and the number of the draw alone, so that a training
    that was stopped goes on with the same texts.

    Attributes:
        close_to: words that a word in lower case may be replaced by, of `close_words`.
        share: of the words that have close ones.
    """

    tokenizer: PreTrainedTokenizerBase
    data: TextData
    max_length: int
    close_to: Callable[[str], Sequence[str]]
    share: float
    seed: int

    @abstractmethod
    def seen(self, places: Sequence[int], step: int, model: PreTrainedModel, labels: Tensor) -> list[Encoded]:
        """What a step trains on: the tokenised texts (or pairs) at those places, words replaced.

        Args:
            step: counted from 0.
            labels: of these texts, on the model's device.
        """
