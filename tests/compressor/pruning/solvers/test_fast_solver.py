"""The fast solver: exact counts, and errors beside the exact solver's and the best of all supports'."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import PATTERNS, SEEDS, best_on_support, problem, row_losses

from compressor.pruning.patterns import NM, Unstructured, pruned_count
from compressor.pruning.solvers import supports
from compressor.pruning.solvers.solvers import exact, fast, least_squares, reconstruction_error


@settings(max_examples=25)
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


@settings(max_examples=25)
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
