"""Texts to padded batches: tokenised once, cut to the longest in the batch, grouped by length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from compressor.data.texts import TextData
from compressor.models.encoders.inputs import IDS, MASK, SEGMENTS, WITH_SEGMENTS
from compressor.models.encoders.registry import layout_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Token ids and segment ids of one text, without padding.
Encoded: TypeAlias = tuple[list[int], list[int]]
# Token ids, mask and segment ids by the names of inputs, each (batch, sequence) int64.
Batch: TypeAlias = dict[str, Tensor]

# Batches are grouped by length within this many of them, so that their order stays random.
BUCKET_BATCHES = 20
# Texts that are tokenised at a time: the tokenizers library keeps offsets and pieces of all that it is given.
CHUNK = 256


def encode(tokenizer: PreTrainedTokenizerBase, data: TextData, max_length: int) -> list[Encoded]:
    """Tokenise all texts (or pairs); the longer of a pair is cut first."""
    return encode_texts(tokenizer, data.texts, data.pairs, max_length)


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], pairs: Sequence[str] | None, max_length: int
) -> list[Encoded]:
    """As `encode`, for plain lists."""
    return _tokenised(tokenizer, texts, pairs, max_length)


def encode_windows(tokenizer: PreTrainedTokenizerBase, data: TextData, max_length: int) -> list[Encoded]:
    """As `encode`, and of a text that is longer all of it: windows that overlap by half.

    Pairs, of which both texts would have to be cut, are encoded as they are.
    """
    if data.pairs is not None:
        return encode(tokenizer, data, max_length)
    overlap = (max_length - tokenizer.num_special_tokens_to_add()) // 2
    return _tokenised(tokenizer, data.texts, None, max_length, return_overflowing_tokens=True, stride=overlap)


def _tokenised(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    max_length: int,
    **options: Any,
) -> list[Encoded]:
    found: list[Encoded] = []
    for start in range(0, len(texts), CHUNK):
        encoded = tokenizer(
            list(texts[start : start + CHUNK]),
            None if pairs is None else list(pairs[start : start + CHUNK]),
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
            **WITH_SEGMENTS,
            **options,
        )
        found += zip(encoded[IDS], encoded[SEGMENTS], strict=True)
    return found


def pad(
    encoded: Sequence[Encoded],
    pad_token_id: int,
    device: torch.device | str = "cpu",
    length: int | None = None,
) -> Batch:
    """Pad to the longest of `encoded`, or to `length`."""
    longest = max(len(ids) for ids, _ in encoded)
    shape = (len(encoded), max(longest, length or 0))
    input_ids = np.full(shape, pad_token_id, dtype=np.int64)
    attention_mask = np.zeros(shape, dtype=np.int64)
    segment_ids = np.zeros(shape, dtype=np.int64)
    for row, (ids, types) in enumerate(encoded):
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
        segment_ids[row, : len(ids)] = types
    return {
        IDS: torch.from_numpy(input_ids).to(device),
        MASK: torch.from_numpy(attention_mask).to(device),
        SEGMENTS: torch.from_numpy(segment_ids).to(device),
    }


def inputs_of(model: PreTrainedModel, batch: Batch) -> Batch:
    """Return what a model, a classifier or an encoder, takes of a batch, on the device of the model."""
    return {name: batch[name].to(model.device) for name in layout_of(model).inputs}


def sorted_batches(encoded: Sequence[Encoded], batch_size: int) -> list[list[int]]:
    """Indices of all texts in batches of similar length, shortest first."""
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i][0]))
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def shuffled_batches(
    encoded: Sequence[Encoded], batch_size: int, generator: np.random.Generator
) -> list[list[int]]:
    """Indices of all texts once, in random batches of similar length: one training epoch."""
    order = generator.permutation(len(encoded)).tolist()
    bucket = batch_size * BUCKET_BATCHES
    batches = []
    for start in range(0, len(order), bucket):
        near = sorted(order[start : start + bucket], key=lambda i: len(encoded[i][0]))
        batches += [near[i : i + batch_size] for i in range(0, len(near), batch_size)]
    return [batches[i] for i in generator.permutation(len(batches))]
