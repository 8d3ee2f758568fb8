"""Slice the test data by label and by length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.validation.schema import SliceKind

QUARTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Slice:
    """Some of the test examples.

    Attributes:
        by: what they have in common.
        name: which of it, such as `positive` or `5 to 12 tokens`.
        places: their indices, `(examples,)` int64, ascending.
    """

    by: SliceKind
    name: str
    places: NDArray[np.int64]


def label_slices(labels: Sequence[int], label_names: Sequence[str]) -> list[Slice]:
    """Return one slice for each label that occurs, in the order of the class indices."""
    values = np.asarray(labels)
    return [
        Slice("label", label_names[label], np.flatnonzero(values == label))
        for label in np.unique(values).tolist()
    ]


def length_slices(lengths: Sequence[int]) -> list[Slice]:
    """Return quarters of the texts by their number of tokens, shortest first.

    Texts of one length are in one slice, so slices differ in size, and there may be fewer than four.
    Texts that are all of one length give none: the slice would be all of the data.
    """
    values = np.asarray(lengths)
    edges = np.unique(np.quantile(values, QUARTILES, method="inverted_cdf"))
    quarters = np.searchsorted(edges, values, side="left")
    found = [np.flatnonzero(quarters == quarter) for quarter in np.unique(quarters)]
    if len(found) < 2:
        return []
    return [Slice("length", _range(values[places]), places) for places in found]


def _range(lengths: NDArray[np.int64]) -> str:
    low, high = int(lengths.min()), int(lengths.max())
    return f"{low} tokens" if low == high else f"{low} to {high} tokens"
