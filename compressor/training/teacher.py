"""What a dense model answers to the training texts, asked once for all epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compressor.models.batching import Encoded, pad, sorted_batches
from compressor.models.onednn import onednn_linears

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH_SIZE = 32
# 262,144 tokens of MiniLM are 1.2 GB; as many of BERT-base would be 4.8 GB.
LARGEST_BYTES = 2 * 2**30


class HiddenStates:
    """Hidden states of a model for each of some texts, without the embeddings'.

    They are kept in float16. What that rounds away is a thousandth of a state, and pruned models differ by
    a tenth.

    Args:
        states: `(tokens, layers, hidden)` float16, of all texts one after the other.
        lengths: tokens of each text.
    """

    def __init__(self, states: Tensor, lengths: Sequence[int]) -> None:
        self._states, self._lengths, self._starts = states, lengths, starts_of(lengths)

    def at(self, places: Sequence[int], device: torch.device) -> list[Tensor]:
        """Return the states of some texts, of each layer `(texts, tokens, hidden)` float32.

        Texts are padded with zeros to the longest of them.
        """
        longest = max(self._lengths[place] for place in places)
        found = self._states.new_zeros(len(places), longest, *self._states.shape[1:])
        for row, place in enumerate(places):
            start, length = self._starts[place], self._lengths[place]
            found[row, :length] = self._states[start : start + length]
        return list(found.to(device).float().unbind(dim=2))


def starts_of(lengths: Sequence[int]) -> list[int]:
    """Return where each of some texts begins if all are written one after the other."""
    return [0, *accumulate(lengths)][:-1]


def can_be_kept(encoded: Sequence[Encoded], teacher: PreTrainedModel) -> bool:
    """Return whether the hidden states of all texts are small enough for the memory."""
    config = teacher.config
    tokens = sum(len(ids) for ids, _ in encoded)
    return bool(2 * tokens * config.num_hidden_layers * config.hidden_size <= LARGEST_BYTES)


@torch.no_grad()
def ask_teacher(
    teacher: PreTrainedModel,
    encoded: Sequence[Encoded],
    pad_token_id: int,
    track: Callable[[Sequence[list[int]]], Iterator[list[int]]] = iter,
) -> tuple[Tensor, HiddenStates]:
    """Return what a dense model, in evaluation mode, answers to texts: `(texts, labels)` logits, and states.

    Args:
        track: shows progress over the batches.
    """
    lengths, config = [len(ids) for ids, _ in encoded], teacher.config
    starts = starts_of(lengths)
    states = torch.empty(sum(lengths), config.num_hidden_layers, config.hidden_size, dtype=torch.float16)
    logits = torch.empty(len(encoded), config.num_labels)
    with onednn_linears(teacher):
        for batch in track(sorted_batches(encoded, BATCH_SIZE)):
            inputs = pad([encoded[place] for place in batch], pad_token_id, teacher.device)
            answer = teacher(**inputs, output_hidden_states=True)
            logits[batch] = answer.logits.float().cpu()
            own = torch.stack(answer.hidden_states[1:], dim=2).half().cpu()
            for row, place in enumerate(batch):
                states[starts[place] : starts[place] + lengths[place]] = own[row, : lengths[place]]
    return logits, HiddenStates(states, lengths)
