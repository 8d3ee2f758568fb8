"""Metrics against their definitions, counted one example at a time."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from compressor.errors import UserError
from compressor.models.metrics import check_metric, correlation, measure, measure_task

examples = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30)


def counted(rows):
    return [sum(row == pair for row in rows) for pair in ((1, 1), (1, 0), (0, 1), (0, 0))]


# The first call imports scikit-learn.
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


# Few values, so that ties are common.
numbered = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=20)


@given(numbered, st.floats(0.01, 100), st.floats(-50, 50))
def test_correlations_are_those_of_their_definitions(rows, scale, shift):
    answers, targets = (np.array(values, dtype=float) for values in zip(*rows, strict=True))
    for metric, defined in (("pearson", pearsonr), ("spearman", spearmanr)):
        found = correlation(metric, answers, targets)
        constant = np.ptp(answers) == 0 or np.ptp(targets) == 0
        expected = 0.0 if constant else defined(answers, targets).statistic
        assert found == pytest.approx(expected, abs=1e-9)
        # Neither the unit of the answers nor their zero counts.
        assert correlation(metric, scale * answers + shift, targets) == pytest.approx(found, abs=1e-6)


def test_ranks_alone_count_for_spearman():
    targets = [1.0, 2.0, 3.0, 4.0]
    assert correlation("spearman", np.exp(targets), targets) == pytest.approx(1)
    assert correlation("pearson", np.exp(targets), targets) < 0.95


def test_every_metric_of_logits():
    logits = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], dtype=np.float32)
    assert measure_task("accuracy", logits, [1, 0, 0]) == pytest.approx(2 / 3)
    assert measure_task("pearson", logits[:, :1], [1.0, 8.0, 3.0]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("metric", "task"), [("accuracy", "regression"), ("f1", "regression"), ("spearman", "classification")]
)
def test_a_metric_of_the_other_task_is_an_error(metric, task):
    with pytest.raises(UserError, match=f"score {metric}: the model answers with"):
        check_metric("score", metric, task)


def test_the_loss_is_of_any_task():
    check_metric("score", "loss", "regression")
    check_metric("score", "loss", "classification")
