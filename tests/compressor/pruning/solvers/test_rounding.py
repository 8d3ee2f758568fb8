"""Rounding column by column against a float64 reference, and what it promises."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import SEEDS, problem, row_losses

from compressor.pruning.solvers import rounding
from compressor.pruning.solvers.rounding import round_columns


def reference(weight: np.ndarray, hessian: np.ndarray, steps: np.ndarray, largest: int) -> np.ndarray:
    """GPTQ's eq. 2 and 3 as they stand: each rounded column is eliminated from the inverse Hessian."""
    weight, inverse = weight.copy(), np.linalg.inv(hessian)
    is_kept, rounded = weight != 0, np.zeros_like(weight)
    order = np.argsort(-np.diag(hessian), kind="stable")
    for place, column in enumerate(order):
        rest = order[place + 1 :]
        rounded[:, column] = np.rint(weight[:, column] / steps).clip(-largest, largest) * is_kept[:, column]
        error = (weight[:, column] - rounded[:, column] * steps) / inverse[column, column]
        weight[:, rest] -= np.outer(error, inverse[column, rest])
        inverse -= np.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    return rounded


def steps_of(weight: torch.Tensor, largest: int) -> torch.Tensor:
    top = weight.abs().amax(dim=1)
    return torch.where(top > 0, top / largest, 1.0)


@settings(max_examples=40)
@given(
    seed=SEEDS,
    rows=st.integers(1, 6),
    width=st.integers(1, 24),
    largest=st.sampled_from([3, 63, 127]),
    block=st.sampled_from([1, 5, 128]),
)
def test_it_is_the_reference(seed, rows, width, largest, block):
    weight, hessian = problem(seed, rows, width)
    weight[torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)) < 0.2] = 0
    steps = steps_of(weight, largest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounding, "SWEEP_BLOCK", block)
        found = round_columns(weight, hessian, steps, largest)
    assert np.array_equal(found.numpy(), reference(weight.numpy(), hessian.numpy(), steps.numpy(), largest))


@settings(max_examples=20)
@given(seed=SEEDS, scale=st.floats(0.1, 100))
def test_channels_that_are_not_related_are_rounded_to_the_nearest(seed, scale):
    weight, _ = problem(seed, 5, 12)
    hessian = torch.diag(scale * (0.5 + torch.rand(12, dtype=torch.float64)))
    steps = steps_of(weight, 7)
    assert torch.equal(round_columns(weight, hessian, steps, 7), (weight / steps[:, None]).round())


@pytest.mark.parametrize("largest", [7, 63, 127])
def test_outputs_change_less_than_with_the_nearest_integers(largest):
    weight, hessian = problem(3, 64, 96)
    steps = steps_of(weight, largest)

    def loss(integers):
        return row_losses((integers * steps[:, None]).numpy(), weight.numpy(), hessian.numpy()).sum()

    found = loss(round_columns(weight, hessian, steps, largest))
    assert found < 0.5 * loss((weight / steps[:, None]).round())


def test_zeros_stay_and_no_integer_is_too_large():
    weight, hessian = problem(1, 20, 40, correlation=0.95)
    weight[::2, ::3] = 0
    weight[4] = 0
    found = round_columns(weight, hessian, steps_of(weight, 3), 3)
    assert not found[weight == 0].any()
    assert float(found.abs().max()) == 3
    assert torch.equal(found, found.round())
