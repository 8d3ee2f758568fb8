"""Patterns: exact counts for any size and sparsity, and the highest scores stay."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressor.errors import UserError
from compressor.pruning.patterns import NM, Unstructured, parse_pattern, pruned_count

HUNDREDTHS = st.integers(0, 99)
SIDES = st.integers(1, 40)
SEEDS = st.integers(0, 2**31 - 1)
N_OF_M = st.integers(2, 8).flatmap(lambda m: st.tuples(st.integers(1, m - 1), st.just(m)))


def scores_of(seed: int, rows: int, columns: int, levels: int = 0) -> torch.Tensor:
    """Random scores; with `levels`, only so many different values, hence many ties."""
    generator = np.random.default_rng(seed)
    if levels:
        return torch.from_numpy(generator.integers(0, levels, (rows, columns)).astype(np.float32))
    return torch.from_numpy(generator.standard_normal((rows, columns)).astype(np.float32))


def kept_are_highest(scores: torch.Tensor, mask: torch.Tensor) -> bool:
    """Whether no dropped score of a row of `scores` is above a kept one of that row."""
    dropped = scores.masked_fill(mask, -torch.inf).max(dim=1).values
    kept = scores.masked_fill(~mask, torch.inf).min(dim=1).values
    return bool((dropped <= kept).all())


@given(st.integers(0, 10**7), HUNDREDTHS)
def test_count_is_the_floor_of_the_decimal_product(size, hundredths):
    assert pruned_count(size, hundredths / 100) == math.floor(Fraction(hundredths, 100) * size)


@given(st.integers(1, 10**6), st.data())
def test_count_is_the_numerator_of_a_share_of_the_weights(size, data):
    count = data.draw(st.integers(0, size - 1))
    assert pruned_count(size, count / size) == count


@given(st.integers(0, 10**6), st.integers(0, 9999))
def test_count_is_exact_at_four_decimals(size, tenthousandths):
    assert pruned_count(size, tenthousandths / 10_000) == size * tenthousandths // 10_000


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
def test_count_is_never_one_too_many_for_any_float(size, sparsity):
    count = pruned_count(size, sparsity)
    assert 0 <= count <= Fraction(sparsity) * size + Fraction(1, 10**8)
    assert count > Fraction(sparsity) * size - 1 - Fraction(1, 10**8)


@pytest.mark.parametrize(
    ("size", "sparsity", "count"),
    [
        (100, 0.29, 29),
        (10, 0.7, 7),
        (1000, 0.057, 57),
        (3, 0.5, 1),
        (7, 0.0, 0),
        (10**7, 0.82, 8_200_000),
        (10, 1 - 0.8, 2),
        (3, 1 / 3, 1),
    ],
)
def test_count_at_decimals_that_binary_cannot_hold(size, sparsity, count):
    assert pruned_count(size, sparsity) == count


@given(SEEDS, SIDES, SIDES, HUNDREDTHS, st.sampled_from([0, 1, 3]))
def test_each_row_has_exactly_its_zeros_and_keeps_its_highest(seed, rows, columns, hundredths, levels):
    scores = scores_of(seed, rows, columns, levels)
    mask = Unstructured(hundredths / 100).mask(scores)
    assert mask.shape == scores.shape
    assert mask.dtype == torch.bool
    assert ((~mask).sum(dim=1) == columns * hundredths // 100).all()
    assert kept_are_highest(scores, mask)


@given(SEEDS, SIDES, SIDES, HUNDREDTHS, st.sampled_from([0, 1, 3]))
def test_a_layer_has_exactly_its_zeros_and_keeps_its_highest(seed, rows, columns, hundredths, levels):
    scores = scores_of(seed, rows, columns, levels)
    mask = Unstructured(hundredths / 100).mask(scores, scope="layer")
    assert mask.shape == scores.shape
    assert int((~mask).sum()) == rows * columns * hundredths // 100
    assert kept_are_highest(scores.reshape(1, -1), mask.reshape(1, -1))


@given(SEEDS, SIDES, st.integers(1, 6), N_OF_M, st.sampled_from([0, 1, 3]))
def test_each_group_keeps_exactly_n_of_m_and_its_highest(seed, rows, groups, n_of_m, levels):
    n, m = n_of_m
    scores = scores_of(seed, rows, groups * m, levels)
    mask = NM(n, m).mask(scores)
    assert mask.shape == scores.shape
    grouped = mask.reshape(-1, m)
    assert (grouped.sum(dim=1) == n).all()
    assert kept_are_highest(scores.reshape(-1, m), grouped)


def test_groups_run_along_the_inputs():
    mask = NM(2, 4).mask(torch.tensor([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]]))
    assert mask.tolist() == [[False, False, True, True], [True, True, False, False]]


def test_equal_scores_give_the_same_mask_each_time():
    ones = torch.ones(20, 40)
    for pattern, scope in ((Unstructured(0.5), "row"), (Unstructured(0.3), "layer"), (NM(1, 2), "row")):
        mask = pattern.mask(ones, scope)
        assert pattern.is_met_by(mask)
        assert all(torch.equal(mask, pattern.mask(ones.clone(), scope)) for _ in range(5))


@pytest.mark.parametrize("scope", ["row", "layer"])
@given(SEEDS, SIDES, SIDES, HUNDREDTHS)
def test_a_mask_meets_its_own_pattern(scope, seed, rows, columns, hundredths):
    pattern = Unstructured(hundredths / 100)
    assert pattern.is_met_by(pattern.mask(scores_of(seed, rows, columns), scope))


@pytest.mark.parametrize("scope", ["row", "layer"])
@pytest.mark.parametrize("change", ["one zero more", "one zero less"])
@given(SEEDS, SIDES, SIDES, HUNDREDTHS)
def test_a_mask_that_is_off_by_one_zero_is_refused(scope, change, seed, rows, columns, hundredths):
    pattern = Unstructured(hundredths / 100)
    mask = pattern.mask(scores_of(seed, rows, columns), scope)
    from_value = change == "one zero more"
    places = (mask == from_value).nonzero()
    if len(places):
        row, column = places[seed % len(places)]
        mask[row, column] = not from_value
        # Rows that are each rounded down may come to one zero less than the layer's own count.
        counts = {
            rows * pruned_count(columns, pattern.sparsity),
            pruned_count(mask.numel(), pattern.sparsity),
        }
        if int((~mask).sum()) not in counts:
            assert not pattern.is_met_by(mask)


def test_off_by_one_is_refused_where_rows_divide_evenly():
    pattern = Unstructured(0.5)
    mask = pattern.mask(scores_of(0, 8, 8))
    mask[0, int(mask[0].nonzero()[0])] = False
    assert not pattern.is_met_by(mask)


@given(SEEDS, SIDES, st.integers(1, 6), N_OF_M)
def test_n_of_m_refuses_a_group_with_one_more_or_less(seed, rows, groups, n_of_m):
    n, m = n_of_m
    pattern = NM(n, m)
    mask = pattern.mask(scores_of(seed, rows, groups * m))
    assert pattern.is_met_by(mask)
    flat = mask.reshape(-1)
    flat[seed % flat.numel()] ^= True
    assert not pattern.is_met_by(flat.reshape(mask.shape))


def test_n_of_m_refuses_the_right_total_in_the_wrong_groups():
    mask = torch.tensor([[True, True, True, False, True, False, False, False]])
    assert not NM(2, 4).is_met_by(mask)


def test_n_of_m_refuses_columns_that_m_does_not_divide():
    assert not NM(2, 4).is_met_by(torch.tensor([[True, True, False, False, True, True]]))


def test_shape_that_m_does_not_divide_names_layer_and_sizes():
    with pytest.raises(UserError, match=r"2:4: output\.dense has 10 input features, which 4 does not divide"):
        NM(2, 4).check_shape("output.dense", torch.zeros(3, 10))
    NM(2, 4).check_shape("output.dense", torch.zeros(3, 12))


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, math.nan, math.inf])
def test_sparsity_out_of_bounds_is_an_error_that_names_it(sparsity):
    with pytest.raises(UserError, match=rf"sparsity {sparsity}: must be at least 0 and less than 1"):
        parse_pattern("unstructured", sparsity)


@pytest.mark.parametrize("text", ["4:4", "5:4", "0:4", "0:0", "1:0"])
def test_n_of_m_that_keeps_all_or_nothing_is_an_error(text):
    with pytest.raises(UserError, match=rf"pattern {text}: N:M keeps N of M weights, so 0 < N < M"):
        parse_pattern(text, None)


@pytest.mark.parametrize(
    "text", ["", "2", "2:", ":4", "2:4:8", "-2:4", "2.0:4", "2 : 4", "Unstructured", "2:4\n", "12345:99999"]
)
def test_unknown_pattern_is_an_error_that_quotes_it(text):
    with pytest.raises(UserError) as caught:
        parse_pattern(text, None)
    assert repr(text) in str(caught.value)
    assert "2:4" in str(caught.value)


@given(st.text(max_size=20))
def test_any_text_is_a_pattern_or_a_user_error(text):
    try:
        parse_pattern(text, None)
    except UserError:
        return
    assert text == "unstructured" or ":" in text


def test_sparsity_at_odds_with_n_of_m_is_an_error():
    with pytest.raises(UserError, match=r"sparsity 0\.6: pattern 2:4 always has 0\.5"):
        parse_pattern("2:4", 0.6)


@pytest.mark.parametrize("text", ["2:4", "1:4", "1:3", "32:64"])
def test_sparsity_that_n_of_m_implies_may_be_said(text):
    n, m = map(int, text.split(":"))
    assert parse_pattern(text, 1 - n / m) == NM(n, m)
    assert str(parse_pattern(text, None)) == text


def test_unstructured_is_half_unless_said():
    assert parse_pattern("unstructured", None) == Unstructured(0.5)
    assert parse_pattern("unstructured", 0.0) == Unstructured(0.0)
