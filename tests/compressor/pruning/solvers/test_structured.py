"""Removal of groups of columns against brute force over all groups and NumPy's least squares."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.pruning.solvers.structured import kept_columns, removal_order, weight_on

SEEDS = st.integers(0, 2**31 - 1)
SIZES = [1, 2, 3]


def problem(seed, rows, width):
    """A random weight and the Hessian of correlated inputs, float64."""
    generator = np.random.default_rng(seed)
    inputs = generator.standard_normal((4 * width, width)) @ generator.standard_normal((width, width))
    hessian = inputs.T @ inputs
    hessian += 0.01 * np.diag(hessian).mean() * np.eye(width)
    return torch.from_numpy(generator.standard_normal((rows, width))), torch.from_numpy(hessian)


def remove_columns(target, hessian, size, count):
    """The weight on what stays after `count` groups, and the groups that went, ascending."""
    removed = removal_order(target, hessian, size, count)
    return weight_on(target, hessian, kept_columns(target.shape[1], size, removed)), sorted(removed)


def columns_without(removed, groups, size):
    return [group * size + i for group in range(groups) if group not in removed for i in range(size)]


def least_squares_on(target, hessian, columns):
    """The weights on `columns` that come nearest to the target, by NumPy, and their loss."""
    root = np.linalg.cholesky(hessian.numpy()).T
    outputs = root @ target.numpy().T
    weight = np.linalg.lstsq(root[:, columns], outputs, rcond=None)[0]
    return weight.T, float(((root[:, columns] @ weight - outputs) ** 2).sum())


@settings(max_examples=30)
@given(SEEDS, st.integers(1, 4), st.integers(2, 5), st.sampled_from(SIZES))
def test_the_first_group_that_goes_is_the_cheapest(seed, rows, groups, size):
    target, hessian = problem(seed, rows, groups * size)
    _, removed = remove_columns(target, hessian, size, 1)
    costs = [least_squares_on(target, hessian, columns_without([g], groups, size))[1] for g in range(groups)]
    assert removed == [int(np.argmin(costs))]


@settings(max_examples=30)
@given(SEEDS, st.integers(1, 4), st.integers(2, 6), st.sampled_from(SIZES), st.data())
def test_each_next_group_is_the_cheapest_of_the_rest(seed, rows, groups, size, data):
    target, hessian = problem(seed, rows, groups * size)
    count = data.draw(st.integers(1, groups - 1))
    expected: list[int] = []
    for _ in range(count):
        costs = {
            group: least_squares_on(target, hessian, columns_without([*expected, group], groups, size))[1]
            for group in range(groups)
            if group not in expected
        }
        expected.append(min(costs, key=costs.__getitem__))
    weight, removed = remove_columns(target, hessian, size, count)
    assert removed == sorted(expected)
    best, _ = least_squares_on(target, hessian, columns_without(removed, groups, size))
    assert weight.numpy() == pytest.approx(best, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("size", SIZES)
def test_the_removed_groups_are_mostly_the_best_of_all_choices(size):
    reached = 0
    for seed in range(20):
        target, hessian = problem(seed, 3, 5 * size)
        _, removed = remove_columns(target, hessian, size, 2)
        costs = {
            choice: least_squares_on(target, hessian, columns_without(choice, 5, size))[1]
            for choice in itertools.combinations(range(5), 2)
        }
        reached += tuple(removed) == min(costs, key=costs.__getitem__)
    assert reached >= 12


@pytest.mark.parametrize("size", SIZES)
def test_what_stays_has_no_gradient(size):
    target, hessian = problem(1, 6, 6 * size)
    weight, removed = remove_columns(target, hessian, size, 3)
    kept = columns_without(removed, 6, size)
    whole = torch.zeros_like(target)
    whole[:, kept] = weight
    gradient = ((whole - target) @ hessian)[:, kept]
    assert float(gradient.abs().max()) < 1e-9 * float((target @ hessian).abs().max())


@pytest.mark.parametrize("size", SIZES)
def test_nothing_to_remove_keeps_the_target(size):
    target, hessian = problem(2, 3, 4 * size)
    weight, removed = remove_columns(target, hessian, size, 0)
    assert removed == []
    torch.testing.assert_close(weight, target, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", SIZES)
def test_all_but_one_may_go(size):
    target, hessian = problem(3, 3, 5 * size)
    weight, removed = remove_columns(target, hessian, size, 4)
    assert len(removed) == 4
    assert weight.shape == (3, size)
    assert torch.isfinite(weight).all()


def test_a_group_of_zero_weights_goes_first_and_costs_nothing():
    target, hessian = problem(4, 3, 8)
    target[:, 4:6] = 0.0
    weight, removed = remove_columns(target, hessian, 2, 1)
    assert removed == [2]
    torch.testing.assert_close(weight, target[:, [0, 1, 2, 3, 6, 7]], rtol=1e-9, atol=1e-9)


def test_of_two_equal_columns_one_takes_the_work_of_both():
    target, hessian = problem(5, 3, 4)
    hessian[1], hessian[:, 1] = hessian[0].clone(), hessian[:, 0].clone()
    hessian[1, 1] = hessian[0, 0]
    hessian += 1e-9 * torch.eye(4, dtype=torch.float64)
    weight, removed = remove_columns(target, hessian, 1, 1)
    assert removed in ([0], [1])
    expected = torch.stack([target[:, 0] + target[:, 1], target[:, 2], target[:, 3]], dim=1)
    torch.testing.assert_close(weight, expected, rtol=1e-4, atol=1e-4)


def test_the_arguments_are_left_alone():
    target, hessian = problem(6, 3, 6)
    before = target.clone(), hessian.clone()
    remove_columns(target, hessian, 2, 2)
    assert torch.equal(target, before[0])
    assert torch.equal(hessian, before[1])


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.integers(1, 130))
def test_lazy_steps_take_the_columns_that_single_steps_take(seed, count):
    target, hessian = problem(seed, 7, 131)
    weight, inverse = target.clone(), torch.linalg.inv(hessian)
    expected, alive = [], torch.ones(131, dtype=torch.bool)
    for _ in range(count):
        losses = weight.square().sum(dim=0) / inverse.diagonal()
        column = int(torch.where(alive, losses, torch.inf).argmin())
        row = inverse[column] / inverse[column, column]
        weight -= torch.outer(weight[:, column], row)
        inverse -= torch.outer(inverse[:, column].clone(), row)
        inverse[column, column] = 1.0
        alive[column] = False
        expected.append(column)
    assert removal_order(target, hessian, 1, count) == expected


@pytest.mark.parametrize("size", SIZES)
def test_the_order_has_every_level(size):
    target, hessian = problem(3, 4, 6 * size)
    order = removal_order(target, hessian, size, 6)
    assert sorted(order) == list(range(6))
    for count in range(7):
        weight, removed = remove_columns(target, hessian, size, count)
        assert removed == sorted(order[:count])
        assert weight.shape == (4, (6 - count) * size)
