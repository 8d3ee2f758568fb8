"""The adaptive walk: each sparse layer reproduces the dense model's output from drifted inputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from compressor.adaptive.allocation import allocate
from compressor.adaptive.distillation import TOKENS as DISTILLATION_TOKENS
from compressor.adaptive.distillation import distill
from compressor.adaptive.reconstruction import reconstruct_block
from compressor.adaptive.solvers import adapted_weight, reconstruction_error, solve
from compressor.adaptive.structured import remove_columns
from compressor.adaptive.supports import least_squares, saliencies
from compressor.calibration import Moments, SideBySide
from compressor.checkpoint import NoCheckpoint
from compressor.classifier import Classifier
from compressor.console import Progress
from compressor.data import TextData
from compressor.errors import UserError
from compressor.layerwise import (
    GroupSolver,
    LinearGroup,
    Solution,
    block_prefix,
    calibration_texts,
    damped_hessian,
    group_names,
    prune_layerwise,
    set_linears,
)
from compressor.options import AdaptiveConfig
from compressor.patterns import MaskPattern, Structured, Unstructured
from compressor.pruning import LayerRecord, PruningJob, PruningResult
from compressor.structure import head_size, remove_heads, remove_neurons, set_intermediate_size

if TYPE_CHECKING:
    from transformers import BertForSequenceClassification


@torch.no_grad()
def prune(classifier: Classifier, data: TextData, job: PruningJob, progress: Progress) -> PruningResult:
    """Prune layer by layer (Li et al., EMNLP 2023, algorithms 1 and 2); no training.

    For each linear layer in the order in which data flows: adaptive Hessian from the inputs that
    the pruned part feeds it (4.3.2), the adapted dense weight (4.3.3, eq. 5) and its bias, and the
    elimination. Pooler and classifier are re-solved for their drifted inputs at the end.
    """
    options = job.config.adaptive
    if options.allocation == "error" and not isinstance(job.pattern, Unstructured):
        raise UserError(
            f"allocation error: pattern {job.pattern} has the same sparsity everywhere; "
            f"use --allocation uniform, or --pattern unstructured"
        )
    details: dict[str, object] = {}
    patterns: dict[tuple[str, ...], MaskPattern] = {}
    solver: GroupSolver
    if isinstance(job.pattern, Structured):
        solver = _StructuredSolver(options, job.pattern, head_size(classifier.model), job.seed)
    else:
        patterns = _group_patterns(classifier, data, job, progress)
        details["sparsities"] = {names[0]: pattern.sparsity for names, pattern in patterns.items()}
        solver = _SparseSolver(options, patterns, job.seed)
    dense = copy.deepcopy(classifier.model)
    found = prune_layerwise(
        classifier, data, job, solver, progress, dense=dense, drifted=options.adaptive_hessian
    )
    if isinstance(job.pattern, Structured):
        set_intermediate_size(classifier.model)
    if options.resolve_heads:
        _resolve_heads(classifier, found.walk, options.damping)
    if options.distillation_steps:
        distill(
            classifier,
            dense,
            calibration_texts(classifier, data, job, max(DISTILLATION_TOKENS, options.calibration_tokens)),
            found.masks,
            steps=options.distillation_steps,
            learning_rate=options.distillation_rate,
            seed=job.seed,
            track=lambda steps: progress.track(steps, "Distilling the whole model"),
        )
    details["calibration_examples"] = found.examples
    return PruningResult(found.masks, found.records, details, patterns)


@torch.no_grad()
def rectify(
    classifier: Classifier,
    dense: BertForSequenceClassification,
    masks: Mapping[str, Tensor],
    data: TextData,
    job: PruningJob,
    progress: Progress,
) -> None:
    """Give `classifier` the weights on `masks` that best reproduce the dense model's outputs (eq. 5).

    What its linear layers held before is lost: they are solved from the dense weights again.

    Args:
        masks: of every encoder matrix, `(out, in)` bool, True where a weight may be non-zero.

    Raises:
        UserError: a layer cannot be solved.
    """

    def given(group: LinearGroup, problem: _Problem) -> tuple[Tensor, Tensor]:
        mask = torch.cat([masks[name] for name in group.names])
        return least_squares(problem.target, problem.hessian, mask), mask

    _solve_on(classifier, dense, given, data, job, progress)


@torch.no_grad()
def redraw(
    classifier: Classifier,
    dense: BertForSequenceClassification,
    pattern: MaskPattern,
    draw: Callable[[Tensor, MaskPattern], Tensor],
    data: TextData,
    job: PruningJob,
    progress: Progress,
) -> dict[str, Tensor]:
    """Give `classifier` masks drawn around those of algorithm 1, and its weights on them; return the masks.

    What its linear layers held before is lost: they are solved from the dense weights again.

    Args:
        pattern: that the masks meet, in place of the job's.
        draw: a mask of a pattern from saliencies `(out, in)`; what the solver keeps has the highest.

    Raises:
        UserError: a layer cannot be solved.
    """
    options = job.config.adaptive
    patterns = uniform_patterns(classifier, pattern)

    def drawn(group: LinearGroup, problem: _Problem) -> tuple[Tensor, Tensor]:
        target, hessian = problem.target, problem.hessian
        pruned, mask = problem.solved(patterns[group.names], options)
        chosen = draw(saliencies(target, hessian, pruned, mask), patterns[group.names])
        return (pruned if torch.equal(chosen, mask) else least_squares(target, hessian, chosen)), chosen

    return _solve_on(classifier, dense, drawn, data, job, progress)


def _solve_on(
    classifier: Classifier,
    dense: BertForSequenceClassification,
    choose: _Choice,
    data: TextData,
    job: PruningJob,
    progress: Progress,
) -> dict[str, Tensor]:
    """Walk along the dense model, re-solve what the chosen masks keep, and return the masks by name.

    Embeddings and norms stay as they are: their drift is one of those that the walk makes up for.
    """
    options = job.config.adaptive
    for own, other in zip(classifier.model.modules(), dense.modules(), strict=True):
        if isinstance(own, nn.Linear):
            own.load_state_dict(other.state_dict())
    unkept = replace(job, checkpoint=NoCheckpoint())
    found = prune_layerwise(classifier, data, unkept, _MaskSolver(options, choose), progress, dense=dense)
    if options.resolve_heads:
        _resolve_heads(classifier, found.walk, options.damping)
    return found.masks


def _group_patterns(
    classifier: Classifier, data: TextData, job: PruningJob, progress: Progress
) -> dict[tuple[str, ...], MaskPattern]:
    """The pattern of each group of layers that share their input; they share their zeros as well."""
    pattern = job.mask_pattern
    if isinstance(pattern, Unstructured) and job.config.adaptive.allocation == "error":
        return allocate(classifier, data, job, _scoped(pattern), progress)
    return uniform_patterns(classifier, pattern)


def uniform_patterns(classifier: Classifier, pattern: MaskPattern) -> dict[tuple[str, ...], MaskPattern]:
    """The same pattern for each group of layers that share their input; they share their zeros as well."""
    own = _scoped(pattern) if isinstance(pattern, Unstructured) else pattern
    layers = len(classifier.model.bert.encoder.layer)
    return {names: own for index in range(layers) for names in group_names(index)}


def _scoped(pattern: Unstructured) -> Unstructured:
    # Ranking a layer as a whole loses less output than ranking each of its rows, and more so the
    # sparser it is.
    return replace(pattern, scope=pattern.scope or "layer")


@dataclass(frozen=True)
class _Problem:
    """A layer-wise problem, float64: the target weight, its Hessian and ridge, and the means for the bias."""

    target: Tensor
    hessian: Tensor
    ridge: float
    output_mean: Tensor
    input_mean: Tensor

    def solved(self, pattern: MaskPattern, options: AdaptiveConfig) -> tuple[Tensor, Tensor]:
        """Weight and mask as the solver of the options finds them."""
        return solve(self.target, self.hessian, pattern, options.solver, options.iterations)

    def bias(self, solved: Tensor) -> Tensor:
        """The bias that keeps the mean of the output."""
        return self.output_mean - solved @ self.input_mean


def _problem(name: str, weight: Tensor, bias: Tensor, moments: Moments, options: AdaptiveConfig) -> _Problem:
    """What a linear layer is to reproduce, and from which inputs (4.3.2, 4.3.3).

    Raises:
        UserError: the Hessian cannot be made positive definite.
    """
    hessian, ridge = damped_hessian(name, moments.hessian, options.damping)
    if not options.resolve_weight:
        output_mean = weight @ moments.pruned_mean + bias
        return _Problem(weight, hessian, ridge, output_mean, moments.pruned_mean)
    target = adapted_weight(weight, hessian, moments.centred_cross, ridge)
    return _Problem(target, hessian, ridge, weight @ moments.dense_mean + bias, moments.pruned_mean)


# Weight and mask `(out, in)` of a group's stacked layers.
_Choice: TypeAlias = Callable[[LinearGroup, _Problem], tuple[Tensor, Tensor]]


class _AdaptiveSolver(GroupSolver, Protocol):
    """What both kinds of pattern share: the tuning of a whole encoder layer."""

    options: AdaptiveConfig
    seed: int

    def refine(self, walk: SideBySide, index: int, masks: Mapping[str, Tensor]) -> bool:
        if not self.options.reconstruction_passes:
            return False
        prefix = block_prefix(index)
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
class _SparseSolver(_AdaptiveSolver):
    """Zeroes weights of a group; stacked, its layers share one factorisation and their zeros."""

    options: AdaptiveConfig
    patterns: dict[tuple[str, ...], MaskPattern]
    seed: int

    def solve(self, group: LinearGroup, moments: Moments) -> Solution:
        problem = _problem(group.names[0], group.weight, group.bias, moments, self.options)
        pruned, mask = problem.solved(self.patterns[group.names], self.options)
        return _split(group, problem, pruned, mask)

    def apply(self, classifier: Classifier, group: LinearGroup, solution: Solution) -> None:
        set_linears(classifier, group, solution)


@dataclass(frozen=True)
class _MaskSolver(GroupSolver):
    """Re-solves what a mask keeps, which is given or drawn."""

    options: AdaptiveConfig
    choose: _Choice

    def solve(self, group: LinearGroup, moments: Moments) -> Solution:
        problem = _problem(group.names[0], group.weight, group.bias, moments, self.options)
        solved, mask = self.choose(group, problem)
        return _split(group, problem, solved, mask)

    def apply(self, classifier: Classifier, group: LinearGroup, solution: Solution) -> None:
        set_linears(classifier, group, solution)


@dataclass(frozen=True)
class _StructuredSolver(_AdaptiveSolver):
    """Removes heads in front of the attention's output layer, and neurons in front of the other one.

    Layers whose inputs stay whole are re-solved without a zero.
    """

    options: AdaptiveConfig
    pattern: Structured
    head_size: int
    seed: int

    def solve(self, group: LinearGroup, moments: Moments) -> Solution:
        problem = _problem(group.names[0], group.weight, group.bias, moments, self.options)
        size = self._removable_size(group)
        if size is None:
            return replace(_split(group, problem, problem.target, None), masks=[])
        count = self.pattern.removed_count(problem.target.shape[1] // size)
        pruned, removed = remove_columns(problem.target, problem.hessian, size, count)
        kept = _kept_columns(problem.target.shape[1], size, removed)
        whole = torch.zeros_like(problem.target)
        whole[:, kept] = pruned
        solution = _split(group, problem, whole, kept.to(whole.device).expand_as(whole))
        return replace(solution, weights=[w[:, kept] for w in solution.weights], masks=[], removed=removed)

    def _removable_size(self, group: LinearGroup) -> int | None:
        """Columns that go together in front of a group, or None where nothing goes."""
        if group.names[0].endswith("attention.output.dense"):
            return self.head_size
        return 1 if group.names[0].endswith("output.dense") else None

    def apply(self, classifier: Classifier, group: LinearGroup, solution: Solution) -> None:
        if solution.removed and self._removable_size(group) == 1:
            remove_neurons(classifier.model, group.index, solution.removed)
        elif solution.removed:
            remove_heads(classifier.model, group.index, solution.removed)
        set_linears(classifier, group, solution)


def _kept_columns(in_features: int, size: int, removed: list[int]) -> Tensor:
    kept = torch.ones(in_features // size, dtype=torch.bool)
    kept[removed] = False
    return kept.repeat_interleave(size)


def _split(group: LinearGroup, problem: _Problem, solved: Tensor, mask: Tensor | None) -> Solution:
    """A stacked solution as one for each layer of the group."""
    mask = torch.ones_like(solved, dtype=torch.bool) if mask is None else mask
    weights, biases, masks, targets = (
        group.split(tensor) for tensor in (solved, problem.bias(solved), mask, problem.target)
    )
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


def _resolve_heads(classifier: Classifier, walk: SideBySide, damping: float) -> None:
    """Re-solve pooler and classifier (eq. 5) for the [CLS] states that the pruned encoder yields."""
    dense, model = walk.dense, classifier.model
    dense_input, pruned_input = walk.first_tokens()
    _resolve("bert.pooler.dense", model.bert.pooler.dense, dense_input, pruned_input, damping)
    dense_input = dense.bert.pooler.activation(dense.bert.pooler.dense(dense_input))
    pruned_input = model.bert.pooler.activation(model.bert.pooler.dense(pruned_input))
    _resolve("classifier", model.classifier, dense_input, pruned_input, damping)


def _resolve(name: str, linear: nn.Linear, dense_input: Tensor, pruned_input: Tensor, damping: float) -> None:
    moments = Moments.zeros(linear.in_features, linear.weight.device)
    moments.add(dense_input, pruned_input)
    options = AdaptiveConfig(damping=damping)
    problem = _problem(name, linear.weight.double(), linear.bias.double(), moments, options)
    linear.weight.copy_(problem.target)
    linear.bias.copy_(problem.bias(problem.target))
