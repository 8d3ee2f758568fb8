"""Choose each encoder layer's heads and neurons for a latency.

Each block, attention or feed-forward, gets an error curve: alone in the dense model with fewer heads or
neurons, re-solved, how far does it move the last hidden states of [CLS], from which the classes are read? The
widths that minimize the sum of these errors within the latency are found exactly, over the widths of a
latency table (a knapsack, as in ZipLM, Kurtic, Frantar & Alistarh, NeurIPS 2023). Errors do not quite add up,
so the curves are then varied at random, and of the allocations that this gives the one whose stitched model
is nearest to the dense model's answers goes on (as in SPDY, Frantar & Alistarh, ICML 2022).

Errors and answers are those on texts that no block was solved with.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.data.texts import TextData
from compressor.errors import UserError
from compressor.models.batching import Encoded, encode
from compressor.models.classifier import Classifier
from compressor.models.latency_table import BlockTimes, LatencyTable, Widths
from compressor.models.predictors import TorchPredictor, predict_encoded
from compressor.models.structure import head_size, linear_at
from compressor.options import AdaptiveConfig
from compressor.pruning.adaptive.allocation import replaced
from compressor.pruning.adaptive.group_solvers import narrowed, removable_size, remove_inputs
from compressor.pruning.interface import PruningJob
from compressor.pruning.layerwise import (
    CALIBRATION_BATCH_SIZE,
    LinearGroup,
    damped_hessian,
    group_steps,
    start_walk,
    walk_over,
)
from compressor.pruning.solvers.structured import removal_order
from compressor.pruning.walk import SideBySide
from compressor.system.console import Progress
from compressor.training.losses import answer_divergence

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Widths of a block at which its error is measured; between them its logarithm is interpolated.
MEASURED_WIDTHS = 6
# Held-out texts on which errors are measured, and on which allocations are compared, at most.
MEASURED_TEXTS, TRIED_TEXTS = 128, 256
# Parts in which the knapsack counts the time that blocks may take.
TIME_UNITS = 8192
# Standard deviation of the logarithm of what an error curve is multiplied with.
VARIATION = 0.4
TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Level:
    """A block's output layer at one width.

    Attributes:
        removed: heads or neurons that are cut out.
        weight: `(out, columns that stay)`, in the model's dtype.
        bias: `(out,)`; None where the layer has none.
    """

    removed: list[int]
    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class Block:
    """The attention or the feed-forward block of an encoder layer, at each width of the latency table.

    Attributes:
        index: of the encoder layer.
        names: of the linear layers that take in its heads or neurons.
        times: of such a block, by the latency table.
        levels: one for each width, from none to all.
        errors: `(widths,)` float64, of the last [CLS] states, relative to their squares.
    """

    index: int
    names: tuple[str, ...]
    times: BlockTimes
    levels: list[Level]
    errors: NDArray[np.float64]


@dataclass(frozen=True)
class Allocation:
    """The widths of each encoder layer, and how they were found.

    Attributes:
        widths: of each encoder layer.
        predicted_ms: at each shape of the table.
        speedup: that the table predicts, over the dense model in PyTorch.
        divergence: mean KL divergence of the stitched model from the dense model's answers, in nats.
        first_divergence: that of the allocation by the measured curves.
        trials: allocations that were compared.
    """

    widths: list[Widths]
    predicted_ms: list[float]
    speedup: float
    divergence: float
    first_divergence: float
    trials: int

    def details(self) -> dict[str, Any]:
        """Return the facts for the record, ready for JSON."""
        return {
            "widths": [widths._asdict() for widths in self.widths],
            "predicted_ms": [round(ms, 4) for ms in self.predicted_ms],
            "predicted_speedup": round(self.speedup, 3),
            "allocation": {
                "trials": self.trials,
                "divergence_before": self.first_divergence,
                "divergence": self.divergence,
            },
        }


@torch.no_grad()
def allocate_widths(
    classifier: Classifier,
    data: TextData,
    held_out: TextData,
    job: PruningJob,
    table: LatencyTable,
    progress: Progress,
) -> Allocation:
    """Return the widths of least error whose predicted latency meets the job's goal.

    Args:
        data: texts that blocks are solved with.
        held_out: other ones, on which errors and allocations are measured.

    Raises:
        UserError: the table is of another shape than the model, or no width meets the goal.
    """
    options = job.config.adaptive
    check_table(classifier, table, options)
    # Whatever the latency is to be, blocks have the same errors.
    no_goal = options.model_copy(update={"speedup": None, "latency_budget_ms": None})
    facts = {
        "options": job.config.model_copy(update={"adaptive": no_goal}).model_dump(),
        "seed": job.seed,
        "max_length": job.max_length,
        "table": table.model_dump(),
    }
    encoded = encode(classifier.tokenizer, held_out, job.max_length)
    judges = encoded[:MEASURED_TEXTS]
    blocks = job.shared.of(
        "blocks", facts, lambda: measure_blocks(classifier, data, judges, job, table, progress)
    )
    costs = [block.errors for block in blocks]
    goal = _goal(table, options)
    times = [np.array([goal.cost(ms) for ms in block.times.ms]) for block in blocks]
    search = _Search(classifier, blocks, encoded[:TRIED_TEXTS])
    budget = goal.limit - goal.cost(table.rest_ms)
    generator = np.random.default_rng(job.seed)
    chosen = cheapest_within(costs, times, budget)
    first = lowest = search.divergence(chosen)
    factors, seen = np.zeros(len(blocks)), {tuple(chosen)}
    for _ in progress.track(range(options.allocation_trials), "Varying the widths"):
        varied = factors + generator.normal(0.0, VARIATION, len(blocks))
        scaled = [cost * factor for cost, factor in zip(costs, np.exp(varied), strict=True)]
        trial = cheapest_within(scaled, times, budget)
        if tuple(trial) in seen:
            continue
        seen.add(tuple(trial))
        found = search.divergence(trial, lowest)
        if found < lowest:
            chosen, lowest, factors = trial, found, varied
    widths = _widths(blocks, chosen)
    ms = table.predicted_ms(widths)
    return Allocation(widths, ms.tolist(), table.speedup(ms), lowest, first, len(seen))


def check_table(classifier: Classifier, table: LatencyTable, options: AdaptiveConfig) -> None:
    """Raise a `UserError` if a table is of another shape than a model, or no widths meet the goal."""
    model, layout = classifier.model, classifier.layout
    blocks = layout.blocks(model)
    own = {
        "layers": len(blocks),
        "heads": max(layout.head_count(block) for block in blocks),
        "neurons": max(linear_at(block, layout.linears.neurons_out).in_features for block in blocks),
        "hidden_size": model.config.hidden_size,
        "head_size": head_size(model),
    }
    wrong = [
        f"{key} {getattr(table, key)} and not {value}"
        for key, value in own.items()
        if getattr(table, key) != value
    ]
    if wrong:
        raise UserError(
            f"{options.latency_table}: was measured for another shape of model: {', '.join(wrong)}; measure "
            f"one with: compress latency-table {classifier.source}"
        )
    goal = _goal(table, options)
    if goal.cost(table.rest_ms) > goal.limit:
        empty = table.predicted_ms([])
        raise UserError(
            f"{goal.name}: even without any head and neuron the model is predicted to be "
            f"{table.speedup(empty):.1f} times as fast as dense PyTorch ({table.weights @ empty:.3g} ms); "
            f"ask for less, or measure a table of a faster runtime or precision"
        )


@dataclass(frozen=True)
class _Goal:
    """A limit on a weighted sum of the times at each shape.

    Attributes:
        name: the option and its value, for errors.
        limit: of the sum.
        shares: `(shapes,)`, the weight of each shape's milliseconds.
    """

    name: str
    limit: float
    shares: NDArray[np.float64]

    def cost(self, ms: Sequence[float]) -> float:
        return float(self.shares @ np.array(ms))


def _goal(table: LatencyTable, options: AdaptiveConfig) -> _Goal:
    """The limit of the options: a share of dense PyTorch's time, or mean milliseconds."""
    if options.speedup is not None:
        shares = table.weights / np.array(table.reference_ms)
        return _Goal(f"speedup {options.speedup:g}", 1.0 / options.speedup, shares)
    most = options.latency_budget_ms or 0.0
    return _Goal(f"latency_budget_ms {most:g}", most, table.weights)


def _widths(blocks: Sequence[Block], chosen: Sequence[int]) -> list[Widths]:
    """The widths of each encoder layer; blocks are in the order of data flow, attention first."""
    own = [block.times.widths[place] for block, place in zip(blocks, chosen, strict=True)]
    return [Widths(heads, neurons) for heads, neurons in zip(own[::2], own[1::2], strict=True)]


def cheapest_within(
    costs: Sequence[NDArray[np.float64]], times: Sequence[NDArray[np.float64]], budget: float
) -> list[int]:
    """Choose one level for each block: minimum total cost within a budget of time.

    A multiple-choice knapsack by dynamic programming, exact up to the unit in which times are counted; each
    is rounded up, so the budget is never exceeded.

    Args:
        costs: for each block the cost of each level, `(levels,)`.
        times: for each block the time of each level, `(levels,)`; the first is 0.
        budget: at least 0, in the unit of the times.

    Returns:
        The level of each block.
    """
    counts = [_units(time, budget) for time in times]
    best = np.zeros(TIME_UNITS + 1)
    choices = []
    for cost, count in zip(costs, counts, strict=True):
        totals = np.full((len(cost), len(best)), np.inf)
        for level, taken in enumerate(count):
            if taken < len(best):
                totals[level, taken:] = best[: len(best) - taken] + cost[level]
        choices.append(totals.argmin(axis=0))
        best = totals.min(axis=0)
    left, chosen = TIME_UNITS, []
    for count, choice in zip(reversed(counts), reversed(choices), strict=True):
        chosen.append(int(choice[left]))
        left -= count[chosen[-1]]
    return chosen[::-1]


def _units(times: NDArray[np.float64], budget: float) -> list[int]:
    """Times in parts of the budget, rounded up, but for what the rounding of a division added."""
    return [
        0 if time <= 0 else TIME_UNITS + 1 if time > budget else math.ceil(time / budget * TIME_UNITS - 1e-9)
        for time in times.tolist()
    ]


def measure_blocks(
    classifier: Classifier,
    data: TextData,
    judges: Sequence[Encoded],
    job: PruningJob,
    table: LatencyTable,
    progress: Progress,
) -> list[Block]:
    """Return every block with its levels and its measured errors, in the order of data flow.

    Args:
        data: texts that blocks are solved with.
        judges: other ones, on which their errors are measured.
    """
    walk, _ = start_walk(classifier, data, job, dense=None)
    judging = walk_over(classifier, judges, dense=None)
    blocks = []
    for index, names in progress.track(group_steps(classifier), "Measuring widths"):
        group = LinearGroup.of(classifier, index, names)
        size = removable_size(group, head_size(classifier.model))
        if size is not None:
            own = table.feed_forward if size == 1 else table.attention
            blocks.append(_measured(walk, judging, group, size, own, job))
        if group.is_last:
            walk.advance()
            judging.advance()
    return blocks


def _measured(
    walk: SideBySide,
    judging: SideBySide,
    group: LinearGroup,
    size: int,
    times: BlockTimes,
    job: PruningJob,
) -> Block:
    """Solve a block at each width, and measure the error of some of them in the dense model.

    Args:
        size: columns of a head or neuron.
        judging: over the texts that errors are measured on.
    """
    widths = times.widths
    moments = walk.moments(group.first)
    hessian = moments.hessian_of(has_bias=group.bias is not None)
    hessian, _ = damped_hessian(group.names[0], hessian, job.config.adaptive.damping, moments.mean_square)
    order = removal_order(group.weight, hessian, size, widths[-1])
    whole = judging.last_head_inputs()
    places = np.unique(np.linspace(0, len(widths) - 2, MEASURED_WIDTHS).round().astype(int)).tolist()
    levels, errors, dtype = [], [], group.linears[0].weight.dtype
    for place, width in enumerate(widths):
        own = narrowed(group.weight, hessian, size, order[: widths[-1] - width])
        bias = group.moved_bias(own.whole, moments)
        weight = own.whole[:, own.stays].to(dtype)
        levels.append(Level(own.removed, weight, None if bias is None else bias.to(dtype)))
        if place in places:
            with replaced(group, own.whole, bias):
                change = judging.last_head_inputs() - whole
            errors.append(float(change.square().sum() / whole.square().sum()))
    return Block(group.index, group.names, times, levels, _curve(errors, places, len(widths)))


def _curve(errors: Sequence[float], places: Sequence[int], count: int) -> NDArray[np.float64]:
    """The error at each of `count` levels from those at `places`: logarithms interpolated, the last one 0."""
    # A wider block is no worse; what says so is noise.
    falling = np.maximum.accumulate(np.maximum(errors, TINY)[::-1])[::-1]
    curve = np.exp(np.interp(np.arange(count), places, np.log(falling)))
    curve[-1] = 0.0
    return curve


class _Search:
    """Compares allocations by the answers of a model that is stitched of their levels."""

    def __init__(self, classifier: Classifier, blocks: Sequence[Block], texts: Sequence[Encoded]) -> None:
        self._classifier, self._blocks, self._texts = classifier, blocks, texts
        self._expected = self._logits(classifier.model, texts)

    def divergence(self, chosen: Sequence[int], most: float = math.inf) -> float:
        """Mean divergence of an allocation's answers from the dense model's; infinity if it is above `most`.

        Divergences are not below 0, so an allocation is dropped as soon as the sum over some texts says that
        the mean over all is above: no other one is chosen for it.
        """
        model = self._stitched(chosen)
        total, texts = 0.0, self._texts
        for start in range(0, len(texts), CALIBRATION_BATCH_SIZE):
            part = slice(start, start + CALIBRATION_BATCH_SIZE)
            expected, found = self._expected[part], self._logits(model, texts[part])
            total += float(answer_divergence(expected, found)) * len(found)
            if total > most * len(texts):
                return math.inf
        return total / len(texts)

    def _logits(self, model: PreTrainedModel, texts: Sequence[Encoded]) -> Tensor:
        predictor = TorchPredictor(replace(self._classifier, model=model))
        return torch.from_numpy(predict_encoded(predictor, texts, CALIBRATION_BATCH_SIZE))

    def _stitched(self, chosen: Sequence[int]) -> PreTrainedModel:
        """A copy of the dense model, each block at its level."""
        stitched = replace(self._classifier, model=copy.deepcopy(self._classifier.model))
        for block, place in zip(self._blocks, chosen, strict=True):
            level = block.levels[place]
            remove_inputs(stitched.model, LinearGroup.of(stitched, block.index, block.names), level.removed)
            group = LinearGroup.of(stitched, block.index, block.names)
            group.put(group.split(level.weight), () if level.bias is None else group.split(level.bias))
        return stitched.model
