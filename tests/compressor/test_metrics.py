"""Metrics against their definitions, counted one example at a time."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.metrics import measure

examples = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30)


def counted(rows):
    return [sum(row == pair for row in rows) for pair in ((1, 1), (1, 0), (0, 1), (0, 0))]


@given(examples)
def test_accuracy(rows):
    answers, labels = zip(*rows, strict=True)
    assert measure("accuracy", answers, labels) == pytest.approx(sum(a == b for a, b in rows) / len(rows))


@given(examples)
def test_f1_of_the_second_class(rows):
    hits, false, missed, _ = counted(rows)
    expected = 2 * hits / (2 * hits + false + missed) if hits else 0.0
    assert measure("f1", *zip(*rows, strict=True)) == pytest.approx(expected)


@given(examples)
def test_matthews_correlation(rows):
    hits, false, missed, right = counted(rows)
    spread = math.sqrt((hits + false) * (hits + missed) * (right + false) * (right + missed))
    expected = (hits * right - false * missed) / spread if spread else 0.0
    assert measure("matthews", *zip(*rows, strict=True)) == pytest.approx(expected)


def test_f1_of_three_classes_is_the_mean_over_them():
    assert measure("f1", [0, 1, 2, 0], [0, 1, 1, 0]) == pytest.approx((1 + 2 / 3 + 0) / 3)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(1, 4)), min_size=1, max_size=12))
def test_a_weight_is_a_number_of_repetitions(rows):
    answers, labels, weights = map(list, zip(*rows, strict=True))
    repeated = [row[:2] for row in rows for _ in range(row[2])]
    for metric in ("accuracy", "f1", "matthews"):
        expected = measure(metric, *map(list, zip(*repeated, strict=True)))
        assert measure(metric, answers, labels, weights) == pytest.approx(expected)
