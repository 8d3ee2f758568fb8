"""Training on texts some of whose words are replaced by those others that raise the loss most.

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
from compressor.training.substitution import WORD, Substitution, with_words

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedModel

# Words whose pieces are kept, some 50 MB.
MOST_WORDS = 2**17


class Replacement(NamedTuple):
    """A word of a text, what raises the loss most in its place, and by how much to first order.

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
    others: Sequence[str]
    pieces: list[int]


@dataclass(frozen=True)
class GradientSubstitution(Substitution):
    """Words are replaced where and by what raises the model's loss most, of a kind drawn for each word.

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
        generators = [np.random.default_rng((self.seed, step, place)) for place in places]
        words = self._words(encodings, sides, generators)
        found = self.best(words, embedded, gradient, model.get_input_embeddings())
        rows = [self._chosen(own, generator) for own, generator in zip(found, generators, strict=True)]
        replaced = [
            [
                with_words(text, [(own.start, own.end, own.other) for own in row if own.side == side])
                for text, row in zip(texts, rows, strict=True)
            ]
            for side, texts in enumerate(sides)
        ]
        pairs = replaced[1] if len(replaced) > 1 else None
        return encode_texts(self.tokenizer, replaced[0], pairs, self.max_length)

    @property
    def _sides(self) -> list[Sequence[str]]:
        return [self.data.texts] if self.data.pairs is None else [self.data.texts, self.data.pairs]

    def _words(
        self,
        encodings: Sequence[Encoding],
        sides: Sequence[Sequence[str]],
        generators: Sequence[np.random.Generator],
    ) -> list[list[_Word]]:
        """Of each text the words that something may replace and that the model reads.

        Args:
            encodings: of the tokenizer, a text (or pair) each.
            sides: the texts and, of pairs, the second ones.
            generators: of each text.
        """
        return [
            [
                _Word(side, match, others, pieces)
                for side, texts in enumerate(sides)
                for match in WORD.finditer(texts[row])
                if (others := self.replacements(match[0], generator))
                if (pieces := _pieces(encoding, side, match))
            ]
            for row, (encoding, generator) in enumerate(zip(encodings, generators, strict=True))
        ]

    def best(
        self, words: Sequence[Sequence[_Word]], embedded: Tensor, gradient: Tensor, embed: nn.Embedding
    ) -> list[list[Replacement]]:
        """Of each text all its words, with what raises the loss most in place of each.

        Each piece of a word is taken to become the mean of the pieces of the other one; zero where a word
        is dropped.

        Args:
            embedded, gradient: of `embedding_gradient`, `(batch, sequence, hidden)`.
            embed: the model's word embeddings.
        """
        places: dict[str, int] = {}
        others = [
            [places.setdefault(other, len(places)) for word in row for other in word.others] for row in words
        ]
        vectors = self._mean_embeddings(list(places), embed)
        return [
            _best_replacements(own, vectors[others[row]], embedded[row], gradient[row]) if own else []
            for row, own in enumerate(words)
        ]

    def _mean_embeddings(self, words: Sequence[str], embed: nn.Embedding) -> Tensor:
        """`(words, hidden)`: the mean embedding of each word's pieces."""
        weight = embed.weight.detach()
        if not words:
            return weight[:0]
        # Cut into pieces once: to do so at each step took a tenth of it. Misspellings are without end.
        if len(self._word_pieces) > MOST_WORDS:
            self._word_pieces.clear()
        if unknown := [word for word in words if word not in self._word_pieces]:
            # Within a text a space comes before a word; where it is part of a piece, that is another one.
            found = self.tokenizer([f" {word}" for word in unknown], add_special_tokens=False)["input_ids"]
            self._word_pieces.update(zip(unknown, found, strict=True))
        pieces = [self._word_pieces[word] for word in words]
        flat = torch.tensor(
            [piece for own in pieces for piece in own], dtype=torch.int64, device=weight.device
        )
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
    """Of each word of a text what raises the loss most in its place.

    Args:
        others: `(replacements of all words, hidden)`, their mean embeddings.
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
    counts = [len(word.others) for word in words]
    gains = (others * slopes[of_each(counts)]).sum(dim=1).split(counts)
    best = nn.utils.rnn.pad_sequence(gains, batch_first=True, padding_value=-torch.inf).max(dim=1)
    return [
        Replacement(word.side, *word.match.span(), word.others[place], gain)
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
