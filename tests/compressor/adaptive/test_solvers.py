"""Solvers against independent float64 references: loops, brute force and NumPy's least squares."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import best_on_support, problem, row_losses

from compressor.adaptive import solvers, supports
from compressor.adaptive.solvers import (
    UnsolvableError,
    adapted_weight,
    column_sweep,
    damped,
    exact,
    fast,
    greedy,
    least_squares,
    reconstruction_error,
    solve,
)
from compressor.patterns import NM, Unstructured, pruned_count

SEEDS = st.integers(0, 2**31 - 1)
PATTERNS = [Unstructured(0.5), Unstructured(0.75), Unstructured(0.3), NM(2, 4), NM(1, 4)]


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


# exact ------------------------------------------------------------------------------------------


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


@settings(max_examples=30, deadline=None)
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


@settings(max_examples=25, deadline=None)
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


# greedy -----------------------------------------------------------------------------------------

SWEEP_PATTERNS = [Unstructured(0.3, "row"), Unstructured(0.5, "layer"), Unstructured(0.55), NM(2, 4)]


def plain_sweep(target: np.ndarray, hessian: np.ndarray, pattern, block: int) -> np.ndarray:
    """SparseGPT column by column; the inverse is made anew on the columns that are left in each step."""
    weight, (rows, width) = target.copy(), target.shape
    inverses = [np.linalg.inv(hessian[j:, j:]) for j in range(width)]
    mask = np.ones((rows, width), dtype=bool)
    block = pattern.m if isinstance(pattern, NM) else block
    for j in range(width):
        if j % block == 0:
            stop = min(j + block, width)
            scores = weight[:, j:stop] ** 2 / np.array([inverses[k][0, 0] for k in range(j, stop)])
            if isinstance(pattern, NM):
                groups = [(r, slice(None), pattern.m - pattern.n) for r in range(rows)]
            elif pattern.scope == "row":
                count = pruned_count(stop, pattern.sparsity) - pruned_count(j, pattern.sparsity)
                groups = [(r, slice(None), count) for r in range(rows)]
            else:
                before, now = (pruned_count(rows * k, pattern.sparsity) for k in (j, stop))
                groups = [(slice(None), slice(None), now - before)]
            for where, columns, count in groups:
                limit = np.sort(scores[where, columns], axis=None)[count - 1] if count else -1.0
                mask[:, j:stop][where, columns] = scores[where, columns] > limit
        error = weight[:, j] * ~mask[:, j] / inverses[j][0, 0]
        weight[:, j:] -= error[:, None] * inverses[j][0]
    return weight * mask


@pytest.mark.parametrize("pattern", SWEEP_PATTERNS, ids=lambda p: f"{p}-{getattr(p, 'scope', '')}")
@pytest.mark.parametrize("block", [5, 8, 100])
def test_the_column_sweep_is_the_plain_one(pattern, block, monkeypatch):
    monkeypatch.setattr(solvers, "SWEEP_BLOCK", block)
    for seed in range(3):
        target, hessian = problem(seed, 6, 16)
        weight, mask = column_sweep(target, hessian, pattern)
        expected = plain_sweep(target.numpy(), hessian.numpy(), pattern, block)
        assert mask.numpy().tolist() == (expected != 0).tolist()
        assert weight.numpy() == pytest.approx(expected, rel=1e-7, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(1, 9), st.integers(1, 9), st.floats(0, 0.95), st.integers(1, 40))
def test_greedy_counts_are_exact_whatever_the_block(seed, rows, width, sparsity, block):
    target, hessian = problem(seed, rows, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solvers, "SWEEP_BLOCK", block)
        by_row, by_layer, free = (
            greedy(target, hessian, Unstructured(sparsity, scope))[1] for scope in ("row", "layer", None)
        )
    assert (by_row.logical_not().sum(dim=1) == pruned_count(width, sparsity)).all()
    assert int(by_layer.logical_not().sum()) == pruned_count(rows * width, sparsity)
    assert torch.equal(free, by_layer)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_greedy_is_optimal_on_the_support_of_its_sweep(pattern):
    target, hessian = problem(23, 6, 16)
    weight, mask = greedy(target, hessian, pattern)
    swept, sweep_mask = column_sweep(target, hessian, pattern)
    assert pattern.is_met_by(mask)
    assert torch.equal(mask, sweep_mask)
    gradient = (weight - target) @ hessian
    assert float(gradient[mask].abs().max()) < 1e-9 * float((target @ hessian).abs().max())
    assert (weight[~mask] == 0).all()
    # The sweep itself corrects to the right only.
    error, swept_error = (reconstruction_error(w, target, hessian) for w in (weight, swept))
    assert error < swept_error


# adapted weight ---------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [1e-3, 0.1, 1.0])
def test_adapted_weight_is_the_ridge_regression_on_the_dense_outputs(share):
    generator = np.random.default_rng(0)
    dense = generator.standard_normal((60, 8))
    drifted = dense @ (np.eye(8) + 0.2 * generator.standard_normal((8, 8)))
    weight = generator.standard_normal((5, 8))
    hessian, ridge = damped(torch.from_numpy(drifted.T @ drifted), share)
    found = adapted_weight(torch.from_numpy(weight), hessian, torch.from_numpy(dense.T @ drifted), ridge)
    # One least-squares problem: dense outputs from drifted inputs, and sqrt(ridge) times W itself.
    left = np.vstack([drifted, np.sqrt(ridge) * np.eye(8)])
    right = np.vstack([dense @ weight.T, np.sqrt(ridge) * weight.T])
    expected = np.linalg.lstsq(left, right, rcond=None)[0].T
    assert found.numpy() == pytest.approx(expected, rel=1e-8, abs=1e-10)


def test_adapted_weight_without_drift_is_the_dense_weight():
    weight, hessian = problem(1, 4, 8)
    square = hessian.clone()
    hessian, ridge = damped(square, 0.05)
    torch.testing.assert_close(adapted_weight(weight, hessian, square, ridge), weight, rtol=1e-9, atol=1e-9)


# damping ----------------------------------------------------------------------------------------


def test_damping_adds_its_share_of_the_mean_diagonal():
    _, hessian = problem(0, 1, 6)
    found, ridge = damped(hessian, 0.02)
    assert ridge == pytest.approx(0.02 * float(np.mean(np.diag(hessian.numpy()))))
    assert found.numpy() == pytest.approx(hessian.numpy() + ridge * np.eye(6))


def test_damping_rises_tenfold_until_it_suffices():
    # The smallest eigenvalue is -0.05 of the mean diagonal, 1: a share of 0.01 is too little, 0.1 enough.
    generator = np.random.default_rng(0)
    basis, _ = np.linalg.qr(generator.standard_normal((4, 4)))
    hessian = basis @ np.diag([-0.05, 0.5, 1.5, 2.05]) @ basis.T
    found, ridge = damped(torch.from_numpy((hessian + hessian.T) / 2), 0.01)
    assert ridge == pytest.approx(0.1)
    assert np.linalg.eigvalsh(found.numpy()).min() == pytest.approx(0.05)


@pytest.mark.parametrize(
    "hessian",
    [
        torch.zeros(3, 3, dtype=torch.float64),
        torch.full((3, 3), torch.nan, dtype=torch.float64),
        torch.full((3, 3), torch.inf, dtype=torch.float64),
        -torch.eye(3, dtype=torch.float64),
        torch.diag(torch.tensor([100.0, -99.0, 1.0], dtype=torch.float64)),
    ],
    ids=["zero", "nan", "infinite", "negative", "indefinite"],
)
def test_a_hessian_that_no_damping_mends_is_an_error(hessian):
    with pytest.raises(UnsolvableError, match="not positive definite"):
        damped(hessian, 0.01)


# fast -------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(1, 12), st.integers(1, 8), st.sampled_from(PATTERNS))
def test_fast_meets_its_pattern_exactly(seed, rows, groups, pattern):
    target, hessian = problem(seed, rows, 4 * groups)
    weight, mask = fast(target, hessian, pattern)
    assert pattern.is_met_by(mask)
    assert (weight[~mask] == 0).all()
    assert weight.dtype == target.dtype
    assert torch.isfinite(weight).all()


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_fast_is_optimal_on_its_support(pattern):
    target, hessian = problem(11, 6, 16)
    weight, mask = fast(target, hessian, pattern)
    gradient = (weight - target) @ hessian
    assert float(gradient[mask].abs().max()) < 1e-9 * float((target @ hessian).abs().max())


def neighbours_problem(seed: int, rows: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs whose correlation falls by a tenth with each column between them."""
    generator = np.random.default_rng(seed)
    apart = np.abs(np.subtract.outer(np.arange(width), np.arange(width)))
    inputs = generator.standard_normal((4 * width, width)) @ np.linalg.cholesky(0.9**apart).T
    hessian = inputs.T @ inputs
    hessian += 0.01 * np.diag(hessian).mean() * np.eye(width)
    return torch.from_numpy(generator.standard_normal((rows, width))), torch.from_numpy(hessian)


def mean_ratio_of_errors(problems, pattern) -> float:
    """The fast solver's error relative to the exact one's, mean over problems."""
    ratios = []
    for target, hessian in problems:
        found, _ = fast(target, hessian, pattern)
        reference, _ = exact(target, hessian, pattern)
        ratios.append(
            reconstruction_error(found, target, hessian) / reconstruction_error(reference, target, hessian)
        )
    return float(np.mean(ratios))


@pytest.mark.parametrize("pattern", [Unstructured(0.5), Unstructured(0.75), NM(2, 4)], ids=str)
def test_fast_is_on_average_no_worse_than_exact_by_a_twentieth(pattern):
    assert mean_ratio_of_errors([neighbours_problem(seed, 24, 48) for seed in range(4)], pattern) <= 1.05
    assert mean_ratio_of_errors([problem(seed, 24, 48, 0.5) for seed in range(4)], pattern) <= 1.05


@pytest.mark.parametrize("pattern", [Unstructured(0.5), Unstructured(0.75), NM(2, 4)], ids=str)
def test_fast_stays_near_exact_where_few_directions_hold_nearly_all_energy(pattern):
    # The hardest case that is known for it: it is worse than the elimination by about a tenth here.
    assert mean_ratio_of_errors([problem(seed, 24, 48, 0.9) for seed in range(4)], pattern) <= 1.2


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_fast_beats_zeroing_by_magnitude(pattern):
    for seed in range(4):
        target, hessian = problem(seed, 24, 48)
        found, _ = fast(target, hessian, pattern)
        zeroed = target * pattern.mask(target.abs())
        error = reconstruction_error(found, target, hessian)
        assert error < 0.8 * reconstruction_error(zeroed, target, hessian)


def test_fast_comes_near_the_best_of_all_supports():
    losses, best_losses = [], []
    for seed in range(10):
        target, hessian = problem(seed, 1, 8)
        weight, _ = fast(target, hessian, Unstructured(0.5))
        row, matrix = target[0].numpy(), hessian.numpy()
        candidates = np.array(
            [best_on_support(row, matrix, list(kept)) for kept in itertools.combinations(range(8), 4)]
        )
        best = row_losses(candidates, np.repeat(target.numpy(), len(candidates), axis=0), matrix).min()
        losses.append(row_losses(weight.numpy(), target.numpy(), matrix)[0])
        assert losses[-1] >= best * (1 - 1e-9)
        best_losses.append(best)
    assert sum(losses) <= 1.5 * sum(best_losses)


@pytest.mark.parametrize(
    "pattern", [*PATTERNS, Unstructured(0.5, "layer"), Unstructured(0.8, "layer"), Unstructured(0.5, "row")],
    ids=lambda p: f"{p}-{p.sparsity}-{getattr(p, 'scope', '')}",
)  # fmt: skip
@pytest.mark.parametrize("correlation", [0.2, 0.5, 0.8])
def test_fast_is_in_sum_better_than_least_squares_on_the_largest_weights(pattern, correlation):
    error = simple = 0.0
    for seed in range(6):
        target, hessian = problem(seed, 12, 32, correlation)
        error += reconstruction_error(fast(target, hessian, pattern)[0], target, hessian)
        weight = least_squares(target, hessian, pattern.mask(target.abs()))
        simple += reconstruction_error(weight, target, hessian)
    assert error <= simple


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(1, 9), st.integers(1, 24), st.floats(0, 0.97))
def test_fast_counts_in_each_row_or_in_the_layer(seed, rows, width, sparsity):
    target, hessian = problem(seed, rows, width)
    target *= torch.arange(1, rows + 1)[:, None]
    _, by_row = fast(target, hessian, Unstructured(sparsity, "row"), iterations=10)
    _, by_layer = fast(target, hessian, Unstructured(sparsity, "layer"), iterations=10)
    assert (by_row.logical_not().sum(dim=1) == pruned_count(width, sparsity)).all()
    assert int(by_layer.logical_not().sum()) == pruned_count(rows * width, sparsity)


def test_ranking_the_layer_spends_its_weights_on_the_large_rows():
    target, hessian = problem(24, 8, 32)
    target *= torch.arange(1, 9)[:, None]
    by_row, _ = fast(target, hessian, Unstructured(0.6, "row"))
    by_layer, mask = fast(target, hessian, Unstructured(0.6, "layer"))
    assert int(mask[-1].sum()) > int(mask[0].sum())
    error, row_error = (reconstruction_error(w, target, hessian) for w in (by_layer, by_row))
    assert error < 0.9 * row_error


def test_fast_in_batches_of_rows_is_the_same(monkeypatch):
    target, hessian = problem(12, 9, 16)
    whole, whole_mask = fast(target, hessian, Unstructured(0.5))
    monkeypatch.setattr(supports, "ROW_BATCH_BYTES", 2 * 8 * 8 * 8)
    parts, parts_mask = fast(target, hessian, Unstructured(0.5))
    assert torch.equal(whole_mask, parts_mask)
    torch.testing.assert_close(whole, parts, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_exact_of_stacked_rows_is_that_of_each(pattern):
    target, hessian = problem(13, 6, 16)
    stacked, _ = exact(target, hessian, pattern)
    apart = [exact(part, hessian, pattern)[0] for part in target.split(2)]
    torch.testing.assert_close(stacked, torch.cat(apart), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("solver", [exact, fast], ids=["exact", "fast"])
def test_the_scale_of_the_inputs_does_not_matter(solver):
    target, hessian = problem(14, 6, 16)
    weight, mask = solver(target, hessian, Unstructured(0.5))
    scaled, scaled_mask = solver(target, 1024.0 * hessian, Unstructured(0.5))
    assert torch.equal(mask, scaled_mask)
    torch.testing.assert_close(weight, scaled, rtol=1e-8, atol=1e-8)


# dispatch and error -----------------------------------------------------------------------------


def test_solve_runs_the_solver_of_that_name():
    target, hessian = problem(15, 6, 16)
    pattern = Unstructured(0.75)
    exact_weight, exact_mask = exact(target, hessian, pattern)
    fast_weight, fast_mask = fast(target, hessian, pattern, iterations=2)
    greedy_weight, greedy_mask = greedy(target, hessian, pattern)
    assert not torch.equal(exact_weight, fast_weight)
    assert not torch.equal(greedy_weight, fast_weight)
    for name, weight, mask in (
        ("exact", exact_weight, exact_mask),
        ("fast", fast_weight, fast_mask),
        ("greedy", greedy_weight, greedy_mask),
    ):
        found, found_mask = solve(target, hessian, pattern, name, iterations=2)
        assert torch.equal(found, weight)
        assert torch.equal(found_mask, mask)


@pytest.mark.parametrize("solver", ["exact", "fast", "greedy"])
def test_solve_without_zeros_returns_the_target(solver):
    target, hessian = problem(16, 3, 6)
    for sparsity in (0.0, 0.1):
        weight, mask = solve(target, hessian, Unstructured(sparsity), solver, iterations=5)
        assert torch.equal(weight, target)
        assert mask.all()


def test_reconstruction_error_is_the_share_of_the_outputs_energy():
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((50, 6))
    target, weight = generator.standard_normal((2, 3, 6))
    expected = np.sum((inputs @ (weight - target).T) ** 2) / np.sum((inputs @ target.T) ** 2)
    found = reconstruction_error(*map(torch.from_numpy, (weight, target, inputs.T @ inputs)))
    assert found == pytest.approx(expected, rel=1e-10)


def test_reconstruction_error_of_a_zero_target_is_zero():
    zeros = torch.zeros(2, 3, dtype=torch.float64)
    assert reconstruction_error(zeros, zeros, torch.eye(3, dtype=torch.float64)) == 0.0
