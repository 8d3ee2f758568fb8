"""The greedy solver against a plain sweep in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import PATTERNS, SEEDS, problem

from compressor.pruning.patterns import NM, Unstructured, pruned_count
from compressor.pruning.solvers import solvers
from compressor.pruning.solvers.solvers import column_sweep, greedy, reconstruction_error

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


@settings(max_examples=25)
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
