"""Texts made of the pieces of others, where there are few to calibrate with.

The dense model answers any text, so what it is to be reproduced on needs no labels and no author. Pieces of
several texts are joined, and some tokens are replaced by ones drawn from the vocabulary, which shows the
layers inputs that the texts themselves do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from compressor.models.batching import Encoded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_PIECES = 8
# The share that BERT's pre-training hides.
REPLACED_SHARE = 0.15


def fill_up(
    encoded: Sequence[Encoded],
    tokens: int,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    generator: np.random.Generator,
) -> list[Encoded]:
    """The texts, and behind them as many made ones as it takes to have `tokens` tokens.

    Args:
        encoded: texts or pairs; a made pair joins first texts in front and second texts behind.
        tokens: in all, padding not counted; no text is made if the texts have as many.
        max_length: longest text in tokens.
    """
    filled = list(encoded)
    count = sum(len(ids) for ids, _ in filled)
    made = _made_texts(encoded, tokenizer, max_length, generator)
    while count < tokens:
        filled.append(next(made))
        count += len(filled[-1][0])
    return filled


def _made_texts(
    encoded: Sequence[Encoded],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    generator: np.random.Generator,
) -> Iterator[Encoded]:
    special = set(tokenizer.all_special_ids)
    vocabulary = sorted(
        token_id
        for token, token_id in tokenizer.get_vocab().items()
        if token_id not in special and not token.startswith("[unused")
    )
    parts = 1 + max(max(types) for _, types in encoded)
    # All texts of a part, their tokens without the special ones; a text of none gives nothing to join.
    sources = [
        [text for ids, types in encoded if (text := _part_of(ids, types, part, special))]
        for part in range(parts)
    ]
    # [CLS], and a [SEP] behind every part.
    longest = (max_length - 1) // parts - 1
    while True:
        bodies = [_joined(source, longest, vocabulary, generator) for source in sources]
        ids = [tokenizer.cls_token_id, *chain(*([*body, tokenizer.sep_token_id] for body in bodies))]
        types = [0, *chain(*([part] * (len(body) + 1) for part, body in enumerate(bodies)))]
        yield ids, types


def _part_of(ids: Sequence[int], types: Sequence[int], part: int, special: set[int]) -> list[int]:
    return [token for token, type_ in zip(ids, types, strict=True) if type_ == part and token not in special]


def _joined(
    source: Sequence[Sequence[int]], longest: int, vocabulary: Sequence[int], generator: np.random.Generator
) -> list[int]:
    """Pieces of two and more texts of `source`, some of their tokens replaced, cut to `longest`."""
    if not source:
        return []
    joined: list[int] = []
    pieces = int(generator.integers(2, MOST_PIECES + 1))
    for index in generator.integers(len(source), size=pieces):
        text = source[index]
        start = int(generator.integers(len(text)))
        joined += text[start : int(generator.integers(start, len(text))) + 1]
    joined = joined[:longest]
    drawn = generator.integers(len(vocabulary), size=len(joined))
    replaced = generator.random(len(joined)) < REPLACED_SHARE
    return [
        vocabulary[index] if replace else token
        for token, index, replace in zip(joined, drawn.tolist(), replaced.tolist(), strict=True)
    ]
