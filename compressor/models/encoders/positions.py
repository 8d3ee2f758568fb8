"""Positions that are counted over the tokens that are not padding, from the one after the padding's id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.models.encoders.keys import Config, padding_problem, size_problem

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def positions_after(positions: int, padding: int | None, config: Config) -> int:
    """Return for how many tokens there are positions after the padding's; `positions` where one is wrong.

    Args:
        positions: that there are, as the content of a `config.json` has it.
        padding: token id, likewise; None where positions are counted from the first token.
    """
    if size_problem(positions, config) or padding is None or padding_problem(padding, config):
        # What is wrong is named itself.
        return positions
    return positions - padding - 1


def count_positions(ids: Tensor, padding: int) -> Tensor:
    """Return the position of each token as transformers counts it, in operators that runtimes have.

    TensorRT sums no whole numbers cumulatively; those of positions are exact in float32.

    Args:
        ids: `(batch, sequence)` int64.
        padding: token id, and the position, of padding.

    Returns:
        `(batch, sequence)` int64.
    """
    is_real = ids.ne(padding).float()
    return (is_real.cumsum(dim=1) * is_real).long() + padding


def cut_positions(model: PreTrainedModel, padding: int) -> None:
    """Take those position embeddings out of a classifier that are before a smaller id of padding.

    Its configuration follows.

    Args:
        padding: new token id, not above the old one.
    """
    from torch import nn

    embeddings = model.base_model.embeddings
    unused = embeddings.padding_idx - padding
    weight = embeddings.position_embeddings.weight.detach()[unused:].clone()
    count, width = weight.shape
    fewer = nn.Embedding(count, width, padding_idx=padding, device="meta")
    fewer.weight = nn.Parameter(weight)
    embeddings.position_embeddings, embeddings.padding_idx = fewer, padding
    model.config.max_position_embeddings, model.config.pad_token_id = count, padding
