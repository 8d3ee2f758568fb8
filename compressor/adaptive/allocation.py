"""How a budget of zeros is spent over the layers: where the measured error is cheapest.

Each group of layers gets an error curve, measured on the dense model, and a price, measured as
what its error does to the model's last hidden state. The allocation that minimises the sum is then
found exactly on a grid of sparsities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from compressor.adaptive.solvers import fast, reconstruction_error
from compressor.calibration import Moments
from compressor.classifier import Classifier
from compressor.console import Progress
from compressor.data import TextData
from compressor.errors import UserError
from compressor.layerwise import LinearGroup, damped_hessian, groups_along, start_walk
from compressor.patterns import MaskPattern, Unstructured
from compressor.pruning import PruningJob

# Sparsities at which a curve is measured; between them the logarithm of the error is interpolated.
MEASURED = (0.1, 0.3, 0.5, 0.65, 0.8, 0.9, 0.96)
# Output rows on which a curve is measured; rows are independent, so a sample tells of all.
MEASURED_ROWS = 96
# Sparsities between which the allocation chooses.
GRID_STEP = 1 / 64
MOST = 1 - 2 * GRID_STEP
# What a group's error does to the model is measured on the last, longest batches, with half its weights.
PROBE_BATCHES = 3
PROBE_SPARSITY = 0.5


def allocate(
    classifier: Classifier, data: TextData, job: PruningJob, pattern: Unstructured, progress: Progress
) -> dict[tuple[str, ...], MaskPattern]:
    """A sparsity for each group of layers that share their input, within the budget of `pattern`.

    Returns:
        The pattern of each group, by its layers' names.

    Raises:
        UserError: the budget is more than any group may lose.
    """
    if pattern.sparsity > MOST:
        raise UserError(
            f"sparsity {pattern.sparsity}: allocation error spends {MOST:g} at most; use --allocation uniform"
        )
    curves, sizes = _measured_curves(classifier, data, job, pattern, progress)
    names = list(curves)
    budget = pattern.sparsity * sum(sizes.values())
    chosen = cheapest(
        np.array([curves[name] for name in names]), np.array([sizes[name] for name in names]), budget
    )
    return {name: replace(pattern, sparsity=float(grid()[i])) for name, i in zip(names, chosen, strict=True)}


def grid() -> np.ndarray:
    """The sparsities between which the allocation chooses, float64."""
    return np.arange(0, round(MOST / GRID_STEP) + 1) * GRID_STEP


def cheapest(costs: np.ndarray, sizes: np.ndarray, budget: float) -> list[int]:
    """Choose one grid point a group: least total cost with at least `budget` weights zero.

    A multiple-choice knapsack by dynamic programming, exact on the grid; where no choice meets the
    budget to a weight, the nearest number above it is met.

    Args:
        costs: `(groups, points)`, of each group at each grid point.
        sizes: `(groups,)` int64, weights in each group.
        budget: how many weights are to be zero.

    Returns:
        The point of each group.

    Raises:
        ValueError: the budget is more than the last grid point of all groups.
    """
    unit = math.gcd(*sizes.tolist())
    units = (sizes // unit).tolist()
    wanted = math.ceil(round(budget / unit / GRID_STEP, 6))
    if wanted > sum(units) * (costs.shape[1] - 1):
        raise ValueError(f"a budget of {budget:g} zeros is more than the grid can reach")
    # best[t]: least cost of the groups so far with t units zero. One more step of any group is
    # enough to reach the budget from just below.
    best = np.full(wanted + max(units), np.inf)
    best[0] = 0.0
    choices = []
    for size, curve in zip(units, costs, strict=True):
        totals = np.full((len(curve), len(best)), np.inf)
        for point, cost in enumerate(curve):
            shift = point * size
            if shift < len(best):
                totals[point, shift:] = best[: len(best) - shift] + cost
        choices.append(totals.argmin(axis=0))
        best = totals.min(axis=0)
    total = wanted + int(np.isfinite(best[wanted:]).argmax())
    chosen = []
    for size, choice in zip(reversed(units), reversed(choices), strict=True):
        chosen.append(int(choice[total]))
        total -= chosen[-1] * size
    return chosen[::-1]


def _measured_curves(
    classifier: Classifier, data: TextData, job: PruningJob, pattern: Unstructured, progress: Progress
) -> tuple[dict[tuple[str, ...], np.ndarray], dict[tuple[str, ...], int]]:
    """What each group costs at each grid point, `(points,)` float64, and its number of weights."""
    walk, _ = start_walk(classifier, data, job, beside_dense=False)
    generator = torch.Generator().manual_seed(job.seed)
    curves, sizes = {}, {}
    probes = walk.batches[-PROBE_BATCHES:]
    states = [_cls(classifier, batch) for batch in probes]
    for group in groups_along(walk, classifier, progress, "Measuring error curves"):
        moments = walk.moments(group.first)
        errors = _error_curve(group, moments, job, pattern, generator)
        # Of a loss that is a sum over outputs of unlike scale, each counts by what it does in the end.
        price = _price(classifier, group, moments, probes, states)
        curves[group.names] = price * _interpolated(errors)
        sizes[group.names] = sum(linear.weight.numel() for linear in group.linears)
    return curves, sizes


def _error_curve(
    group: LinearGroup, moments: Moments, job: PruningJob, pattern: Unstructured, generator: torch.Generator
) -> list[float]:
    """Relative errors at the `MEASURED` sparsities, on a sample of rows."""
    hessian, _ = damped_hessian(group.names[0], moments.hessian, job.config.adaptive.damping)
    rows = torch.randperm(len(group.weight), generator=generator)[:MEASURED_ROWS].to(hessian.device)
    weight = group.weight[rows]
    return [
        reconstruction_error(fast(weight, hessian, replace(pattern, sparsity=s))[0], weight, hessian)
        for s in MEASURED
    ]


def _interpolated(errors: Sequence[float]) -> np.ndarray:
    """The curve on the grid: zero at no sparsity, logarithms interpolated between measurements."""
    tiny = np.finfo(float).tiny
    logarithms = np.log(np.maximum.accumulate(np.maximum(errors, tiny)))
    # Where everything is gone the error is the whole output.
    points, values = [*MEASURED, 1.0], [*logarithms, max(0.0, logarithms[-1])]
    curve: np.ndarray = np.exp(np.interp(grid(), points, values))
    curve[grid() < MEASURED[0]] *= grid()[grid() < MEASURED[0]] / MEASURED[0]
    return curve


def _price(
    classifier: Classifier,
    group: LinearGroup,
    moments: Moments,
    batches: Sequence[Mapping[str, Tensor]],
    before: Sequence[Tensor],
) -> float:
    """Relative change of the last [CLS] states for each unit of the group's relative error.

    Measured with half of the group's weights zeroed, those with the smallest `|w| ||x||`.

    Args:
        before: the dense model's last [CLS] states on `batches`.
    """
    weight, hessian = group.weight, moments.hessian
    mask = Unstructured(PROBE_SPARSITY, "layer").mask(weight.abs() * moments.square.diagonal().sqrt())
    error = reconstruction_error(weight * mask, weight, hessian)
    kept = [linear.weight.clone() for linear in group.linears]
    for linear, part in zip(group.linears, group.split(mask), strict=True):
        linear.weight.mul_(part)
    after = [_cls(classifier, batch) for batch in batches]
    for linear, whole in zip(group.linears, kept, strict=True):
        linear.weight.copy_(whole)
    change = sum(float((one - other).square().sum()) for one, other in zip(before, after, strict=True))
    energy = sum(float(one.square().sum()) for one in before)
    return change / energy / error if error > 0 else 0.0


def _cls(classifier: Classifier, batch: Mapping[str, Tensor]) -> Tensor:
    states: Tensor = classifier.model.bert(**batch).last_hidden_state[:, 0]
    return states
