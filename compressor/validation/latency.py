"""Latency of variants, interleaved, so that a drift of the machine's speed cancels between them.

At each shape all variants are timed in turn, in windows of rounds, until the times have settled: the
medians of each variant's last three windows agree within 5 %. Where they do not within five times the
rounds that were asked for, the figures are marked as not stable. All timed rounds count, not the last ones
alone: to stop when times agree and to report only those would leave out what is slow.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import numpy as np

from compressor.batching import Batch, Encoded, pad
from compressor.console import Progress
from compressor.predictors import Predictor
from compressor.validation.report import LatencyFigures

WARMUP_ROUNDS = 3
WINDOWS = 3
AGREEMENT = 0.05
PATIENCE = 5


def batch_of_length(
    encoded: Sequence[Encoded], batch_size: int, sequence_length: int, pad_token_id: int
) -> Batch:
    """A batch of exactly that shape without padding: the tokens of real texts, end to end."""
    stream = [token for ids, _ in encoded for token in ids]
    needed = batch_size * sequence_length
    stream = (stream * (needed // len(stream) + 1))[:needed]
    rows = [stream[i : i + sequence_length] for i in range(0, needed, sequence_length)]
    return pad([(row, [0] * sequence_length) for row in rows], pad_token_id)


def is_settled(times: Sequence[float], window: int) -> bool:
    """Whether the medians of the last three windows agree within 5 % of the smallest.

    Args:
        times: in the order in which they were taken, any unit.
        window: number of times in a window.
    """
    if len(times) < WINDOWS * window:
        return False
    medians = np.median(np.reshape(times[-WINDOWS * window :], (WINDOWS, window)), axis=1)
    return bool(medians.max() <= (1 + AGREEMENT) * medians.min())


def measure_latency(
    predictors: Mapping[str, Predictor],
    encoded: Sequence[Encoded],
    batch_sizes: Sequence[int],
    sequence_lengths: Sequence[int],
    rounds: int,
    progress: Progress,
) -> dict[str, list[LatencyFigures]]:
    """Time each predictor at each shape, after a warm-up, all predictors in turn in each round.

    Args:
        rounds: timed runs of each predictor at each shape, at least; see the module on how many more.

    Returns:
        For each predictor one entry a shape, in the order of `batch_sizes`, then lengths.
    """
    pad_token_id = int(next(iter(predictors.values())).tokenizer.pad_token_id)
    shapes = [(size, length) for size in batch_sizes for length in sequence_lengths]
    figures: dict[str, list[LatencyFigures]] = {name: [] for name in predictors}
    for shape in progress.track(shapes, "Latency, shapes"):
        batch = batch_of_length(encoded, *shape, pad_token_id)
        times, settled = _times_until_settled(predictors, batch, rounds)
        for name, own in times.items():
            figures[name].append(_figures(shape, own, settled[name]))
    return figures


def _times_until_settled(
    predictors: Mapping[str, Predictor], batch: Batch, rounds: int
) -> tuple[dict[str, list[float]], dict[str, bool]]:
    """Milliseconds of each predictor's timed rounds, and whether its times have settled."""
    window = math.ceil(rounds / WINDOWS)
    for _ in range(WARMUP_ROUNDS):
        _time_each(predictors, batch)
    times: dict[str, list[float]] = {name: [] for name in predictors}
    settled = dict.fromkeys(predictors, False)
    while not all(settled.values()) and len(next(iter(times.values()))) + window <= PATIENCE * rounds:
        for _ in range(window):
            for name, elapsed in _time_each(predictors, batch).items():
                times[name].append(elapsed)
        settled = {name: is_settled(own, window) for name, own in times.items()}
    return times, settled


def _time_each(predictors: Mapping[str, Predictor], batch: Batch) -> dict[str, float]:
    """Milliseconds of one run of each predictor."""
    found = {}
    for name, predictor in predictors.items():
        # Untimed: the threads of the runtime that was timed before still spin for a while.
        predictor.logits(batch)
        start = time.perf_counter()
        predictor.logits(batch)
        found[name] = (time.perf_counter() - start) * 1000
    return found


def _figures(shape: tuple[int, int], times: Sequence[float], stable: bool) -> LatencyFigures:
    batch_size, sequence_length = shape
    p50, p95, p99 = (float(value) for value in np.percentile(times, [50, 95, 99]))
    return LatencyFigures(
        batch_size=batch_size,
        sequence_length=sequence_length,
        p50_ms=round(p50, 4),
        p95_ms=round(p95, 4),
        p99_ms=round(p99, 4),
        examples_per_second=round(batch_size / p50 * 1000, 2),
        rounds=len(times),
        stable=stable,
    )
