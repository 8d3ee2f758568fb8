"""The bisection finds what holds, whatever holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.search.targets import Tried, next_speedup

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
