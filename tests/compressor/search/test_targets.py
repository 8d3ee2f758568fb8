"""The bisection finds what holds, whatever holds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_latency_tables import SMALL as TABLE

from compressor.options import SearchConfig
from compressor.search.targets import (
    MARGIN,
    Tried,
    asked_speedup,
    coming_targets,
    next_speedup,
    next_target,
)
from compressor.validation.gates.gates import parse_gates

LOW, HIGH = 3.0, 40.0


@given(st.floats(LOW, HIGH), st.floats(0.01, 1.0))
def test_it_ends_within_the_closeness_of_the_fastest_that_holds(limit, closeness):
    tried: list[Tried] = []
    while (target := next_speedup(tried, LOW, HIGH, closeness)) is not None:
        assert LOW < target < HIGH
        tried.append(Tried(target, target <= limit))
        assert len(tried) <= 12
    best = max([LOW, *(speedup for speedup, holds in tried if holds)])
    assert best <= max(limit, LOW) <= best * (1 + closeness) * (1 + 1e-9)


@given(st.lists(st.booleans(), min_size=30, max_size=30))
def test_it_ends_whatever_the_outcomes_are(outcomes):
    tried: list[Tried] = []
    for holds in outcomes:
        target = next_speedup(tried, LOW, HIGH, 0.05)
        if target is None:
            return
        assert target not in [speedup for speedup, _ in tried]
        tried.append(Tried(target, holds))
    pytest.fail("it did not end")


def test_the_first_is_in_the_middle():
    assert next_speedup([], 4.0, 25.0, 0.1) == pytest.approx(10.0)


def test_a_slower_one_that_failed_does_not_count_against_a_faster_one_that_holds():
    assert next_speedup([Tried(5.0, False), Tried(10.0, True)], 4.0, 22.5, 0.1) == pytest.approx(15.0)


def test_nothing_is_tried_where_pruning_brings_nothing():
    assert next_speedup([], 4.0, 4.2, 0.1) is None


@pytest.mark.parametrize(
    ("gates", "expected"),
    [
        (["accuracy_drop <= 0.02"], None),
        (["latency_ratio <= 0.2", "warn: latency_ratio <= 0.1"], 10.0),
        (["latency_ratio <= 1.1 * baseline"], None),
        (["latency_ratio >= 0.1"], None),
    ],
)
def test_gates_on_latency_ask_for_a_speed(gates, expected):
    found = asked_speedup(parse_gates(gates))
    assert found == (None if expected is None else pytest.approx(MARGIN * expected))


def targets(gates=(), outcome=True, **options):
    """All targets of a search whose candidates all hold, or all fail."""
    config, tried = SearchConfig(**options), []
    while (target := next_target(TABLE, tried, config, parse_gates(gates))) is not None:
        tried.append(Tried(target, outcome))
    return [one.speedup for one in tried]


def test_speeds_that_are_asked_for_are_tried_in_their_order_but_those_beyond_reach():
    assert targets(speedups=[8.0, 1000.0, 6.0]) == [8.0, 6.0]


def test_what_a_gate_on_latency_asks_for_comes_first():
    assert targets(["warn: latency_ratio <= 0.2"])[0] == pytest.approx(5.5)
    # The dense model has it, or nothing has.
    for within in ("latency_ratio <= 0.9", "latency_ratio <= 0.005"):
        assert targets([within]) == targets()


def test_without_one_it_begins_half_way_to_a_model_of_next_to_nothing():
    assert targets()[0] == pytest.approx(math.sqrt(100 / 29 * 100 / 7))


def test_it_ends_near_the_fastest():
    assert targets(outcome=True)[-1] == pytest.approx(95, rel=0.1)
    assert targets(outcome=False)[-1] == pytest.approx(100 / 29, rel=0.1)


# what comes after the next one ------------------------------------------------------------------


def coming(tried, most, gates=(), **options):
    return list(coming_targets(TABLE, tried, SearchConfig(**options), parse_gates(gates), most))


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "speedups": st.lists(st.floats(4.0, 30.0), max_size=6),
        "closeness": st.floats(0.05, 1.0),
    },
)


@given(OPTIONS, st.integers(1, 5), st.lists(st.booleans(), min_size=20, max_size=20))
def test_what_a_search_tries_next_was_among_what_comes_whatever_holds(options, most, outcomes):
    config, tried, expected = SearchConfig(**options), [], []
    for holds in outcomes:
        expected.append(coming(tried, most, **options))
        target = next_target(TABLE, tried, config, [])
        if target is None:
            break
        assert expected[-1][0] == target
        assert all(target in targets for targets in expected[-most:])
        tried.append(Tried(target, holds))


@given(OPTIONS, st.integers(0, 5))
def test_nothing_comes_that_would_not_be_begun(options, most):
    targets = coming([], most, **options)
    assert len(targets) == len(set(targets)) <= 2**most - 1
    if options.get("speedups"):
        assert targets == list(dict.fromkeys(options["speedups"][:most]))
    assert set(targets) <= set(coming([], most + 1, **options))


def test_nearer_ones_come_first_and_after_one_that_holds_before_after_one_that_does_not():
    first, held, failed, *later = coming([], 3)
    assert failed < first < held
    assert len(later) == 4
    assert later[0] == next_target(TABLE, [Tried(first, True), Tried(held, True)], SearchConfig(), [])


def test_nothing_comes_at_the_end_of_a_search():
    assert coming([Tried(8.0, True)], 5, speedups=[8.0]) == []
