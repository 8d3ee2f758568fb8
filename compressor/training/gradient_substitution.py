"""Training on texts some of whose words are replaced by those close ones that raise the loss most.

What a replacement does to the loss is told to first order by the gradient on the word embeddings, as HotFlip
does (Ebrahimi et al., ACL 2018); training on what replacements of close words make of a text is that of Yoo
and Qi, "Towards Improving Adversarial Training of NLP Models", Findings of EMNLP 2021.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from compressor.models.batching import Encoded, encode_texts, inputs_of, pad
from compressor.training.losses import example_losses, without_dropout
from compressor.training.substitution import Substitution
from compressor.training.word_substitution import WORD, written_as

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedModel


class Replacement(NamedTuple):
    """A word of a text, the close one that raises the loss most, and by how much to first order.

    Attributes:
        side: 0 in a text, 1 in the second one of a pair.
        start, end: where the word is, in characters.
    """

    side: int
    start: int
    end: int
    other: str
    gain: float


class _Word(NamedTuple):
    """A word of a text, those that may replace it, and the tokens that it was cut into."""

    side: int
    match: re.Match[str]
    close: Sequence[str]
    pieces: list[int]


@dataclass(frozen=True)
class GradientSubstitution(Substitution):
    """Words are replaced where and by the close ones that raise the model's loss most.

    How many words of a text are replaced is drawn, evenly up to twice the share.
    """

    _word_pieces: dict[str, list[int]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def seen(self, places: Sequence[int], step: int, model: PreTrainedModel, labels: Tensor) -> list[Encoded]:
        """Of each text one with the words replaced that raise its loss most, without dropout."""
        sides = [[texts[place] for place in places] for texts in self._sides]
        encodings = self.tokenizer(*sides, truncation=True, max_length=self.max_length).encodings
        encoded = [(encoding.ids, encoding.type_ids) for encoding in encodings]
        embedded, gradient = embedding_gradient(
            model, pad(encoded, int(self.tokenizer.pad_token_id), labels.device), labels
        )
        found = self.replacements(encodings, sides, embedded, gradient, model.get_input_embeddings())
        rows = [
            self._chosen(own, np.random.default_rng((self.seed, step, place)))
            for own, place in zip(found, places, strict=True)
        ]
        replaced = [
            [
                with_replacements(text, [own for own in row if own.side == side])
                for text, row in zip(texts, rows, strict=True)
            ]
            for side, texts in enumerate(sides)
        ]
        pairs = replaced[1] if len(replaced) > 1 else None
        return encode_texts(self.tokenizer, replaced[0], pairs, self.max_length)

    @property
    def _sides(self) -> list[Sequence[str]]:
        return [self.data.texts] if self.data.pairs is None else [self.data.texts, self.data.pairs]

    def replacements(
        self,
        encodings: Sequence[Encoding],
        sides: Sequence[Sequence[str]],
        embedded: Tensor,
        gradient: Tensor,
        embed: nn.Embedding,
    ) -> list[list[Replacement]]:
        """Of each text all words that have close ones and that the model reads, with the best of these.

        Each piece of a word is taken to become the mean of the pieces of the close one.

        Args:
            encodings: of the tokenizer, a text (or pair) each.
            sides: the texts and, of pairs, the second ones.
            embedded, gradient: of `embedding_gradient`, `(batch, sequence, hidden)`.
            embed: the model's word embeddings.
        """
        found = [
            [
                _Word(side, match, close, pieces)
                for side, texts in enumerate(sides)
                for match in WORD.finditer(texts[row])
                if (close := self.close_to(match[0].lower()))
                if (pieces := _pieces(encoding, side, match))
            ]
            for row, encoding in enumerate(encodings)
        ]
        places: dict[str, int] = {}
        others = [
            [places.setdefault(other, len(places)) for word in words for other in word.close]
            for words in found
        ]
        vectors = self._mean_embeddings(list(places), embed)
        return [
            _best_replacements(words, vectors[others[row]], embedded[row], gradient[row]) if words else []
            for row, words in enumerate(found)
        ]

    def _mean_embeddings(self, words: Sequence[str], embed: nn.Embedding) -> Tensor:
        """`(words, hidden)`: the mean embedding of each word's pieces."""
        weight = embed.weight.detach()
        if not words:
            return weight[:0]
        # Cut into pieces once: to do so at each step took a tenth of it.
        if unknown := [word for word in words if word not in self._word_pieces]:
            # Within a text a space comes before a word; where it is part of a piece, that is another one.
            found = self.tokenizer([f" {word}" for word in unknown], add_special_tokens=False)["input_ids"]
            self._word_pieces.update(zip(unknown, found, strict=True))
        pieces = [self._word_pieces[word] for word in words]
        flat = torch.tensor([piece for own in pieces for piece in own], device=weight.device)
        starts = torch.tensor([0, *(len(own) for own in pieces[:-1])], device=weight.device).cumsum(0)
        return nn.functional.embedding_bag(flat, weight, starts, mode="mean")

    def _chosen(self, found: Sequence[Replacement], generator: np.random.Generator) -> list[Replacement]:
        """Those of the largest gains, in the order of the text; none that would lower the loss."""
        count = max(1, round(2 * self.share * generator.random() * len(found)))
        best = sorted(found, key=lambda own: -own.gain)[:count]
        return sorted(own for own in best if own.gain > 0)


def embedding_gradient(
    model: PreTrainedModel, inputs: dict[str, Tensor], labels: Tensor
) -> tuple[Tensor, Tensor]:
    """The word embeddings of texts and the gradient of each one's loss on them, without dropout.

    The parameters' gradients stay as they are.

    Returns:
        Two `(batch, sequence, hidden)` float32 tensors.
    """
    rest = {key: value for key, value in inputs_of(model, inputs).items() if key != "input_ids"}
    embed: nn.Module = model.get_input_embeddings()
    embedded: Tensor = embed(inputs["input_ids"]).detach().requires_grad_()
    with without_dropout(model), _frozen(model):
        logits = model(inputs_embeds=embedded, **rest).logits.float()
        [gradient] = torch.autograd.grad(example_losses(logits, labels).sum(), embedded)
    return embedded.detach().float(), gradient.float()


def _best_replacements(
    words: Sequence[_Word], others: Tensor, embedded: Tensor, gradient: Tensor
) -> list[Replacement]:
    """Of each word of a text the close one that raises the loss most.

    Args:
        others: `(close words of all words, hidden)`, their mean embeddings.
        embedded, gradient: of the text, `(sequence, hidden)`.
    """
    device = gradient.device
    numbers = torch.arange(len(words), device=device)

    def of_each(counts: Sequence[int]) -> Tensor:
        return numbers.repeat_interleave(torch.tensor(counts, device=device))

    pieces = [piece for word in words for piece in word.pieces]
    owners = of_each([len(word.pieces) for word in words])
    slopes = gradient.new_zeros(len(words), gradient.shape[1]).index_add_(0, owners, gradient[pieces])
    stays = gradient.new_zeros(len(words)).index_add_(0, owners, (gradient * embedded).sum(dim=1)[pieces])
    counts = [len(word.close) for word in words]
    gains = (others * slopes[of_each(counts)]).sum(dim=1).split(counts)
    best = nn.utils.rnn.pad_sequence(gains, batch_first=True, padding_value=-torch.inf).max(dim=1)
    return [
        Replacement(word.side, *word.match.span(), word.close[place], gain)
        for word, place, gain in zip(
            words, best.indices.tolist(), (best.values - stays).tolist(), strict=True
        )
    ]


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Within it the model computes no gradients of its parameters."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_()


def _pieces(encoding: Encoding, side: int, match: re.Match[str]) -> list[int]:
    """Places of the tokens that a word was cut into; none where it was left out as the text is too long."""
    tokens = [encoding.char_to_token(place, side) for place in range(*match.span())]
    return sorted({token for token in tokens if token is not None})


def with_replacements(text: str, replacements: Sequence[Replacement]) -> str:
    """The text with these words of it replaced, written as they were."""
    parts, done = [], 0
    for own in replacements:
        parts += [text[done : own.start], written_as(text[own.start : own.end], own.other)]
        done = own.end
    return "".join([*parts, text[done:]])
