"""Floating-point operations of a forward pass, counted from the encoder's matrices. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from compressor.models.encoders.layout import EncoderLayout
from compressor.validation.schema import FlopsFigures


def encoder_flops(
    layout: EncoderLayout, weights: Mapping[str, Tensor], batch_size: int, sequence_length: int
) -> FlopsFigures:
    """Operations of the encoder's matrix products at one shape; a multiplication and its addition are two.

    These are the products with each weight, and in each layer those of queries with keys and of attention
    with values. Embeddings, normalizations, pooler and head are not counted; pruning leaves them alone.

    Args:
        layout: of the model's family.
        weights: of the encoder's linear layers by name, `(out_features, in_features)`.

    Returns:
        Operations with all weights, and with those that are not zero: what a runtime that skips zeros
        would be left with.
    """
    tokens = batch_size * sequence_length
    places = {name: layout.place_of(name) for name in weights}
    queries = [name for name, place in places.items() if place and place[1] == layout.linears.query]
    widths = [weights[name].shape[0] for name in queries]
    attention = sum(2 * tokens * sequence_length * width for width in widths)
    every = sum(weight.numel() for weight in weights.values())
    nonzero = sum(int(weight.count_nonzero()) for weight in weights.values())
    return FlopsFigures(
        batch_size=batch_size,
        sequence_length=sequence_length,
        all_weights=2 * (tokens * every + attention),
        nonzero_weights=2 * (tokens * nonzero + attention),
    )
