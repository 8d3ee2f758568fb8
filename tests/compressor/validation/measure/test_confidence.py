import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.validation.measure.confidence import BINS, expected_calibration_error


@st.composite
def answered(draw):
    """Probabilities `(examples, labels)` and labels."""
    count, classes = draw(st.integers(1, 40)), draw(st.integers(2, 4))
    rows = draw(
        st.lists(
            st.lists(st.floats(0.01, 1), min_size=classes, max_size=classes), min_size=count, max_size=count
        )
    )
    values = np.array(rows, dtype=np.float64)
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
    return values / values.sum(axis=1, keepdims=True), labels


def by_definition(probabilities, labels, bins):
    """Equation 3 of Guo et al., bin by bin."""
    error = 0.0
    for number in range(bins):
        inside = [
            (row.max(), row.argmax() == label)
            for row, label in zip(probabilities, labels, strict=True)
            if number / bins < row.max() <= (number + 1) / bins
        ]
        if inside:
            confidence, right = (np.mean(column) for column in zip(*inside, strict=True))
            error += len(inside) / len(labels) * abs(right - confidence)
    return error


@given(answered(), st.integers(1, 20))
def test_it_is_the_published_sum_over_bins(case, bins):
    probabilities, labels = case
    # On an edge, the two ways to compute it may round to either side.
    edges = np.abs(probabilities.max(axis=1) * bins - np.round(probabilities.max(axis=1) * bins))
    if (edges > 1e-9).all():
        found = expected_calibration_error(probabilities, labels, bins)
        assert found == pytest.approx(by_definition(probabilities, labels, bins), abs=1e-12)


@given(answered())
def test_it_is_a_share_and_finer_bins_see_at_least_as_much(case):
    one, many = (expected_calibration_error(*case, bins) for bins in (1, BINS))
    assert 0 <= one <= many + 1e-12 <= 1 + 1e-12


@given(answered(), st.randoms())
def test_the_order_of_the_examples_does_not_matter(case, random):
    probabilities, labels = case
    order = list(range(len(labels)))
    random.shuffle(order)
    shuffled = expected_calibration_error(probabilities[order], [labels[i] for i in order])
    assert shuffled == pytest.approx(expected_calibration_error(probabilities, labels), abs=1e-12)


def test_sure_and_right_is_nought_sure_and_wrong_is_one():
    sure = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert expected_calibration_error(sure, [0, 1]) == 0
    assert expected_calibration_error(sure, [1, 0]) == 1


def test_nothing_to_look_at_is_an_error():
    with pytest.raises(ValueError, match="0 rows"):
        expected_calibration_error(np.empty((0, 2)), [])
