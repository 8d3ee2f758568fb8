import itertools
import threading
import time

import numpy as np
import pytest

from compressor.models.batching import encode_texts
from compressor.models.predictors import TorchPredictor
from compressor.system.console import SilentProgress
from compressor.validation.measure import latency
from compressor.validation.measure.latency import (
    LEAST_ROUNDS,
    PATIENCE,
    WARMUP_ROUNDS,
    LatencyPlan,
    batch_of_length,
    is_settled,
    measure_latency,
)


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 17), (2, 64)])
def test_batches_have_the_shape_and_no_padding(batch, length):
    encoded = [([101, 7, 102], [0, 0, 0]), ([101, 8, 9, 102], [0, 0, 0, 0])]
    made = batch_of_length(encoded, batch, length, pad_token_id=0)
    assert made["input_ids"].shape == (batch, length)
    assert made["attention_mask"].all()


class Recorder:
    """Counts its calls in a log shared with others, and delegates to a real predictor."""

    def __init__(self, name, predictor, log):
        self.tokenizer, self.label_names = predictor.tokenizer, predictor.label_names
        self._name, self._predictor, self._log = name, predictor, log

    def logits(self, batch):
        self._log.append(self._name)
        return self._predictor.logits(batch)


def test_variants_take_turns_and_every_shape_is_measured(small_classifier):
    log: list[str] = []
    predictor = TorchPredictor(small_classifier)
    predictors = {name: Recorder(name, predictor, log) for name in ("a", "b")}
    encoded = dict.fromkeys(predictors, encode_texts(small_classifier.tokenizer, ["a fine film"], None, 16))
    figures = measure_latency(predictors, encoded, LatencyPlan([(1, 8), (2, 8)], 4, 60), SilentProgress())
    rounds = sum(f.rounds for f in figures["a"])
    assert log == ["a", "a", "b", "b"] * (2 * WARMUP_ROUNDS + rounds)
    for name in ("a", "b"):
        assert [(f.batch_size, f.sequence_length) for f in figures[name]] == [(1, 8), (2, 8)]
        for f in figures[name]:
            assert 4 <= f.rounds <= PATIENCE * 4
            assert 0 < f.p50_ms <= f.p95_ms <= f.p99_ms
            assert np.isclose(f.examples_per_second, f.batch_size / f.p50_ms * 1000, rtol=1e-2)


ENCODED = [([1, 2], [0, 0])]


class Timed:
    """Takes the milliseconds of a series, on a clock that only it moves; each second call is a timed one."""

    def __init__(self, series, clock):
        self.tokenizer = type("Tokenizer", (), {"pad_token_id": 0})
        self._series, self._clock, self._calls = series, clock, 0

    def logits(self, batch):
        if self._calls % 2:
            self._clock[0] += self._series[self._calls // 2] / 1000
        self._calls += 1


@pytest.mark.parametrize(
    ("slow_start", "rounds", "stable"),
    # Windows of two: 3 warm-up rounds, then as many slow ones as are said.
    [(0, 6, True), (1, 8, True), (4, 10, True), (40, 12, False)],
)
def test_it_measures_until_times_settle_and_says_where_they_do_not(monkeypatch, slow_start, rounds, stable):
    clock = [0.0]
    monkeypatch.setattr("compressor.validation.measure.latency.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr(latency, "_wait_until_idle", lambda: None)
    falling = [10 * 1.2 ** max(slow_start - (turn - WARMUP_ROUNDS), 0) for turn in range(60)]
    predictors = {"even": Timed([5.0] * 60, clock), "falling": Timed(falling, clock)}
    plan = LatencyPlan([(1, 4)], 6, 1e9)
    found = measure_latency(predictors, dict.fromkeys(predictors, ENCODED), plan, SilentProgress())
    assert found["even"][0].rounds == found["falling"][0].rounds == rounds
    assert found["even"][0].stable
    assert found["falling"][0].stable is stable
    assert found["falling"][0].p50_ms == pytest.approx(np.median(falling[WARMUP_ROUNDS:][:rounds]), rel=1e-4)


def test_settled_looks_at_the_last_three_windows_alone():
    assert is_settled([90, 90, 10, 10, 10.5, 10.5, 10, 10], window=2)
    assert not is_settled([10, 10, 10, 10, 10.6, 10.6], window=2)
    assert not is_settled([10, 10, 10, 10], window=2)


@pytest.mark.parametrize(
    ("seconds", "rounds"),
    # Each round takes ten milliseconds, after three of warm-up.
    [(0.001, LEAST_ROUNDS), (0.0301, LEAST_ROUNDS), (0.0799, 5), (0.0801, 6), (1e9, 60)],
)
def test_a_shape_keeps_to_its_time(monkeypatch, seconds, rounds):
    clock = [0.0]
    monkeypatch.setattr("compressor.validation.measure.latency.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("compressor.validation.measure.latency._wait_until_idle", lambda: None)
    restless = [10 * (1 + turn // 10 % 2) for turn in range(100)]
    predictors = {"fixed": Timed([10.0] * 100, clock)}
    if rounds == 60:
        predictors = {"restless": Timed(restless, clock)}
    plan = LatencyPlan([(1, 4)], 30, seconds)
    found = measure_latency(predictors, dict.fromkeys(predictors, ENCODED), plan, SilentProgress())
    [figures] = next(iter(found.values()))
    assert figures.rounds == rounds
    assert not figures.stable


def test_a_variant_waits_until_the_threads_before_it_sleep():
    """A thread that spins for a twentieth of a second takes no time from the next variant."""

    def spin():
        end = time.perf_counter() + 0.05
        while time.perf_counter() < end:
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    latency._wait_until_idle()
    assert not thread.is_alive()


def test_the_wait_ends_on_a_process_that_is_never_idle(monkeypatch):
    monkeypatch.setattr(latency, "MOST_PAUSES", 3)
    used = itertools.count()
    monkeypatch.setattr("compressor.validation.measure.latency.time.process_time", lambda: float(next(used)))
    latency._wait_until_idle()
    assert next(used) == 6
