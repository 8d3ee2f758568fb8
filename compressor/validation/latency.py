"""Latency of variants, interleaved, so that a drift of the machine's speed cancels between them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from compressor.batching import Batch, Encoded, pad
from compressor.console import Progress
from compressor.predictors import Predictor
from compressor.validation.report import LatencyFigures

WARMUP_ROUNDS = 3


def batch_of_length(
    encoded: Sequence[Encoded], batch_size: int, sequence_length: int, pad_token_id: int
) -> Batch:
    """A batch of exactly that shape without padding: the tokens of real texts, end to end."""
    stream = [token for ids, _ in encoded for token in ids]
    needed = batch_size * sequence_length
    stream = (stream * (needed // len(stream) + 1))[:needed]
    rows = [stream[i : i + sequence_length] for i in range(0, needed, sequence_length)]
    return pad([(row, [0] * sequence_length) for row in rows], pad_token_id)


def measure_latency(
    predictors: Mapping[str, Predictor],
    encoded: Sequence[Encoded],
    batch_sizes: Sequence[int],
    sequence_lengths: Sequence[int],
    rounds: int,
    progress: Progress,
) -> dict[str, list[LatencyFigures]]:
    """Time each predictor at each shape, after a warm-up, all predictors in turn in each round.

    Returns:
        For each predictor one entry a shape, in the order of `batch_sizes`, then lengths.
    """
    pad_token_id = int(next(iter(predictors.values())).tokenizer.pad_token_id)
    shapes = [(size, length) for size in batch_sizes for length in sequence_lengths]
    figures: dict[str, list[LatencyFigures]] = {name: [] for name in predictors}
    batches = {shape: batch_of_length(encoded, *shape, pad_token_id) for shape in shapes}
    times: dict[tuple[int, int], dict[str, list[float]]] = {
        shape: {name: [] for name in predictors} for shape in shapes
    }
    work = [(shape, turn) for shape in shapes for turn in range(WARMUP_ROUNDS + rounds)]
    for shape, turn in progress.track(work, "Latency"):
        for name, predictor in predictors.items():
            # Untimed: the threads of the runtime that was timed before still spin for a while.
            predictor.logits(batches[shape])
            start = time.perf_counter()
            predictor.logits(batches[shape])
            elapsed = time.perf_counter() - start
            if turn >= WARMUP_ROUNDS:
                times[shape][name].append(elapsed * 1000)
    for batch_size, sequence_length in shapes:
        for name in predictors:
            p50, p95 = np.percentile(times[batch_size, sequence_length][name], [50, 95])
            figures[name].append(
                LatencyFigures(
                    batch_size=batch_size,
                    sequence_length=sequence_length,
                    p50_ms=round(float(p50), 4),
                    p95_ms=round(float(p95), 4),
                    examples_per_second=round(batch_size / float(p50) * 1000, 2),
                )
            )
    return figures
