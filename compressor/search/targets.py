"""Which speeds to try: those that are asked for, or a bisection, since quality falls as speed rises."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from compressor.models.latency_table import LatencyTable
from compressor.options import SearchConfig
from compressor.validation.gates.gates import Gate

# Of what a table predicts without any block; nothing that answers texts is as fast.
HIGHEST_SHARE = 0.95
# A speed is a mean over shapes, and a gate on latency is held at each of them.
MARGIN = 1.1


class Tried(NamedTuple):
    """A speed-up that was tried, and whether what came of it holds the gates on quality."""

    speedup: float
    holds: bool


def next_target(
    table: LatencyTable, tried: Sequence[Tried], config: SearchConfig, gates: Sequence[Gate]
) -> float | None:
    """Return the speed-up to try after the dense model and those that were tried; None where none is left."""
    low = table.speedup(table.predicted_ms(table.dense_widths))
    high = HIGHEST_SHARE * table.speedup(table.predicted_ms([]))
    if config.speedups:
        within = [speedup for speedup in config.speedups if speedup < high]
        return within[len(tried)] if len(tried) < len(within) else None
    if tried:
        return next_speedup(tried, low, high, config.closeness)
    asked = asked_speedup(gates)
    if asked is not None and low < asked < high:
        return asked
    # Half way to what has next to nothing in each layer, beyond which few models hold gates.
    narrow = table.speedup(table.predicted_ms(table.narrowest_widths))
    first = next_speedup([], low, min(narrow, high), config.closeness)
    return first or next_speedup([], low, high, config.closeness)


def coming_targets(
    table: LatencyTable, tried: Sequence[Tried], config: SearchConfig, gates: Sequence[Gate], most: int
) -> Iterator[float]:
    """Yield the next speed-up to try, and then those that may come after it, the nearer ones first.

    After one to try comes what is next if it holds the gates, and then what is next if it does not.

    Args:
        most: how many may still be tried, one after the other.
    """
    # What is asked for by a list does not depend on what holds.
    outcomes = (True,) if config.speedups else (True, False)
    seen: set[float] = set()
    paths = deque([list(tried)])
    while paths:
        path = paths.popleft()
        target = next_target(table, path, config, gates) if len(path) < len(tried) + most else None
        if target is None:
            continue
        if target not in seen:
            seen.add(target)
            yield target
        paths.extend([*path, Tried(target, holds)] for holds in outcomes)


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


def asked_speedup(gates: Sequence[Gate]) -> float | None:
    """Return the speed-up that gates on the latency ask for; None where none does.

    It is the one to try first: if its candidate fails the others, so do all that are fast enough.
    """
    ratios = [
        gate.bound.offset
        for gate in gates
        if gate.metric == "latency_ratio"
        and gate.comparison == "<="
        and gate.bound.reference is None
        and gate.bound.offset > 0
    ]
    return MARGIN / min(ratios) if ratios else None
