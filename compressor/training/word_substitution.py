"""Training on texts some of whose words are replaced by close ones, drawn anew each time.

Augmentation as in Jia et al., "Certified Robustness to Adversarial Word Substitutions", EMNLP 2019, who draw
a few variants of each text ahead. Of several draws the one that the model does worst on can be trained on, as
in Engstrom et al., "Exploring the Landscape of Spatial Robustness", ICML 2019.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from compressor.errors import UserError
from compressor.lexicon.stopwords import STOPWORDS
from compressor.lexicon.word_vectors import WordVectors, encoded_word_vectors, load_word_vectors
from compressor.models.batching import Encoded, encode_texts, inputs_of, pad
from compressor.options import SubstitutionConfig, SubstitutionResourcesConfig
from compressor.system.assets import encoder_directory
from compressor.system.console import Progress
from compressor.training.losses import example_losses, without_dropout
from compressor.training.substitution import Substitution

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Cosine from which one word may stand for another: TextFooler's.
LEAST_COSINE = 0.5
WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class DrawnSubstitution(Substitution):
    """Words are replaced by chance, each with the same probability.

    Attributes:
        draws: how many times a step draws, to train on each text as the model does worst on it.
    """

    draws: int = 1

    def encoded(self, places: Sequence[int], step: int, draw: int = 0) -> list[Encoded]:
        """The tokenised texts (or pairs) at those places of the data; steps and draws are counted from 0."""
        generators = [np.random.default_rng((self.seed, step, place, draw)) for place in places]

        def drawn(texts: Sequence[str]) -> list[str]:
            return [
                substituted(texts[place], self.close_to, self.share, generator)
                for place, generator in zip(places, generators, strict=True)
            ]

        pairs = None if self.data.pairs is None else drawn(self.data.pairs)
        return encode_texts(self.tokenizer, drawn(self.data.texts), pairs, self.max_length)

    def seen(self, places: Sequence[int], step: int, model: PreTrainedModel, labels: Tensor) -> list[Encoded]:
        """Of each text the draw with the largest loss, without dropout."""
        draws = [self.encoded(places, step, draw) for draw in range(self.draws)]
        if len(draws) == 1:
            return draws[0]
        with without_dropout(model), torch.no_grad():
            batches = [pad(draw, int(self.tokenizer.pad_token_id), labels.device) for draw in draws]
            logits = [model(**inputs_of(model, batch)).logits.float() for batch in batches]
            losses = [example_losses(own, labels) for own in logits]
        worst = torch.stack(losses).argmax(dim=0).tolist()
        return [draws[draw][place] for place, draw in enumerate(worst)]


def substituted(
    text: str, close_to: Callable[[str], Sequence[str]], share: float, generator: np.random.Generator
) -> str:
    """The text, each word that has close ones replaced with probability `share` by one of them.

    Args:
        close_to: words, of one in lower case; none where it stays.
    """

    def replacement(match: re.Match[str]) -> str:
        word = match[0]
        close = close_to(word.lower())
        if not close or generator.random() >= share:
            return word
        return written_as(word, close[int(generator.integers(len(close)))])

    return WORD.sub(replacement, text)


def written_as(word: str, other: str) -> str:
    """The other word with the capitals of the first."""
    if word.isupper() and len(word) > 1:
        return other.upper()
    return other.capitalize() if word[0].isupper() else other


def close_words(vectors: WordVectors) -> Callable[[str], Sequence[str]]:
    """A function that gives a word's neighbours from a cosine of 0.5 on; none of a stop word."""
    places = {word: place for place, word in enumerate(vectors.words)}
    stopwords = frozenset(STOPWORDS.read_text().split())

    @cache
    def close_to(word: str) -> Sequence[str]:
        place = places.get(word)
        if place is None or word in stopwords:
            return ()
        neighbours = vectors.neighbours[place, 1:]
        cosines = vectors.vectors[neighbours] @ vectors.vectors[place]
        return [vectors.words[other] for other in neighbours[cosines >= LEAST_COSINE]]

    return close_to


def check_substitution(config: SubstitutionConfig) -> None:
    """Raise a `UserError` if words that nothing draws are to be drawn several times."""
    if config.substitution_choice == "gradient" and config.substitution_draws > 1:
        raise UserError(
            f"substitution_draws: the worst of {config.substitution_draws} draws needs words that are drawn; "
            f"with substitution_choice gradient leave it at 1"
        )


def substitution_vectors(config: SubstitutionResourcesConfig, progress: Progress) -> WordVectors:
    """The word vectors that a recipe names, or those of the packaged encoder.

    Raises:
        UserError: they are missing or broken.
    """
    if config.substitution_vectors:
        return load_word_vectors(Path(config.substitution_vectors), progress)
    return encoded_word_vectors(encoder_directory(), progress)
