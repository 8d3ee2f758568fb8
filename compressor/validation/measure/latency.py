"""Latency of variants, interleaved, so that a drift of the machine's speed cancels between them.

At each shape all variants are timed in turn, in windows of rounds, until the times have settled: the
medians of each variant's last three windows agree within 5 %. Where they do not within twice the rounds
that were asked for, or the shape's time is up before, the figures are marked as not stable. All timed
rounds count, not the last ones alone: to stop when times agree and to report only those would leave out
what is slow.

A variant is timed as it would be served: its own threads, awake from a run just before, and no others. The
idle threads of ONNX Runtime and OpenMP spin for a while after a run, so each variant waits until those of
the one before it sleep.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from compressor.models.batching import Batch, Encoded, pad
from compressor.models.predictors import Predictor
from compressor.system.console import Progress
from compressor.validation.schema import LatencyFigures

WARMUP_ROUNDS = 3
WINDOWS = 3
AGREEMENT = 0.05
PATIENCE = 2
# Times that are taken whatever the time limit, so that there is a median.
LEAST_ROUNDS = 3
# A process whose threads used less than this share of a short pause is idle.
PAUSE_SECONDS, IDLE_SHARE, MOST_PAUSES = 0.002, 0.25, 100


@dataclass(frozen=True)
class LatencyPlan:
    """Shapes and limits of a latency measurement.

    Attributes:
        shapes: batch size and sequence length of each, in order.
        rounds: timed runs of each predictor at each shape; up to twice as many where times do not settle.
        seconds: after which no further round of a shape begins.
    """

    shapes: Sequence[tuple[int, int]]
    rounds: int
    seconds: float


def batch_of_length(
    encoded: Sequence[Encoded], batch_size: int, sequence_length: int, pad_token_id: int
) -> Batch:
    """Return a batch of exactly that shape without padding, from concatenated tokens of real texts."""
    stream = [token for ids, _ in encoded for token in ids]
    needed = batch_size * sequence_length
    stream = (stream * (needed // len(stream) + 1))[:needed]
    rows = [stream[i : i + sequence_length] for i in range(0, needed, sequence_length)]
    return pad([(row, [0] * sequence_length) for row in rows], pad_token_id)


def is_settled(times: Sequence[float], window: int) -> bool:
    """Return whether the medians of the last three windows agree within 5 % of the smallest.

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
    encoded: Mapping[str, Sequence[Encoded]],
    plan: LatencyPlan,
    progress: Progress,
) -> dict[str, list[LatencyFigures]]:
    """Time each predictor at each shape, after a warm-up, all predictors in turn in each round.

    Args:
        encoded: texts as each predictor's own tokenizer encodes them.

    Returns:
        For each predictor one entry a shape, in the order of the plan.
    """
    figures: dict[str, list[LatencyFigures]] = {name: [] for name in predictors}
    for shape in progress.track(plan.shapes, f"Latency, shapes of {plan.seconds:g} s at most"):
        batches = {
            name: batch_of_length(encoded[name], *shape, int(predictor.tokenizer.pad_token_id))
            for name, predictor in predictors.items()
        }
        times, settled = _times_until_settled(predictors, batches, plan)
        for name, own in times.items():
            figures[name].append(_figures(shape, own, settled[name]))
    return figures


def _times_until_settled(
    predictors: Mapping[str, Predictor], batches: Mapping[str, Batch], plan: LatencyPlan
) -> tuple[dict[str, list[float]], dict[str, bool]]:
    """Milliseconds of each predictor's timed rounds, and whether its times have settled."""
    start = time.perf_counter()
    window = math.ceil(plan.rounds / WINDOWS)
    for _ in range(WARMUP_ROUNDS):
        _time_each(predictors, batches)
    times: dict[str, list[float]] = {name: [] for name in predictors}
    settled = dict.fromkeys(predictors, False)
    most = max(WINDOWS * window, PATIENCE * plan.rounds // window * window)
    for done in range(1, most + 1):
        for name, elapsed in _time_each(predictors, batches).items():
            times[name].append(elapsed)
        settled = {name: is_settled(own, window) for name, own in times.items()}
        if done % window == 0 and all(settled.values()):
            break
        if done >= LEAST_ROUNDS and time.perf_counter() - start >= plan.seconds:
            break
    return times, settled


def _time_each(predictors: Mapping[str, Predictor], batches: Mapping[str, Batch]) -> dict[str, float]:
    """Milliseconds of one run of each predictor."""
    found = {}
    for name, predictor in predictors.items():
        batch = batches[name]
        _wait_until_idle()
        # Untimed: it wakes the runtime's own threads.
        predictor.logits(batch)
        start = time.perf_counter()
        predictor.logits(batch)
        found[name] = (time.perf_counter() - start) * 1000
    return found


def _wait_until_idle() -> None:
    """Wait until no thread of this process spins, a fifth of a second at most."""
    for _ in range(MOST_PAUSES):
        start, used = time.perf_counter(), time.process_time()
        time.sleep(PAUSE_SECONDS)
        if time.process_time() - used <= IDLE_SHARE * (time.perf_counter() - start):
            return


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
