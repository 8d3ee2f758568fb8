"""The exact solver against independent float64 references: loops, brute force, NumPy's least squares."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import PATTERNS, SEEDS, best_on_support, problem, row_losses

from compressor.pruning.patterns import NM, Unstructured, pruned_count
from compressor.pruning.solvers import solvers
from compressor.pruning.solvers.solvers import exact, reconstruction_error


def obs_row(target: np.ndarray, hessian: np.ndarray, count: int, n: int = 0, m: int = 0) -> np.ndarray:
    """Optimal brain surgeon on one row; the inverse is made anew on the live weights in each step."""
    width = len(target)
    alive = list(range(width))
    weight = target.copy()
    for _ in range(count):
        inverse = np.linalg.inv(hessian[np.ix_(alive, alive)])
        best, best_loss = -1, np.inf
        for place, p in enumerate(alive):
            if m and sum(q // m == p // m for q in alive) <= n:
                continue
            loss = weight[p] ** 2 / inverse[place, place]
            if loss < best_loss:
                best, best_loss = place, loss
        column = inverse[:, best]
        step = weight[alive[best]] / column[best]
        for place, q in enumerate(alive):
            weight[q] -= step * column[place]
        weight[alive[best]] = 0.0
        del alive[best]
    return weight


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.75])
def test_exact_is_obs_of_each_row(seed, sparsity):
    target, hessian = problem(seed, 5, 12)
    weight, mask = exact(target, hessian, Unstructured(sparsity))
    for row in range(5):
        expected = obs_row(target[row].numpy(), hessian.numpy(), int(12 * sparsity))
        assert weight[row].numpy() == pytest.approx(expected, rel=1e-7, abs=1e-9)
        assert mask[row].tolist() == (expected != 0).tolist()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (1, 2), (3, 4)])
def test_exact_with_n_of_m_is_obs_that_closes_full_groups(seed, n, m):
    target, hessian = problem(seed, 4, 12)
    weight, mask = exact(target, hessian, NM(n, m))
    for row in range(4):
        expected = obs_row(target[row].numpy(), hessian.numpy(), 12 * (m - n) // m, n, m)
        assert weight[row].numpy() == pytest.approx(expected, rel=1e-7, abs=1e-9)
    assert NM(n, m).is_met_by(mask)


@settings(max_examples=30)
@given(SEEDS, st.integers(2, 7))
def test_exact_drops_first_the_one_weight_that_brute_force_would(seed, width):
    target, hessian = problem(seed, 1, width, correlation=0.5)
    weight, mask = exact(target, hessian, Unstructured(1 / width))
    row, matrix = target[0].numpy(), hessian.numpy()
    candidates = [best_on_support(row, matrix, [q for q in range(width) if q != p]) for p in range(width)]
    losses = row_losses(np.array(candidates), np.repeat(target.numpy(), width, axis=0), matrix)
    best = int(losses.argmin())
    assert int((~mask).sum()) == 1
    assert weight[0].numpy() == pytest.approx(candidates[best], rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_exact_is_optimal_on_its_support(pattern):
    target, hessian = problem(7, 6, 16)
    weight, mask = exact(target, hessian, pattern)
    gradient = (weight - target) @ hessian
    assert float(gradient[mask].abs().max()) < 1e-8 * float((target @ hessian).abs().max())
    assert (weight[~mask] == 0).all()


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_exact_in_batches_of_rows_is_the_same(pattern, monkeypatch):
    target, hessian = problem(8, 7, 8)
    whole, whole_mask = exact(target, hessian, pattern)
    monkeypatch.setattr(solvers, "ELIMINATION_BYTES", 2 * 8 * 8 * 8)
    parts, parts_mask = exact(target, hessian, pattern)
    assert torch.equal(whole_mask, parts_mask)
    torch.testing.assert_close(whole, parts, rtol=1e-12, atol=1e-12)


def test_exact_leaves_its_inputs_alone():
    target, hessian = problem(9, 3, 8)
    before = target.clone(), hessian.clone()
    exact(target, hessian, Unstructured(0.5))
    assert torch.equal(target, before[0])
    assert torch.equal(hessian, before[1])


def test_exact_with_a_diagonal_hessian_drops_the_smallest_and_changes_nothing_else():
    target = torch.tensor([[3.0, -1.0, 2.0, 0.5]], dtype=torch.float64)
    hessian = torch.diag(torch.tensor([1.0, 1.0, 0.01, 100.0], dtype=torch.float64))
    weight, _ = exact(target, hessian, Unstructured(0.5))
    # Losses w^2 h are 9, 1, 0.04 and 25.
    assert weight.tolist() == [[3.0, 0.0, 0.0, 0.5]]


# exact, with the layer as a whole ranked -----------------------------------------------------------


def obs_steps(target: np.ndarray, hessian: np.ndarray) -> tuple[list[int], list[float]]:
    """Optimal brain surgeon on one row to its end: the places in their order, and what each step cost."""
    order: list[int] = []
    costs, before = [], 0.0
    while len(order) < len(target):
        alive = [place for place in range(len(target)) if place not in order]
        rest = [best_on_support(target, hessian, [q for q in alive if q != p]) for p in alive]
        after = row_losses(np.array(rest), np.repeat(target[None], len(rest), axis=0), hessian)
        order.append(alive[int(after.argmin())])
        costs.append(after.min() - before)
        before = after.min()
    return order, costs


@settings(max_examples=25)
@given(SEEDS, st.integers(1, 4), st.integers(2, 6), st.floats(0.2, 0.9))
def test_exact_of_a_layer_takes_the_cheapest_steps_of_all_rows(seed, rows, width, sparsity):
    target, hessian = problem(seed, rows, width, correlation=0.5)
    pattern = Unstructured(sparsity, "layer")
    weight, mask = exact(target, hessian, pattern)
    matrix = hessian.numpy()
    steps = [obs_steps(row, matrix) for row in target.numpy()]
    # A row's next step costs at least what the steps before it did.
    queue = sorted(
        (max(costs[: place + 1]), row, place)
        for row, (_, costs) in enumerate(steps)
        for place in range(width)
    )
    expected = np.ones((rows, width), dtype=bool)
    for _, row, place in queue[: pruned_count(rows * width, sparsity)]:
        expected[row, steps[row][0][place]] = False
    assert mask.numpy().tolist() == expected.tolist()
    for row in range(rows):
        best = best_on_support(target[row].numpy(), matrix, np.flatnonzero(expected[row]).tolist())
        assert weight[row].numpy() == pytest.approx(best, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("sparsity", [0.29, 0.5, 0.9])
def test_exact_of_a_layer_has_the_layers_count_and_less_error_than_of_rows(sparsity):
    target, hessian = problem(21, 10, 16)
    target *= torch.arange(1, 11)[:, None]
    weight, mask = exact(target, hessian, Unstructured(sparsity, "layer"))
    assert int((~mask).sum()) == int(160 * sparsity + 1e-9)
    assert len(set(mask.sum(dim=1).tolist())) > 1
    by_row, _ = exact(target, hessian, Unstructured(sparsity, "row"))
    error, row_error = (reconstruction_error(w, target, hessian) for w in (weight, by_row))
    assert error < 0.9 * row_error


def test_exact_of_a_layer_in_batches_of_rows_is_the_same(monkeypatch):
    target, hessian = problem(22, 7, 8)
    pattern = Unstructured(0.6, "layer")
    whole, whole_mask = exact(target, hessian, pattern)
    monkeypatch.setattr(solvers, "ELIMINATION_BYTES", 2 * 8 * 8 * 8)
    parts, parts_mask = exact(target, hessian, pattern)
    assert torch.equal(whole_mask, parts_mask)
    torch.testing.assert_close(whole, parts, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_exact_of_stacked_rows_is_that_of_each(pattern):
    target, hessian = problem(13, 6, 16)
    stacked, _ = exact(target, hessian, pattern)
    apart = [exact(part, hessian, pattern)[0] for part in target.split(2)]
    torch.testing.assert_close(stacked, torch.cat(apart), rtol=1e-10, atol=1e-10)
