"""Combine the two algorithms: re-solve weights on masks that are given, or drawn around algorithm 1's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compressor.data.texts import TextData
from compressor.models.classifier import Classifier
from compressor.pruning.adaptive.allocation import uniform_patterns
from compressor.pruning.adaptive.group_solvers import LinearProblem, MaskChoice, MaskSolver, resolve_heads
from compressor.pruning.interface import PruningJob
from compressor.pruning.layerwise import LinearGroup, prune_layerwise
from compressor.pruning.patterns import MaskPattern
from compressor.pruning.solvers.supports import least_squares, saliencies
from compressor.system.checkpoint import NoCheckpoint
from compressor.system.console import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def rectify(
    classifier: Classifier,
    dense: PreTrainedModel,
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

    def given(group: LinearGroup, problem: LinearProblem) -> tuple[Tensor, Tensor]:
        mask = torch.cat([masks[name] for name in group.names])
        return least_squares(problem.target, problem.hessian, mask), mask

    _solve_on(classifier, dense, given, data, job, progress)


@torch.no_grad()
def redraw(
    classifier: Classifier,
    dense: PreTrainedModel,
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

    def drawn(group: LinearGroup, problem: LinearProblem) -> tuple[Tensor, Tensor]:
        target, hessian = problem.target, problem.hessian
        pruned, mask = problem.solved(patterns[group.names], options)
        chosen = draw(saliencies(target, hessian, pruned, mask), patterns[group.names])
        return (pruned if torch.equal(chosen, mask) else least_squares(target, hessian, chosen)), chosen

    return _solve_on(classifier, dense, drawn, data, job, progress)


def _solve_on(
    classifier: Classifier,
    dense: PreTrainedModel,
    choose: MaskChoice,
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
    found = prune_layerwise(classifier, data, unkept, MaskSolver(options, choose), progress, dense=dense)
    if options.resolve_heads:
        resolve_heads(classifier, found.walk, options.damping)
    return found.masks
