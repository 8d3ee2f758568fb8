"""What all solvers share: targets, damping, dispatch and the error that is reported."""

import numpy as np
import pytest
import torch
from problems import problem

from compressor.pruning.patterns import NM, Unstructured
from compressor.pruning.solvers.solvers import (
    UnsolvableError,
    adapted_weight,
    damped,
    exact,
    fast,
    greedy,
    reconstruction_error,
    solve,
)
from compressor.pruning.walk import Moments


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


@pytest.mark.parametrize("width", [4, 384])
@pytest.mark.parametrize("level", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("share", [1e-3, 0.01, 1.0])
def test_constant_inputs_keep_the_dense_weight(width, level, share):
    generator = torch.Generator().manual_seed(width)
    moments = Moments.zeros(width, torch.device("cpu"))
    row = level * torch.randn(width, generator=generator)
    for _ in range(5):
        moments.add(level * torch.randn(300, width, generator=generator), row.expand(300, width))
    hessian, ridge = damped(moments.hessian, share, moments.mean_square)
    assert ridge == pytest.approx(1500 * float(row.double().square().mean()), rel=1e-5)
    weight = torch.randn(3, width, generator=generator, dtype=torch.float64)
    found = adapted_weight(weight, hessian, moments.centred_cross, ridge)
    torch.testing.assert_close(found, weight, rtol=0, atol=1e-3)


def test_inputs_that_vary_little_are_damped_by_their_variance():
    hessian = 1e-3 * torch.eye(4, dtype=torch.float64)
    assert damped(hessian, 0.01, 1.0)[1] == pytest.approx(1e-5)


@pytest.mark.parametrize("solver", [exact, fast], ids=["exact", "fast"])
def test_the_scale_of_the_inputs_does_not_matter(solver):
    target, hessian = problem(14, 6, 16)
    weight, mask = solver(target, hessian, Unstructured(0.5))
    scaled, scaled_mask = solver(target, 1024.0 * hessian, Unstructured(0.5))
    assert torch.equal(mask, scaled_mask)
    torch.testing.assert_close(weight, scaled, rtol=1e-8, atol=1e-8)


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


@pytest.mark.cuda
@pytest.mark.parametrize("pattern", [Unstructured(0.5), Unstructured(0.875), NM(2, 4)], ids=str)
@pytest.mark.parametrize("solver", ["exact", "greedy", "fast"])
def test_solvers_do_as_well_on_a_gpu(solver, pattern):
    target, hessian = problem(3, 24, 64)
    here, _ = solve(target, hessian, pattern, solver, iterations=20)
    there, mask = solve(target.cuda(), hessian.cuda(), pattern, solver, iterations=20)
    assert pattern.is_met_by(mask.cpu())
    errors = [reconstruction_error(weight.cpu(), target, hessian) for weight in (here, there)]
    assert errors[1] == pytest.approx(errors[0], rel=1e-3)
