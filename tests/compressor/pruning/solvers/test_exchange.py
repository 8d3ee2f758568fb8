"""Swaps on a support against float64 least squares, brute force and dense algebra."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.pruning.patterns import NM, Unstructured
from compressor.pruning.solvers import exchange as module
from compressor.pruning.solvers import supports
from compressor.pruning.solvers.exchange import _Tableau, exchange, spd_inverse
from compressor.pruning.solvers.solvers import damped, fast, reconstruction_error
from compressor.pruning.solvers.supports import least_squares

SEEDS = st.integers(0, 2**31 - 1)
ROW = Unstructured(0.5, "row")
KINDS = ("correlated", "duplicates", "constants", "few tokens", "dead columns")


def problem(seed, rows, width, kind="correlated", damping=0.01):
    """A random target and a Hessian of unit diagonal, float64."""
    generator = np.random.default_rng(seed)
    tokens = max(2, width // 3) if kind == "few tokens" else 4 * width
    shared = generator.standard_normal((tokens, max(1, width // 4)))
    inputs = shared @ generator.standard_normal((shared.shape[1], width))
    inputs += 0.5 * generator.standard_normal(inputs.shape)
    if kind == "duplicates":
        inputs[:, width // 2 :] = inputs[:, : width - width // 2]
    inputs -= inputs.mean(axis=0)
    if kind == "constants":
        inputs[:, ::3] = 1.0
    if kind == "dead columns":
        inputs[:, 1::3] = 0.0
    hessian, _ = damped(torch.from_numpy(inputs.T @ inputs), damping)
    scale = hessian.diagonal().sqrt()
    return torch.from_numpy(generator.standard_normal((rows, width))), hessian / torch.outer(scale, scale)


def start(seed, rows, width, pattern):
    """A random support with scores that are high inside; unstructured rows keep 0, any number, and all."""
    generator = np.random.default_rng(seed + 1)
    scores = torch.from_numpy(generator.random((rows, width))).float()
    if isinstance(pattern, NM):
        return pattern.mask(scores), scores
    mask = torch.from_numpy(generator.random((rows, width)) < generator.random((rows, 1)))
    mask[0], mask[-1] = False, True
    return mask, torch.where(mask, 1.0 + scores, scores)


def losses(weight, target, hessian):
    return ((weight - target) @ hessian * (weight - target)).sum(dim=1)


def energies(target, hessian):
    return (target @ hessian * target).sum(dim=1)


def best_of_all_supports(target, hessian, count):
    """The least loss of one row that any support of `count` places has."""
    supports_ = list(itertools.combinations(range(len(target)), count))
    mask = torch.zeros(len(supports_), len(target), dtype=torch.bool)
    for row, support in enumerate(supports_):
        mask[row, list(support)] = True
    targets = target.expand(len(supports_), -1)
    return float(losses(least_squares(targets, hessian, mask), targets, hessian).min())


# exchange ---------------------------------------------------------------------------------------


@settings(max_examples=80)
@given(
    SEEDS, st.integers(2, 8), st.integers(1, 8), st.sampled_from(KINDS), st.sampled_from([ROW, NM(2, 4)]),
    st.sampled_from([1e-2, 1e-3]),
)  # fmt: skip
def test_counts_stay_and_no_row_gets_worse_than_where_it_started(seed, rows, groups, kind, pattern, damping):
    target, hessian = problem(seed, rows, 4 * groups, kind, damping)
    mask, scores = start(seed, rows, 4 * groups, pattern)
    weight, kept = exchange(target, hessian, mask, scores, pattern)
    assert torch.equal(kept.sum(dim=1), mask.sum(dim=1))
    if isinstance(pattern, NM):
        assert pattern.is_met_by(kept)
    assert (weight[~kept] == 0).all()
    tolerance = 1e-9 * energies(target, hessian)
    before = losses(least_squares(target, hessian, mask), target, hessian)
    after = losses(weight, target, hessian)
    assert (after <= before + tolerance).all()
    # Least squares on the support that was found.
    best = losses(least_squares(target, hessian, kept), target, hessian)
    assert (after <= best + tolerance).all()


@pytest.mark.parametrize("pattern", [ROW, NM(2, 4), NM(1, 4), NM(4, 8)], ids=str)
def test_the_weight_has_no_gradient_on_its_support(pattern):
    target, hessian = problem(0, 12, 64)
    mask, scores = start(0, 12, 64, pattern)
    weight, kept = exchange(target, hessian, mask, scores, pattern)
    gradient = (weight - target) @ hessian
    assert float(gradient[kept].abs().max()) < 1e-9 * float((target @ hessian).abs().max())
    torch.testing.assert_close(weight, least_squares(target, hessian, kept), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("pattern", [ROW, NM(2, 4)], ids=str)
def test_swaps_lower_the_error_of_a_random_support_by_far(pattern, monkeypatch):
    monkeypatch.setattr(module, "SWAP_SHARE", 0.5)
    target, hessian = problem(1, 16, 64)
    mask, scores = start(1, 16, 64, pattern)
    weight, kept = exchange(target, hessian, mask, scores, pattern)
    before = losses(least_squares(target, hessian, mask), target, hessian)[1:-1]
    assert float(losses(weight, target, hessian)[1:-1].sum()) < 0.7 * float(before.sum())
    assert not torch.equal(kept, mask)


def test_empty_rows_stay_zero_and_full_rows_keep_the_target():
    target, hessian = problem(2, 6, 16)
    mask, scores = start(2, 6, 16, ROW)
    weight, kept = exchange(target, hessian, mask, scores, ROW)
    assert not weight[0].any()
    assert not kept[0].any()
    assert kept[-1].all()
    torch.testing.assert_close(weight[-1], target[-1], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("whole", [False, True])
def test_a_layer_that_keeps_nothing_or_all(whole):
    target, hessian = problem(3, 4, 8)
    mask = torch.full((4, 8), whole)
    weight, kept = exchange(target, hessian, mask, torch.ones(4, 8), ROW)
    assert torch.equal(kept, mask)
    torch.testing.assert_close(weight, target * mask, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 1), (1, 130), (60, 3)])
def test_odd_shapes(shape):
    target, hessian = problem(4, *shape)
    mask = torch.arange(shape[1]).expand(shape) % 2 == 0
    weight, kept = exchange(target, hessian, mask, mask.float(), ROW)
    assert torch.equal(kept.sum(dim=1), mask.sum(dim=1))
    torch.testing.assert_close(weight, least_squares(target, hessian, kept), rtol=1e-7, atol=1e-8)


def test_with_everything_contested_tiny_rows_mostly_reach_the_best_support(monkeypatch):
    monkeypatch.setattr(module, "CONTESTED_SHARE", 1.0)
    monkeypatch.setattr(module, "SWAP_SHARE", 2.0)
    reached, improved, total = 0, 0, 40
    for seed in range(total):
        target, hessian = problem(seed, 1, 8)
        scores = torch.from_numpy(np.random.default_rng(seed).random((1, 8)))
        mask = Unstructured(0.5).mask(scores)
        weight, _ = exchange(target, hessian, mask, scores, ROW)
        found = float(losses(weight, target, hessian)[0])
        best = best_of_all_supports(target[0], hessian, 4)
        assert found >= best * (1 - 1e-9)
        reached += found <= best * (1 + 1e-6)
        before = losses(least_squares(target, hessian, mask), target, hessian)
        improved += found < 0.999 * float(before[0])
    assert reached >= 0.75 * total
    assert improved >= 0.75 * total


def test_the_one_good_swap_of_a_diagonal_problem_is_made(monkeypatch):
    monkeypatch.setattr(module, "CONTESTED_SHARE", 1.0)
    target = torch.tensor([[1.0, 5.0, 4.0, 3.0, 2.0, 0.1]], dtype=torch.float64)
    mask = torch.tensor([[True, False, True, True, False, False]])
    weight, kept = exchange(target, torch.eye(6, dtype=torch.float64), mask, mask.double(), ROW)
    assert kept.tolist() == [[False, True, True, True, False, False]]
    assert weight[0].numpy() == pytest.approx([0, 5, 4, 3, 0, 0], abs=1e-12)


def test_a_swap_of_n_of_m_stays_in_its_group(monkeypatch):
    monkeypatch.setattr(module, "CONTESTED_SHARE", 1.0)
    # The best swap of the row would put the 9 in place of the 1; in its own group it must displace the 8.
    target = torch.tensor([[1.0, 0.5, 9.0, 8.0]], dtype=torch.float64)
    mask = torch.tensor([[True, False, False, True]])
    weight, kept = exchange(target, torch.eye(4, dtype=torch.float64), mask, mask.double(), NM(1, 2))
    assert kept.tolist() == [[True, False, True, False]]
    assert weight[0].numpy() == pytest.approx([1, 0, 9, 0], abs=1e-12)


@pytest.mark.parametrize("pattern", [ROW, NM(2, 4)], ids=str)
def test_permuted_rows_give_the_permuted_result(pattern):
    target, hessian = problem(5, 9, 32)
    mask, scores = start(5, 9, 32, pattern)
    weight, kept = exchange(target, hessian, mask, scores, pattern)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    again, kept_again = exchange(target[order], hessian, mask[order], scores[order], pattern)
    assert torch.equal(kept_again, kept[order])
    torch.testing.assert_close(again, weight[order], rtol=1e-9, atol=1e-9)


def test_many_small_batches_keep_counts_and_optimality(monkeypatch):
    target, hessian = problem(6, 12, 32)
    mask, scores = start(6, 12, 32, ROW)
    monkeypatch.setattr(supports, "ROW_BATCH_BYTES", 2 * 4 * 32 * 32)
    weight, kept = exchange(target, hessian, mask, scores, ROW)
    assert torch.equal(kept.sum(dim=1), mask.sum(dim=1))
    torch.testing.assert_close(weight, least_squares(target, hessian, kept), rtol=1e-7, atol=1e-9)


def test_the_arguments_are_left_alone():
    target, hessian = problem(7, 5, 16)
    mask, scores = start(7, 5, 16, ROW)
    arguments = target, hessian, mask, scores
    before = [tensor.clone() for tensor in arguments]
    exchange(*arguments, ROW)
    assert all(torch.equal(one, other) for one, other in zip(arguments, before, strict=True))


# ill-conditioned Hessians -----------------------------------------------------------------------


def spread_hessian(seed, width, condition):
    """Unit diagonal, eigenvalues spread evenly over the orders of magnitude up to `condition`."""
    generator = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(generator.standard_normal((width, width)))
    hessian = basis @ np.diag(np.geomspace(1 / condition, 1, width)) @ basis.T
    scale = np.sqrt(np.diag(hessian))
    hessian /= np.outer(scale, scale)
    return torch.from_numpy((hessian + hessian.T) / 2)


@pytest.mark.parametrize("condition", [1e6, 1e8, 1e10, 1e12])
@pytest.mark.parametrize("pattern", [ROW, NM(2, 4)], ids=str)
def test_an_ill_conditioned_hessian_makes_no_row_worse(condition, pattern):
    for seed in range(5):
        target, _ = problem(seed, 8, 32)
        hessian = spread_hessian(seed, 32, condition)
        mask, scores = start(seed, 8, 32, pattern)
        weight, kept = exchange(target, hessian, mask, scores, pattern)
        assert torch.isfinite(weight).all()
        assert torch.equal(kept.sum(dim=1), mask.sum(dim=1))
        before = losses(least_squares(target, hessian, mask), target, hessian)
        assert (losses(weight, target, hessian) <= before + 1e-6 * energies(target, hessian)).all()


@pytest.mark.parametrize("damping", [1e-4, 1e-5, 1e-6])
def test_little_damping_and_few_tokens_leave_the_least_squares_of_the_support(damping):
    for seed in range(15):
        generator = np.random.default_rng(seed)
        inputs = generator.standard_normal((21, 64))
        inputs -= inputs.mean(axis=0)
        hessian, _ = damped(torch.from_numpy(inputs.T @ inputs), damping)
        target = torch.from_numpy(generator.standard_normal((4, 64)))
        weight, mask = fast(target, hessian, Unstructured(0.5))
        best = reconstruction_error(least_squares(target, hessian, mask), target, hessian)
        assert reconstruction_error(weight, target, hessian) <= 1.01 * best


def test_duplicate_features_with_hardly_any_damping_are_solved():
    generator = np.random.default_rng(0)
    for _ in range(5):
        inputs = generator.standard_normal((64, 16))
        inputs[:, 8:] = inputs[:, :8]
        hessian, _ = damped(torch.from_numpy(inputs.T @ inputs), 1e-8)
        target = torch.from_numpy(generator.standard_normal((6, 16)))
        weight, _ = fast(target, hessian, Unstructured(0.25))
        assert reconstruction_error(weight, target, hessian) < 0.1


# spd_inverse ------------------------------------------------------------------------------------


def spd(seed, batch, size):
    generator = np.random.default_rng(seed)
    root = generator.standard_normal((batch, size, size + 2))
    return torch.from_numpy(root @ root.transpose(0, 2, 1) / size + 0.1 * np.eye(size))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 47, 48, 49, 50, 95, 96, 97, 98, 99, 130])
def test_the_inverse_is_that_of_torch(size):
    matrix = spd(size, 3, size)
    before = matrix.clone()
    inverse = spd_inverse(matrix)
    torch.testing.assert_close(inverse, torch.linalg.inv(matrix), rtol=1e-9, atol=1e-9)
    assert torch.equal(matrix, before)


@settings(max_examples=25)
@given(SEEDS, st.integers(1, 12), st.integers(1, 4))
def test_the_inverse_by_halves_is_that_of_torch_for_any_base(seed, size, base):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "INVERSE_BASE", base)
        matrix = spd(seed, 2, size)
        torch.testing.assert_close(spd_inverse(matrix), torch.linalg.inv(matrix), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [1, 20, 60, 130])
@pytest.mark.parametrize("place", [0, -1])
def test_an_indefinite_matrix_has_no_finite_inverse_and_spoils_no_other(size, place):
    matrix = spd(0, 3, size)
    matrix[1, place, place] = -1.0
    inverse = spd_inverse(matrix)
    assert not torch.isfinite(inverse[1]).all()
    expected = torch.linalg.inv(matrix[[0, 2]])
    torch.testing.assert_close(inverse[[0, 2]], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("matrix", [[[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 1.0]]])
def test_a_singular_matrix_has_no_finite_inverse(matrix):
    assert not torch.isfinite(spd_inverse(torch.tensor([matrix]))).all()


# the tableau ------------------------------------------------------------------------------------


def dense_tableau(schur, rest, inside):
    """M, and the weights of the places inside with the gradients of those outside, of one row."""
    kept, out = np.flatnonzero(inside), np.flatnonzero(~inside)
    inverse = np.linalg.inv(schur[np.ix_(kept, kept)])
    projected = inverse @ schur[np.ix_(kept, out)]
    matrix = np.empty_like(schur)
    matrix[np.ix_(kept, kept)] = -inverse
    matrix[np.ix_(kept, out)] = projected
    matrix[np.ix_(out, kept)] = projected.T
    matrix[np.ix_(out, out)] = schur[np.ix_(out, out)] - schur[np.ix_(out, kept)] @ projected
    values = np.empty(len(rest))
    values[kept] = inverse @ rest[kept]
    values[out] = rest[out] - projected.T @ rest[kept]
    return matrix, values


@settings(max_examples=40)
@given(SEEDS, st.integers(1, 3), st.integers(2, 9), st.integers(0, 8))
def test_after_any_sweeps_the_tableau_is_the_dense_one(seed, rows, size, sweeps):
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, size))
    schur, rest = spd(seed, rows, size), torch.from_numpy(generator.standard_normal((rows, size)))
    tableau = _Tableau(schur.clone(), rest, torch.ones(rows, count, dtype=torch.bool), most_swaps=4)
    inside = np.zeros((rows, size), dtype=bool)
    inside[:, :count] = True
    for _ in range(sweeps):
        # One direction in each call, as in swaps; rows in which no place has it stand still.
        entering = bool(generator.integers(2))
        candidates = [np.flatnonzero(row != entering) for row in inside]
        active = np.array([len(c) > 0 and generator.random() < 0.8 for c in candidates])
        place = np.array([generator.choice(c) if on else 0 for c, on in zip(candidates, active, strict=True)])
        tableau._sweep(torch.from_numpy(place), torch.from_numpy(active), entering=entering)
        inside[np.flatnonzero(active), place[active]] = entering
    assert tableau.inside.numpy().tolist() == inside.tolist()
    right = generator.standard_normal((rows, size))
    solved = tableau.solve(torch.from_numpy(right)).numpy()
    columns = np.stack([tableau._column(torch.full((rows,), place)).numpy() for place in range(size)], axis=2)
    for row in range(rows):
        matrix, values = dense_tableau(schur[row].numpy(), rest[row].numpy(), inside[row])
        assert columns[row] == pytest.approx(matrix, rel=1e-7, abs=1e-7)
        assert tableau._diagonal[row].numpy() == pytest.approx(np.diag(matrix), rel=1e-7, abs=1e-7)
        assert tableau.values[row].numpy() == pytest.approx(values, rel=1e-7, abs=1e-7)
        kept = inside[row]
        expected = np.zeros(size)
        expected[kept] = np.linalg.solve(schur[row].numpy()[np.ix_(kept, kept)], right[row, kept])
        assert solved[row] == pytest.approx(expected, rel=1e-7, abs=1e-7)


def test_each_swap_of_the_tableau_lowers_the_loss():
    schur = spd(3, 4, 12)
    rest = torch.from_numpy(np.random.default_rng(3).standard_normal((4, 12)))
    before = np.full(4, np.inf)
    for most in range(1, 6):
        tableau = _Tableau(schur.clone(), rest, torch.ones(4, 5, dtype=torch.bool), most_swaps=most)
        tableau.swap(torch.zeros(4, 12, dtype=torch.int64), torch.ones(4, 12, dtype=torch.bool))
        assert (tableau.inside.sum(dim=1) == 5).all()
        weight = tableau.values * tableau.inside
        # w S w - 2 w b, of which the loss differs by a constant.
        loss = (weight * (weight[:, None] @ schur)[:, 0] - 2 * weight * rest).sum(dim=1).numpy()
        assert (loss <= before + 1e-9).all()
        before = loss
