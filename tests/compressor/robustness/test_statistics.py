"""Intervals against published examples, closed forms and simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from compressor.robustness.statistics import (
    difference_interval,
    paired_difference,
    paired_interval,
    wilson_interval,
)


def table(both, only_first, only_second, neither):
    """Two lists of outcomes with these numbers of pairs."""
    first = [True] * both + [True] * only_first + [False] * (only_second + neither)
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * neither
    return first, second


@given(st.integers(1, 2000), st.data())
def test_wilson_is_where_the_score_test_just_rejects(trials, data):
    successes = data.draw(st.integers(0, trials))
    interval = wilson_interval(successes, trials)
    share = successes / trials
    assert 0 <= interval.low <= share <= interval.high <= 1
    for end in (interval.low, interval.high):
        if 1e-9 < end < 1 - 1e-9:
            score = abs(share - end) / np.sqrt(end * (1 - end) / trials)
            assert score == pytest.approx(norm.ppf(0.975), rel=1e-6)


def test_a_share_of_nothing_is_an_error():
    with pytest.raises(ValueError):
        wilson_interval(0, 0)


def test_the_paired_interval_is_the_published_one():
    # Newcombe, Statistics in Medicine 17 (1998), 2635-2650: the first worked example, method 10.
    interval = paired_difference(*table(36, 12, 2, 0)).interval
    assert (interval.low, interval.high) == pytest.approx((0.0569, 0.3404), abs=5e-5)


def test_where_all_pairs_agree_the_interval_is_that_of_two_wilson_intervals():
    width = wilson_interval(0, 54).high
    interval = paired_difference(*table(0, 0, 0, 54)).interval
    assert (interval.low, interval.high) == pytest.approx((-width, width))


@given(*[st.integers(0, 60)] * 4)
def test_exchanging_the_two_turns_the_sign(both, only_first, only_second, neither):
    if not both + only_first + only_second + neither:
        return
    first, second = table(both, only_first, only_second, neither)
    one, other = paired_difference(first, second), paired_difference(second, first)
    assert one.difference == -other.difference
    assert one.p_value == pytest.approx(other.p_value)
    assert one.interval.low == pytest.approx(-other.interval.high, abs=1e-12)
    assert -1 <= one.interval.low <= one.difference <= one.interval.high <= 1
    assert (one.only_first, one.only_second, one.examples) == (only_first, only_second, len(first))


def test_mcnemar_is_the_exact_sign_test_of_the_discordant_pairs():
    found = paired_difference(*table(30, 9, 2, 9))
    assert found.p_value == pytest.approx(2 * binom.cdf(2, 11, 0.5))
    assert paired_difference(*table(30, 0, 0, 9)).p_value == 1.0


def test_lists_of_other_lengths_are_an_error():
    with pytest.raises(ValueError):
        paired_difference([True], [True, False])


@settings(max_examples=8)
@given(st.floats(0.02, 0.6), st.floats(0.02, 0.3), st.floats(0.02, 0.3))
def test_the_interval_covers_the_true_difference_nearly_as_often_as_it_says(both, only_first, only_second):
    shares = np.array([both, only_first, only_second, 0.3])
    shares /= shares.sum()
    generator = np.random.default_rng(0)
    draws = generator.multinomial(200, shares, size=400)
    truth = shares[1] - shares[2]
    intervals = [paired_difference(*table(*row)).interval for row in draws.tolist()]
    covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert covered > 0.92


@given(*[st.integers(1, 60)] * 4)
def test_an_interval_without_correlation_is_newcombe_s_for_independent_shares(hits, misses, others, rest):
    # Newcombe, Statistics in Medicine 17 (1998), 873-890, method 10, written out.
    first, second = hits / (hits + misses), others / (others + rest)
    one, other = wilson_interval(hits, hits + misses), wilson_interval(others, others + rest)
    found = difference_interval(first, one, second, other)
    below = np.hypot(first - one.low, other.high - second)
    above = np.hypot(one.high - first, second - other.low)
    assert (found.low, found.high) == pytest.approx((first - second - below, first - second + above))


def test_the_interval_of_a_scaled_difference_holds_its_level():
    share_of_both, share_of_first, share_of_second, count, factor = 0.75, 0.1, 0.05, 200, 0.9
    truth = (share_of_both + share_of_first) - factor * (share_of_both + share_of_second)
    rest = 1 - share_of_both - share_of_first - share_of_second
    draws = np.random.default_rng(3).multinomial(
        count, [share_of_both, share_of_first, share_of_second, rest], size=800
    )
    intervals = [paired_interval(*row[:3].tolist(), count, factor) for row in draws]
    covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert 0.93 <= covered <= 0.98
