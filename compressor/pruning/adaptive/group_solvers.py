"""Solve a group of linear layers from the moments of its inputs (sections 3.2 and 4.3 of the paper).

A group's layers are stacked and share one factorisation. Weights are zeroed, heads and neurons taken out,
or what a given mask keeps is re-solved; the walk in `layerwise.py` goes from group to group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from compressor.models.classifier import Classifier
from compressor.models.encoders.registry import layout_of
from compressor.models.latency_table import Widths
from compressor.models.structure import remove_heads, remove_neurons
from compressor.options import AdaptiveConfig
from compressor.pruning.adaptive.reconstruction import reconstruct_block
from compressor.pruning.layerwise import (
    GroupSolver,
    LinearGroup,
    Solution,
    damped_hessian,
    set_linears,
)
from compressor.pruning.patterns import MaskPattern
from compressor.pruning.record import LayerRecord
from compressor.pruning.solvers.solvers import adapted_weight, reconstruction_error, solve
from compressor.pruning.solvers.structured import kept_columns, removal_order, weight_on
from compressor.pruning.walk import Moments, SideBySide

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LinearProblem:
    """A layer-wise problem, float64: the target weight, its Hessian and ridge, and the means for the bias.

    Attributes:
        output_mean: that the bias preserves, `(out,)`; None of layers without a bias, whose Hessian is that
            of inputs that are not centred.
    """

    target: Tensor
    hessian: Tensor
    ridge: float
    output_mean: Tensor | None
    input_mean: Tensor

    def solved(self, pattern: MaskPattern, options: AdaptiveConfig) -> tuple[Tensor, Tensor]:
        """Weight and mask as the solver of the options finds them."""
        return solve(self.target, self.hessian, pattern, options.solver, options.iterations)

    def bias(self, solved: Tensor) -> Tensor | None:
        """Return the bias that preserves the mean of the output; None of layers without a bias."""
        return None if self.output_mean is None else self.output_mean - solved @ self.input_mean


def linear_problem(
    name: str, weight: Tensor, bias: Tensor | None, moments: Moments, options: AdaptiveConfig
) -> LinearProblem:
    """Return the layer-wise problem of a linear layer (sections 4.3.2 and 4.3.3).

    Without a bias nothing takes up the mean of the output, so that the weight has to: the moments are not
    centred, in eq. 5 as in the Hessian.

    Raises:
        UserError: the Hessian cannot be made positive definite.
    """
    has_bias = bias is not None
    plain = moments.hessian_of(has_bias=has_bias)
    hessian, ridge = damped_hessian(name, plain, options.damping, moments.mean_square)
    target, mean = weight, moments.pruned_mean
    if options.resolve_weight:
        target = adapted_weight(weight, hessian, moments.cross_of(has_bias=has_bias), ridge)
        mean = moments.dense_mean
    output_mean = None if bias is None else weight @ mean + bias
    return LinearProblem(target, hessian, ridge, output_mean, moments.pruned_mean)


# Weight and mask `(out, in)` of a group's stacked layers.
MaskChoice: TypeAlias = Callable[[LinearGroup, LinearProblem], tuple[Tensor, Tensor]]


class _AdaptiveSolver(GroupSolver, Protocol):
    """What both kinds of pattern share: the tuning of a whole encoder layer."""

    options: AdaptiveConfig
    seed: int

    def refine(self, walk: SideBySide, index: int, masks: Mapping[str, Tensor]) -> bool:
        if not self.options.reconstruction_passes:
            return False
        prefix = layout_of(walk.dense).block_prefix(index)
        own = {
            f"{name.removeprefix(prefix)}.weight": mask
            for name, mask in masks.items()
            if name.startswith(prefix)
        }
        reconstruct_block(
            walk,
            own,
            passes=self.options.reconstruction_passes,
            learning_rate=self.options.reconstruction_rate,
            generator=torch.Generator().manual_seed(self.seed + index),
        )
        return True


@dataclass(frozen=True)
class SparseSolver(_AdaptiveSolver):
    """Set weights of a group to zero; its stacked layers share one factorization and one budget."""

    options: AdaptiveConfig
    patterns: dict[tuple[str, ...], MaskPattern]
    seed: int

    def solve(self, group: LinearGroup, moments: Moments) -> Solution:
        problem = linear_problem(group.names[0], group.weight, group.bias, moments, self.options)
        pruned, mask = problem.solved(self.patterns[group.names], self.options)
        return _split(group, problem, pruned, mask)


@dataclass(frozen=True)
class MaskSolver(GroupSolver):
    """Re-solve the kept weights of a mask that is given or drawn."""

    options: AdaptiveConfig
    choose: MaskChoice

    def solve(self, group: LinearGroup, moments: Moments) -> Solution:
        problem = linear_problem(group.names[0], group.weight, group.bias, moments, self.options)
        solved, mask = self.choose(group, problem)
        return _split(group, problem, solved, mask)


@dataclass(frozen=True)
class StructuredSolver(_AdaptiveSolver):
    """Remove heads before the attention output layer, and neurons before the feed-forward output layer.

    Layers whose inputs stay whole are re-solved without a zero.
    """

    options: AdaptiveConfig
    widths: Sequence[Widths]
    head_size: int
    seed: int

    def solve(self, group: LinearGroup, moments: Moments) -> Solution:
        problem = linear_problem(group.names[0], group.weight, group.bias, moments, self.options)
        size = removable_size(group, self.head_size)
        if size is None:
            return replace(_split(group, problem, problem.target, None), masks=[])
        groups = problem.target.shape[1] // size
        kept = self.widths[group.index][size == 1]
        order = removal_order(problem.target, problem.hessian, size, groups - kept)
        level = narrowed(problem.target, problem.hessian, size, order)
        solution = _split(group, problem, level.whole, level.effective.expand_as(level.whole))
        weights = [weight[:, level.stays] for weight in solution.weights]
        return replace(solution, weights=weights, masks=[], removed=level.removed)

    def apply(self, classifier: Classifier, group: LinearGroup, solution: Solution) -> None:
        remove_inputs(classifier.model, group, solution.removed)
        set_linears(classifier, group, solution)


def removable_size(group: LinearGroup, head_size: int) -> int | None:
    """Return how many input columns of a group go together: a head's, or a neuron's; None where none go."""
    if group.first == group.layout.linears.attention_output:
        return head_size
    return 1 if group.first == group.layout.linears.neurons_out else None


def remove_inputs(model: PreTrainedModel, group: LinearGroup, removed: Sequence[int]) -> None:
    """Take heads, or neurons, out of the encoder layer whose outputs a group takes in."""
    if removed and group.first == group.layout.linears.neurons_out:
        remove_neurons(model, group.index, removed)
    elif removed:
        remove_heads(model, group.index, removed)


@dataclass(frozen=True)
class NarrowedWeight:
    """A stacked weight whose inputs are partly removed.

    Attributes:
        whole: `(out, in)`, zero in the columns without effect.
        effective: `(in,)` bool, the columns that have one.
        stays: `(in,)` bool, the columns of a model that is cut. A layer has one head and one neuron at
            least: where all go, the last one stays, without effect.
        removed: heads or neurons that are cut out, ascending.
    """

    whole: Tensor
    effective: Tensor
    stays: Tensor
    removed: list[int]


def narrowed(target: Tensor, hessian: Tensor, size: int, order: Sequence[int]) -> NarrowedWeight:
    """Return the least squares without some groups of inputs.

    Args:
        target: `(out, in)`.
        hessian: `(in, in)`, positive definite.
        size: columns of a group.
        order: groups to remove, in the order in which they go.
    """
    width = target.shape[1]
    effective = kept_columns(width, size, order)
    removed = sorted(order[: width // size - 1])
    whole = torch.zeros_like(target)
    whole[:, effective] = weight_on(target, hessian, effective)
    return NarrowedWeight(whole, effective.to(target.device), kept_columns(width, size, removed), removed)


def _split(group: LinearGroup, problem: LinearProblem, solved: Tensor, mask: Tensor | None) -> Solution:
    """A stacked solution as one for each layer of the group."""
    mask = torch.ones_like(solved, dtype=torch.bool) if mask is None else mask
    weights, masks, targets = (group.split(tensor) for tensor in (solved, mask, problem.target))
    bias = problem.bias(solved)
    biases = () if bias is None else group.split(bias)
    dtype = group.linears[0].weight.dtype
    records = [
        LayerRecord(
            name,
            sparsity=1.0 - float(part_mask.double().mean()),
            relative_error=reconstruction_error(part, target, problem.hessian),
            ridge=problem.ridge,
        )
        for name, part, part_mask, target in zip(group.names, weights, masks, targets, strict=True)
    ]
    return Solution([w.to(dtype) for w in weights], [b.to(dtype) for b in biases], list(masks), records)


def resolve_heads(classifier: Classifier, walk: SideBySide, damping: float) -> None:
    """Re-solve pooler and classifier (eq. 5) for what the pruned encoder gives them of each text."""
    layout = classifier.layout
    dense_input, pruned_input = walk.head_inputs()
    for dense, own in zip(layout.head(walk.dense), layout.head(classifier.model), strict=True):
        _resolve(own.name, own.linear, dense_input, pruned_input, damping)
        dense_input, pruned_input = dense.output(dense_input), own.output(pruned_input)


def _resolve(name: str, linear: nn.Linear, dense_input: Tensor, pruned_input: Tensor, damping: float) -> None:
    moments = Moments.zeros(linear.in_features, linear.weight.device)
    moments.add(dense_input, pruned_input)
    options = AdaptiveConfig(damping=damping)
    bias = None if linear.bias is None else linear.bias.double()
    problem = linear_problem(name, linear.weight.double(), bias, moments, options)
    linear.weight.copy_(problem.target)
    solved = problem.bias(problem.target)
    if solved is not None:
        linear.bias.copy_(solved)
