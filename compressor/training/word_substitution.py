"""Training on texts some of whose words are replaced by others, drawn anew each time.

Augmentation as in Jia et al., "Certified Robustness to Adversarial Word Substitutions", EMNLP 2019, who draw
a few variants of each text ahead. Of several draws the one that the model does worst on can be trained on, as
in Engstrom et al., "Exploring the Landscape of Spatial Robustness", ICML 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from compressor.errors import UserError
from compressor.models.batching import Encoded, encode_texts, inputs_of, pad
from compressor.options import SubstitutionConfig
from compressor.training.gradient_substitution import GradientSubstitution
from compressor.training.losses import example_losses, without_dropout
from compressor.training.mixture import Replacements
from compressor.training.substitution import WORD, Substitution, with_words

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
                substituted(texts[place], self.replacements, self.share, generator)
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


def substituted(text: str, replacements: Replacements, share: float, generator: np.random.Generator) -> str:
    """The text, each word that something may replace replaced with probability `share`."""
    found = []
    for match in WORD.finditer(text):
        if generator.random() >= share:
            continue
        others = replacements(match[0], generator)
        if others:
            found.append((*match.span(), others[int(generator.integers(len(others)))]))
    return with_words(text, found)


def substitution_kind(config: SubstitutionConfig) -> Callable[..., Substitution]:
    """Return what makes the substitutions that options choose, of the fields of `Substitution`."""
    if config.substitution_choice == "gradient":
        return GradientSubstitution
    return partial(DrawnSubstitution, draws=config.substitution_draws)


def check_substitution(config: SubstitutionConfig) -> None:
    """Raise a `UserError` if words that nothing draws are to be drawn several times."""
    if config.substitution_choice == "gradient" and config.substitution_draws > 1:
        raise UserError(
            f"substitution_draws: the worst of {config.substitution_draws} draws needs words that are drawn; "
            f"with substitution_choice gradient leave it at 1"
        )
