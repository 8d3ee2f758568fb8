"""Which speed to try next: a bisection, since quality falls as speed rises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Tried(NamedTuple):
    """A speed-up that was tried, and whether what came of it holds the gates on quality."""

    speedup: float
    holds: bool


def next_speedup(tried: Sequence[Tried], low: float, high: float, closeness: float) -> float | None:
    """Return the speed-up to try next, or None when the fastest that holds is known closely enough.

    It halves, in logarithms, the range between the fastest that holds and the slowest above it that does not.
    Where a slower one failed by bad luck, the fastest that holds counts.

    Args:
        tried: in any order.
        low: what the model has without any pruning, above 0.
        high: what nothing can reach; above `low`.
        closeness: ratio of the ends, minus 1, at which the range is small enough.
    """
    best = max([low, *(speedup for speedup, holds in tried if holds)])
    worst = min([high, *(speedup for speedup, holds in tried if not holds and speedup > best)])
    if worst / best <= 1 + closeness:
        return None
    return math.sqrt(best * worst)
