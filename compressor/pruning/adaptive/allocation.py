"""Distribute a budget of zeros over the layers: evenly, or by measured error.

For the latter each group of layers gets an error curve: pruned alone in the dense model, at several
sparsities, how far does it move the last hidden states of [CLS], from which the classes are read? The
allocation that minimises the sum of these errors is then found exactly on a grid of sparsities.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from torch import Tensor

from compressor.data.texts import TextData
from compressor.errors import UserError
from compressor.models.classifier import Classifier
from compressor.pruning.interface import PruningJob
from compressor.pruning.layerwise import LinearGroup, damped_hessian, group_steps, start_walk
from compressor.pruning.patterns import MaskPattern, Unstructured
from compressor.pruning.solvers.solvers import greedy
from compressor.system.console import Progress

# Sparsities at which a curve is measured; between them the logarithm of the error is interpolated.
MEASURED = (0.3, 0.6, 0.8, 0.9, 0.96)
# Sparsities between which the allocation chooses.
GRID_STEP = 1 / 64
MOST = 1 - 2 * GRID_STEP


def by_layer(pattern: Unstructured) -> Unstructured:
    """Return the pattern with the scope layer, unless it has one.

    That loses less output than ranking each of its rows, and more so the sparser the layer is.
    """
    return replace(pattern, scope=pattern.scope or "layer")


def uniform_patterns(classifier: Classifier, pattern: MaskPattern) -> dict[tuple[str, ...], MaskPattern]:
    """Return the same pattern for each group of layers with a common input."""
    own = by_layer(pattern) if isinstance(pattern, Unstructured) else pattern
    return {names: own for _, names in classifier.layout.groups(classifier.model)}


def allocate(
    classifier: Classifier, data: TextData, job: PruningJob, pattern: Unstructured, progress: Progress
) -> dict[tuple[str, ...], MaskPattern]:
    """Return a sparsity for each group of layers with a common input, within the budget of `pattern`.

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
    """Return the sparsities to choose from, float64."""
    return np.arange(0, round(MOST / GRID_STEP) + 1) * GRID_STEP


def cheapest(costs: np.ndarray, sizes: np.ndarray, budget: float) -> list[int]:
    """Choose one grid point for each group: minimum total cost with at least `budget` zeros.

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
    walk, _ = start_walk(classifier, data, job, dense=None)
    curves, sizes = {}, {}
    whole = walk.last_head_inputs()
    for index, names in progress.track(group_steps(classifier), "Measuring error curves"):
        group = LinearGroup.of(classifier, index, names)
        moments = walk.moments(group.first)
        hessian = moments.hessian_of(has_bias=group.bias is not None)
        hessian, _ = damped_hessian(group.names[0], hessian, job.config.adaptive.damping, moments.mean_square)
        errors = []
        for sparsity in MEASURED:
            pruned, _ = greedy(group.weight, hessian, replace(pattern, sparsity=sparsity))
            with replaced(group, pruned, group.moved_bias(pruned, moments)):
                change = walk.last_head_inputs() - whole
            errors.append(float(change.square().sum() / whole.square().sum()))
        curves[group.names] = _interpolated(errors)
        sizes[group.names] = sum(linear.weight.numel() for linear in group.linears)
        if group.is_last:
            walk.advance()
    return curves, sizes


@contextmanager
def replaced(group: LinearGroup, weight: Tensor, bias: Tensor | None) -> Iterator[None]:
    """Put another stacked weight and bias, if there is one, in the group's layers for a while."""
    weights = [linear.weight.clone() for linear in group.linears]
    biases = [own.clone() for own in group.biases]
    group.put(group.split(weight), () if bias is None else group.split(bias))
    try:
        yield
    finally:
        group.put(weights, biases)


def _interpolated(errors: Sequence[float]) -> np.ndarray:
    """The curve on the grid: zero at no sparsity, logarithms interpolated between measurements."""
    tiny = np.finfo(float).tiny
    logarithms = np.log(np.maximum.accumulate(np.maximum(errors, tiny)))
    # Where everything is gone the error is the whole output.
    points, values = [*MEASURED, 1.0], [*logarithms, max(0.0, logarithms[-1])]
    curve: np.ndarray = np.exp(np.interp(grid(), points, values))
    curve[grid() < MEASURED[0]] *= grid()[grid() < MEASURED[0]] / MEASURED[0]
    return curve
