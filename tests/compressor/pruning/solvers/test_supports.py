"""Least squares of rows with supports of their own, and the batches in which they are solved."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import SEEDS, best_on_support, problem, random_mask, row_losses

from compressor.pruning.solvers import supports
from compressor.pruning.solvers.supports import Places, blocks_of, for_each_batch, least_squares, row_batches


@settings(max_examples=40)
@given(SEEDS, st.integers(2, 6), st.integers(1, 12))
def test_least_squares_is_numpys_on_any_support(seed, rows, width):
    target, hessian = problem(seed, rows, width)
    mask = random_mask(seed, rows, width)
    weight = least_squares(target, hessian, mask)
    for row in range(rows):
        support = np.flatnonzero(mask[row].numpy()).tolist()
        expected = best_on_support(target[row].numpy(), hessian.numpy(), support)
        assert weight[row].numpy() == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_least_squares_meets_the_normal_equations():
    target, hessian = problem(1, 9, 20)
    mask = random_mask(1, 9, 20)
    weight = least_squares(target, hessian, mask)
    for row in range(1, 9):
        kept = mask[row].numpy()
        block = hessian.numpy()[np.ix_(kept, kept)]
        right = (hessian.numpy() @ target[row].numpy())[kept]
        assert weight[row].numpy()[kept] == pytest.approx(np.linalg.solve(block, right), rel=1e-8)


def test_least_squares_has_no_gradient_on_the_support_and_is_zero_off_it():
    target, hessian = problem(2, 9, 20)
    mask = random_mask(2, 9, 20)
    weight = least_squares(target, hessian, mask)
    gradient = (weight - target) @ hessian
    assert float(gradient[mask].abs().max()) < 1e-9 * float((target @ hessian).abs().max())
    assert (weight[~mask] == 0).all()


def test_least_squares_cannot_be_bettered_by_a_nudge():
    target, hessian = problem(3, 4, 10)
    mask = random_mask(3, 4, 10)
    weight = least_squares(target, hessian, mask)
    best = row_losses(weight.numpy(), target.numpy(), hessian.numpy())
    generator = np.random.default_rng(0)
    for _ in range(50):
        nudge = 1e-3 * generator.standard_normal((4, 10)) * mask.numpy()
        nudged = row_losses(weight.numpy() + nudge, target.numpy(), hessian.numpy())
        assert (nudged >= best).all()


def test_least_squares_on_an_empty_support_is_zero():
    target, hessian = problem(4, 3, 6)
    assert not least_squares(target, hessian, torch.zeros(3, 6, dtype=torch.bool)).any()


def test_least_squares_on_the_full_support_is_the_target():
    target, hessian = problem(5, 3, 6)
    weight = least_squares(target, hessian, torch.ones(3, 6, dtype=torch.bool))
    torch.testing.assert_close(weight, target, rtol=1e-9, atol=1e-9)


def test_least_squares_in_batches_of_rows_is_the_same(monkeypatch):
    target, hessian = problem(6, 11, 12)
    mask = random_mask(6, 11, 12)
    whole = least_squares(target, hessian, mask)
    monkeypatch.setattr(supports, "ROW_BATCH_BYTES", 3 * 12 * 12 * 8)
    torch.testing.assert_close(least_squares(target, hessian, mask), whole, rtol=1e-12, atol=1e-12)


def test_least_squares_of_stacked_rows_is_that_of_each():
    target, hessian = problem(7, 10, 12)
    mask = random_mask(7, 10, 12)
    stacked = least_squares(target, hessian, mask)
    apart = [least_squares(target[r : r + 1], hessian, mask[r : r + 1]) for r in range(10)]
    torch.testing.assert_close(stacked, torch.cat(apart), rtol=1e-10, atol=1e-10)


# batches ----------------------------------------------------------------------------------------


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_batches_side_by_side_give_the_bits_of_one_after_the_other(monkeypatch):
    target, hessian = problem(8, 40, 16)
    mask = random_mask(8, 40, 16)
    monkeypatch.setattr(supports, "ROW_BATCH_BYTES", 3 * 16 * 16 * 8)
    side_by_side = least_squares(target, hessian, mask)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert torch.equal(least_squares(target, hessian, mask), side_by_side)


@pytest.mark.usefixtures("two_threads")
def test_each_batch_is_solved_once_by_threads_of_their_own():
    batches, seen = list(torch.arange(12).split(3)), []

    def solve(rows):
        seen.append((rows.tolist(), threading.get_ident(), torch.get_num_threads()))

    for_each_batch(solve, batches)
    assert sorted(rows for rows, _, _ in seen) == [rows.tolist() for rows in batches]
    assert all(thread != threading.get_ident() and count == 1 for _, thread, count in seen)
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_an_error_in_a_batch_is_raised_and_the_threads_are_as_before():
    def solve(rows):
        if 4 in rows:
            raise ValueError("cannot solve 4")

    with pytest.raises(ValueError, match="cannot solve 4"):
        for_each_batch(solve, list(torch.arange(9).split(3)))
    assert torch.get_num_threads() == 2


@settings(max_examples=50)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.integers(1, 4000))
def test_batches_hold_each_row_once_widest_first_within_the_bytes(counts, limit):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supports, "ROW_BATCH_BYTES", limit)
        batches = row_batches(torch.tensor(counts), 8)
    rows = [row for batch in batches for row in batch.tolist()]
    assert sorted(rows) == list(range(len(counts)))
    widths = [counts[row] for row in rows]
    assert widths == sorted(widths, reverse=True)
    assert all(len(batch) == 1 or 8 * len(batch) * counts[batch[0]] ** 2 <= limit for batch in batches)


def test_blocks_are_the_hessian_between_places_and_one_where_a_filler_stands():
    _, hessian = problem(9, 1, 5)
    places = Places(torch.tensor([[0, 3], [1, 4]]), torch.tensor([[True, True], [True, False]]))
    blocks = blocks_of(hessian, places, places)
    assert torch.equal(blocks[0], hessian[[0, 3]][:, [0, 3]])
    assert blocks[1].tolist() == [[float(hessian[1, 1]), 0.0], [0.0, 1.0]]
    others = Places(torch.tensor([[2], [0]]), torch.tensor([[True], [True]]))
    between = blocks_of(hessian, places, others)
    assert between[0, :, 0].tolist() == hessian[[0, 3], 2].tolist()
    assert between[1, :, 0].tolist() == [float(hessian[1, 0]), 0.0]
