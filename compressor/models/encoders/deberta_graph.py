"""DeBERTa's self-attention for an exported graph, with what it makes of distances as constants."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn


class GraphAttention(nn.Module):
    """Computes what the family's self-attention does, for the encoder layer that it is in.

    Args:
        own: the family's, which shares its linear layers of tokens with this one.
        embeddings: of distances, `(2 * span, hidden)`; None where there are none.
        makers: linear layers that make keys and queries of distances; None for what scores have no part of.
        parts: of which a score is the sum.
    """

    def __init__(
        self,
        own: Any,
        embeddings: Tensor | None,
        makers: tuple[nn.Linear | None, nn.Linear | None],
        parts: int,
    ) -> None:
        super().__init__()
        self.query_proj, self.key_proj, self.value_proj = own.query_proj, own.key_proj, own.value_proj
        self.num_attention_heads, self.attention_head_size = own.num_attention_heads, own.attention_head_size
        self.scale = math.sqrt(own.attention_head_size * parts)
        keys, queries = (
            None if embeddings is None or linear is None else self._of_heads(linear(embeddings) / self.scale)
            for linear in makers
        )
        self.position_keys: Tensor | None
        self.position_queries: Tensor | None
        self.register_buffer("position_keys", keys)
        self.register_buffer("position_queries", queries)

    def _of_heads(self, rows: Tensor) -> Tensor:
        """Arrange `(rows, width)` for a product, `(heads, width of one, rows)`."""
        found: Tensor = rows.unflatten(-1, (self.num_attention_heads, -1)).permute(1, 2, 0).contiguous()
        return found

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        output_attentions: bool = False,
        query_states: Tensor | None = None,
        relative_pos: Tensor | None = None,
        rel_embeddings: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the outputs of the heads side by side `(batch, sequence, width)`, and the probabilities.

        Args:
            hidden_states: `(batch, sequence, hidden)`.
            attention_mask: is added to scores, `(batch, 1, 1, sequence)`.
            relative_pos: where the embedding of each distance is, `(sequence, sequence)` int64: from the
                query that a row is of, to the key that a column is of.
        """
        query, key, value = (
            linear(hidden_states).unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2)
            for linear in (self.query_proj, self.key_proj, self.value_proj)
        )
        scores = query @ key.transpose(-1, -2) / self.scale
        if relative_pos is not None:
            for part in self._of_distances(query, key, relative_pos):
                scores = scores + part
        probabilities = (scores + attention_mask).softmax(dim=-1)
        return (probabilities @ value).transpose(1, 2).flatten(2), probabilities

    def _of_distances(self, query: Tensor, key: Tensor, places: Tensor) -> list[Tensor]:
        """Return the parts of scores that depend on distances, each `(batch, heads, sequence, sequence)`.

        Args:
            query, key: `(batch, heads, sequence, width)`.
            places: as `relative_pos` of `forward`.
        """
        found, shape = [], (*query.shape[:2], *places.shape)
        if self.position_keys is not None:
            found.append((query @ self.position_keys).gather(-1, places.expand(shape)))
        if self.position_queries is not None:
            own = (key @ self.position_queries).gather(-1, places.T.expand(shape))
            found.append(own.transpose(-1, -2))
        return found
