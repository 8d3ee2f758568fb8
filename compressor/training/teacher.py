"""What a dense model answers to the training texts, asked once for all epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from compressor.models.batching import Encoded, inputs_of, pad, sorted_batches
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
        states: of each text `(tokens, layers, hidden)` float16.
    """

    def __init__(self, states: Sequence[Tensor]) -> None:
        self._states = states

    def at(self, places: Sequence[int], device: torch.device) -> list[Tensor]:
        """Return the states of some texts, of each layer `(texts, tokens, hidden)` float32.

        Texts are padded with zeros to the longest of them.
        """
        found = pad_sequence([self._states[place] for place in places], batch_first=True)
        return list(found.to(device).float().unbind(dim=2))


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
    states: dict[int, Tensor] = {}
    logits = torch.empty(len(encoded), teacher.config.num_labels)
    with onednn_linears(teacher):
        for batch in track(sorted_batches(encoded, BATCH_SIZE)):
            inputs = pad([encoded[place] for place in batch], pad_token_id, teacher.device)
            answer = teacher(**inputs_of(teacher, inputs), output_hidden_states=True)
            logits[batch] = answer.logits.float().cpu()
            own = torch.stack(answer.hidden_states[1:], dim=2).half().cpu()
            for row, place in enumerate(batch):
                # A copy: a view would keep the padding.
                states[place] = own[row, : len(encoded[place][0])].clone()
    return logits, HiddenStates([states[place] for place in range(len(encoded))])
