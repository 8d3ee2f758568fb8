"""Pruning by scores: a function says how much each weight matters, and the pattern drops the lowest.

Neither biases nor the weights that stay are changed. A layer is scored from the inputs that the already
pruned part of the model feeds it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.data.texts import TextData
from compressor.models.classifier import Classifier, encoder_linears
from compressor.options import Scope, Section
from compressor.pruning.interface import Algorithm, PruningJob, PruningResult
from compressor.pruning.layerwise import GroupSolver, LinearGroup, Solution, prune_layerwise
from compressor.pruning.record import LayerRecord
from compressor.pruning.solvers.solvers import reconstruction_error
from compressor.pruning.walk import Moments
from compressor.system.console import Progress
from compressor.training.loop import apply_masks


@dataclass(frozen=True)
class Inputs:
    """What is known of the inputs of a linear layer: sums over the tokens of the calibration texts.

    Attributes:
        square: `X^T X`, `(in, in)` float64.
        tokens: number of rows of `X`.
    """

    square: Tensor
    tokens: int

    @property
    def norms(self) -> Tensor:
        """Euclidean norm of each input feature over all tokens, `(in,)` float64."""
        return self.square.diagonal().sqrt()


@dataclass(frozen=True)
class InputScores(Algorithm):
    """Pruning by a function of a weight and of the inputs that it is multiplied with.

    Attributes:
        score: is given a weight `(out, in)` float64, its inputs, and the algorithm's options by name; returns
            the scores, of the weight's shape. Higher ones stay.
        scope: where unstructured weights are ranked, if the recipe does not say.
        options: section of the algorithm's own options.
    """

    score: Callable[..., Tensor]
    scope: Scope = "row"
    options: type[Section] = Section

    def prune(
        self, classifier: Classifier, data: TextData, job: PruningJob, progress: Progress
    ) -> PruningResult:
        pattern = job.mask_pattern

        def solve(name: str, weight: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
            scores = self.score(weight, inputs, **job.config.algorithm_options)
            mask = pattern.mask(_checked(scores, weight, name, job), scope=self.scope)
            return weight * mask, mask

        return prune_from_inputs(classifier, data, job, progress, solve)


@dataclass(frozen=True)
class WeightScores(Algorithm):
    """Pruning by a function of a weight alone; no text is read.

    Attributes:
        score: as of `InputScores`, without inputs; the weight has the model's own dtype.
        scope: where unstructured weights are ranked, if the recipe does not say.
        options: section of the algorithm's own options.
    """

    score: Callable[..., Tensor]
    scope: Scope = "row"
    options: type[Section] = Section

    @torch.no_grad()
    def prune(
        self, classifier: Classifier, data: TextData, job: PruningJob, progress: Progress
    ) -> PruningResult:
        del data
        masks, records = {}, []
        linears = encoder_linears(classifier.model)
        for name, linear in progress.track(linears.items(), f"Pruning by {job.config.algorithm}"):
            scores = self.score(linear.weight, **job.config.algorithm_options)
            checked = _checked(scores, linear.weight, name, job)
            masks[name] = job.mask_pattern.mask(checked, scope=self.scope)
            records.append(LayerRecord(name, 1.0 - float(masks[name].double().mean())))
        apply_masks(classifier.model, masks)
        return PruningResult(masks, records)


def _checked(scores: Tensor, weight: Tensor, name: str, job: PruningJob) -> Tensor:
    """Scores, one of each weight; a `RuntimeError` if they are not."""
    if scores.shape != weight.shape:
        shapes = f"of shape {tuple(scores.shape)}, and the weight is of {tuple(weight.shape)}"
        raise RuntimeError(f"{job.config.algorithm}: the scores of {name} are {shapes}")
    if scores.isnan().any():
        raise RuntimeError(f"{job.config.algorithm}: the scores of {name} hold NaN")
    return scores


@dataclass(frozen=True)
class _FromInputs(GroupSolver):
    """Solves each layer on its own by a function of its name, weight, float64, and inputs; biases stay."""

    solve_weight: Callable[[str, Tensor, Inputs], tuple[Tensor, Tensor]]

    def solve(self, group: LinearGroup, moments: Moments) -> Solution:
        weights, masks, records = [], [], []
        inputs = Inputs(moments.square, moments.count)
        for name, linear in zip(group.names, group.linears, strict=True):
            weight = linear.weight.double()
            pruned, mask = self.solve_weight(name, weight, inputs)
            error_share = reconstruction_error(pruned, weight, moments.square)
            weights.append(pruned.to(linear.weight.dtype))
            masks.append(mask)
            records.append(LayerRecord(name, 1.0 - float(mask.double().mean()), error_share))
        return Solution(weights, [bias.clone() for bias in group.biases], masks, records)


def prune_from_inputs(
    classifier: Classifier,
    data: TextData,
    job: PruningJob,
    progress: Progress,
    solve_weight: Callable[[str, Tensor, Inputs], tuple[Tensor, Tensor]],
) -> PruningResult:
    """Prune each linear layer from the inputs that the already pruned part of the model feeds it.

    Args:
        solve_weight: is given the layer's name, its weight `(out, in)` float64 and its inputs; returns the
            pruned weight and its mask, bool, both of that shape.
    """
    found = prune_layerwise(classifier, data, job, _FromInputs(solve_weight), progress, dense=None)
    return PruningResult(found.masks, found.records, {"calibration_examples": found.examples})
