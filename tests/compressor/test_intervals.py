"""Intervals against published examples, closed forms and simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from compressor.intervals import (
    difference_interval,
    mean_interval,
    paired_difference,
    paired_interval,
    paired_mean_difference,
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


@given(st.integers(0, 80), st.integers(0, 80))
def test_the_interval_of_a_mean_of_outcomes_is_agresti_and_coull_s(hits, misses):
    if not hits + misses:
        return
    count = hits + misses + 4
    share = (hits + 2) / count
    margin = norm.ppf(0.975) * np.sqrt(share * (1 - share) / count)
    found = mean_interval([1.0] * hits + [0.0] * misses)
    ends = (max(0, share - margin), min(1, share + margin))
    assert (found.low, found.high) == pytest.approx(ends, abs=1e-12)


@given(*[st.integers(0, 60)] * 4)
def test_the_interval_of_paired_outcomes_is_agresti_and_min_s(both, only_first, only_second, neither):
    if not both + only_first + only_second + neither:
        return
    # Half an example is added to each of the four counts.
    count = both + only_first + only_second + neither + 2
    one, other = (only_first + 0.5) / count, (only_second + 0.5) / count
    margin = norm.ppf(0.975) * np.sqrt((one + other - (one - other) ** 2) / count)
    first, second = table(both, only_first, only_second, neither)
    found = paired_mean_difference(list(map(float, first)), list(map(float, second)))
    ends = (max(-1, one - other - margin), min(1, one - other + margin))
    assert (found.interval.low, found.interval.high) == pytest.approx(ends, abs=1e-12)
    assert found.difference == pytest.approx(paired_difference(first, second).difference)


numbers = st.lists(st.floats(0, 1), min_size=1, max_size=40)


@given(numbers, st.data())
def test_intervals_of_means_are_around_them_and_turn_with_the_sign(first, data):
    second = data.draw(st.lists(st.floats(0, 1), min_size=len(first), max_size=len(first)))
    ends = mean_interval(first)
    assert 0 <= ends.low <= np.mean(first) + 1e-9
    assert np.mean(first) - 1e-9 <= ends.high <= 1
    one, other = paired_mean_difference(first, second), paired_mean_difference(second, first)
    assert -1 <= one.interval.low <= one.difference + 1e-9
    assert one.difference - 1e-9 <= one.interval.high <= 1
    assert (one.difference, one.interval.low) == pytest.approx((-other.difference, -other.interval.high))


@pytest.mark.parametrize("examples", [10, 30, 100])
@pytest.mark.parametrize("effect", [0.0, 0.3])
def test_intervals_of_means_cover_the_truth_nearly_as_often_as_they_say(examples, effect):
    # A third is wrong before the attack, most of the rest falls early, and few never do.
    generator = np.random.default_rng(0)
    shape = (2000, examples)
    wrong, never = generator.random(shape) < 0.3, generator.random(shape) < 0.05
    first = np.where(wrong, 0.0, np.where(never, 1.0, generator.beta(1, 4, shape)))
    second = first * np.where(generator.random(shape) < 0.4, 1 - effect, 1.0)
    means = 0.7 * (0.05 + 0.95 / 5) * np.array([1.0, 1 - 0.4 * effect])
    alone = [mean_interval(row) for row in first.tolist()]
    pairs = [
        paired_mean_difference(*rows).interval for rows in zip(first.tolist(), second.tolist(), strict=True)
    ]
    for intervals, truth in ((alone, means[0]), (pairs, means[0] - means[1])):
        covered = np.mean([ends.low <= truth <= ends.high for ends in intervals])
        assert covered > 0.93


def test_numbers_outside_their_range_are_an_error():
    for values in ([], [1.5], [-0.1]):
        with pytest.raises(ValueError):
            mean_interval(values)
    with pytest.raises(ValueError, match="from -1 to 1"):
        paired_mean_difference([2.0], [0.5])


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
