"""How sure shares and other figures are: intervals, and paired comparisons. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, norm

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """Both ends of a confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """Two shares measured on the same examples: the first minus the second.

    Attributes:
        difference: of the shares, -1 to 1.
        interval: of the difference, at 95 %.
        p_value: of McNemar's exact test that both shares are the same.
        only_first, only_second: examples that count for one of the two alone.
        examples: all of them.
    """

    difference: float
    interval: Interval
    p_value: float
    only_first: int
    only_second: int
    examples: int


@dataclass(frozen=True)
class MeanDifference:
    """Means of two numbers between 0 and 1 of each example: the first minus the second.

    Attributes:
        interval: of the difference, at 95 %.
    """

    difference: float
    interval: Interval
    examples: int


def wilson_interval(successes: int, trials: int, confidence: float = CONFIDENCE) -> Interval:
    """The score interval of a share (Wilson, JASA 1927); it holds its level at 0 % and 100 % as well.

    Raises:
        ValueError: no trials, or more successes than trials.
    """
    found = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return Interval(float(found.low), float(found.high))


def paired_difference(first: Sequence[bool], second: Sequence[bool]) -> PairedDifference:
    """Compare two shares on the same examples, in the same order.

    The interval is Newcombe's for paired proportions (Statistics in Medicine 17, 1998, method 10):
    two Wilson intervals joined by the correlation of the pairs. The test is McNemar's, exact.

    Args:
        first, second: for each example, whether it counts.

    Raises:
        ValueError: no examples, or not as many in both.
    """
    pairs = list(zip(first, second, strict=True))
    both = sum(a and b for a, b in pairs)
    only_first = sum(a and not b for a, b in pairs)
    only_second = sum(b and not a for a, b in pairs)
    discordant = only_first + only_second
    return PairedDifference(
        difference=(only_first - only_second) / len(pairs),
        interval=paired_interval(both, only_first, only_second, len(pairs)),
        p_value=float(binomtest(only_first, discordant).pvalue) if discordant else 1.0,
        only_first=only_first,
        only_second=only_second,
        examples=len(pairs),
    )


def mean_interval(values: Sequence[float]) -> Interval:
    """The interval of the mean of numbers between 0 and 1, at 95 %.

    Agresti and Coull's (The American Statistician 52, 1998), with numbers where they have outcomes: as if two
    more examples had 0 and two had 1. So a few equal numbers do not pass for certainty.

    Raises:
        ValueError: no numbers, or one outside.
    """
    return _normal_interval(values, {0.0: 2.0, 1.0: 2.0}, 0.0)


def paired_mean_difference(first: Sequence[float], second: Sequence[float]) -> MeanDifference:
    """Compare the means of two numbers between 0 and 1 on the same examples, in the same order.

    The interval is Agresti and Min's for paired proportions (Statistics in Medicine 24, 2005), with numbers
    where they have outcomes: as if four more pairs differed by 1, 0, 0 and -1, each of half the weight.

    Raises:
        ValueError: no examples, not as many in both, or numbers that differ by more than 1.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    interval = _normal_interval(differences, {-1.0: 0.5, 0.0: 1.0, 1.0: 0.5}, -1.0)
    return MeanDifference(math.fsum(differences) / len(differences), interval, len(differences))


def _normal_interval(values: Sequence[float], added: Mapping[float, float], lowest: float) -> Interval:
    """The normal interval of the mean of numbers from `lowest` to 1 and of added ones, given with weights."""
    if not values:
        raise ValueError("there are no numbers")
    if min(values) < lowest or max(values) > 1:
        raise ValueError(f"numbers from {lowest:g} to 1 are needed, not {min(values)} to {max(values)}")
    numbers = np.array([*values, *added], dtype=np.float64)
    weights = np.array([*[1.0] * len(values), *added.values()])
    total = weights.sum()
    mean = weights @ numbers / total
    error = math.sqrt(weights @ (numbers - mean) ** 2 / total / total)
    margin = float(norm.ppf((1 + CONFIDENCE) / 2)) * error
    return Interval(max(lowest, float(mean - margin)), min(1.0, float(mean + margin)))


def difference_interval(
    first: float,
    first_ends: Interval,
    second: float,
    second_ends: Interval,
    *,
    correlation: float = 0.0,
    factor: float = 1.0,
) -> Interval:
    """The interval of `first - factor * second`, from the intervals of the two.

    Newcombe's square-and-add for any pair of figures (Zou and Donner, Statistics in Medicine 27, 2008).

    Args:
        correlation: of the two estimates; 0 for figures of independent samples. For positively correlated
            ones 0 gives an interval that is too wide, never one that is too narrow.
        factor: above 0.
    """

    def distance(of_first: float, of_second: float) -> float:
        square = of_first**2 - 2 * correlation * of_first * of_second + of_second**2
        return math.sqrt(max(0.0, square))

    difference = first - factor * second
    below = distance(first - first_ends.low, factor * (second_ends.high - second))
    above = distance(first_ends.high - first, factor * (second - second_ends.low))
    return Interval(difference - below, difference + above)


def paired_interval(
    both: int, only_first: int, only_second: int, count: int, factor: float = 1.0
) -> Interval:
    """The interval of a share minus `factor` times another one, counted on the same examples.

    Args:
        both: examples that count for both shares.
        only_first, only_second: those that count for one of the two alone.
        count: all examples.
    """
    shares = (both + only_first) / count, (both + only_second) / count
    one, other = (wilson_interval(both + only, count) for only in (only_first, only_second))
    correlation = _correlation(both, only_first, only_second, count - both - only_first - only_second)
    found = difference_interval(shares[0], one, shares[1], other, correlation=correlation, factor=factor)
    return Interval(max(-factor, found.low), min(1.0, found.high))


def _correlation(both: int, only_first: int, only_second: int, neither: int) -> float:
    """Of the pairs, with Newcombe's correction for continuity; nought where a share is 0 or 1."""
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    if not margins:
        return 0.0
    product = both * neither - only_first * only_second
    if product > 0:
        count = both + only_first + only_second + neither
        product = max(product - count / 2, 0)  # type: ignore[assignment]
    return product / math.sqrt(margins)
