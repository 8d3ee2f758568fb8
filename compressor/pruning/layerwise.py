"""Process the encoder layer by layer for all layer-wise algorithms: calibrate, solve, apply.

An algorithm says how a group of linear layers is solved from the moments of their input, and how
the solution is put into the model. The walk takes care of data, of the order, and of going on
behind the last finished group of a run that was stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from compressor.data.texts import TextData
from compressor.errors import UserError
from compressor.models.batching import Encoded, encode, encode_windows
from compressor.models.classifier import Classifier
from compressor.models.encoders.layout import EncoderLayout
from compressor.models.structure import linear_at
from compressor.pruning.interface import PruningJob
from compressor.pruning.made_texts import fill_up
from compressor.pruning.record import LayerRecord
from compressor.pruning.solvers.solvers import UnsolvableError, damped
from compressor.pruning.walk import Moments, SideBySide, calibration_batches
from compressor.system.checkpoint import Part
from compressor.system.console import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CALIBRATION_BATCH_SIZE = 32


@dataclass(frozen=True)
class LinearGroup:
    """Linear layers of one encoder layer with a common input.

    Attributes:
        layout: of the model's family.
        index: of the encoder layer.
        names: of the linear layers in the model.
        linears: the layers themselves, in the model that is pruned.
    """

    layout: EncoderLayout
    index: int
    names: tuple[str, ...]
    linears: tuple[nn.Linear, ...]

    @classmethod
    def of(cls, classifier: Classifier, index: int, names: tuple[str, ...]) -> LinearGroup:
        """Look up the layers as they are now; a structured step replaces those of later groups."""
        linears = tuple(linear_at(classifier.model, name) for name in names)
        return cls(classifier.layout, index, names, linears)

    @property
    def first(self) -> str:
        """Name of the first layer within its encoder layer, as the layout has it."""
        return self.names[0].removeprefix(self.layout.block_prefix(self.index))

    @property
    def is_last(self) -> bool:
        """Whether the encoder layer has no group behind this one."""
        return self.first == self.layout.linears.groups[-1][0]

    def moved_bias(self, pruned: Tensor, moments: Moments) -> Tensor | None:
        """Return the stacked bias with which a stacked weight keeps the mean outputs; None without a bias."""
        bias = self.bias
        return None if bias is None else bias + (self.weight - pruned) @ moments.pruned_mean

    @property
    def key(self) -> str:
        """A name for files: the layer's number in two digits, and the first name."""
        return f"{self.index:02d}-{self.first}"

    @property
    def weight(self) -> Tensor:
        """All weights of the group, `(sum of out, in)` float64."""
        return torch.cat([linear.weight for linear in self.linears]).double()

    @property
    def bias(self) -> Tensor | None:
        """All biases of the group, `(sum of out,)` float64; None where its layers have none."""
        biases = self.biases
        return torch.cat(biases).double() if biases else None

    @property
    def biases(self) -> list[Tensor]:
        """The bias of each layer; none where the group's layers have none."""
        return [linear.bias for linear in self.linears if linear.bias is not None]

    def split(self, stacked: Tensor) -> tuple[Tensor, ...]:
        """What is stacked as `weight` or `bias` is, layer by layer."""
        parts: tuple[Tensor, ...] = stacked.split([linear.out_features for linear in self.linears])
        return parts

    def put(self, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
        """Copy weights and biases, of which there may be none, into the layers, in order."""
        for linear, weight in zip(self.linears, weights, strict=True):
            linear.weight.copy_(weight)
        for own, bias in zip(self.biases, biases, strict=True):
            own.copy_(bias)


@dataclass(frozen=True)
class Solution:
    """Solution of a group: weight, bias, mask and record of each layer, in order.

    Attributes:
        weights: each `(out, in)`, zero outside its mask.
        biases: each `(out,)`; none where the layers have none.
        masks: each `(out, in)` bool; none where nothing is zeroed but taken out.
        records: what is told of each layer.
        removed: heads or neurons that a structured pattern takes out in front of this group.
    """

    weights: list[Tensor]
    biases: list[Tensor]
    masks: list[Tensor]
    records: list[LayerRecord]
    removed: list[int] = field(default_factory=list)

    def to_part(self) -> Part:
        """For the checkpoint."""
        kinds = {"weight": self.weights, "bias": self.biases, "mask": self.masks}
        tensors = {f"{i}.{kind}": t for kind, values in kinds.items() for i, t in enumerate(values)}
        return Part(tensors, {"records": [asdict(r) for r in self.records], "removed": self.removed})

    @classmethod
    def from_part(cls, part: Part) -> Solution:
        """The inverse of `to_part`."""
        count = len(part.facts["records"])
        weights, biases, masks = (
            [part.tensors[name] for i in range(count) if (name := f"{i}.{kind}") in part.tensors]
            for kind in ("weight", "bias", "mask")
        )
        records = [LayerRecord(**record) for record in part.facts["records"]]
        return cls(weights, biases, masks, records, part.facts["removed"])


class GroupSolver(Protocol):
    """Interface of an algorithm that solves groups."""

    def solve(self, group: LinearGroup, moments: Moments) -> Solution:
        """Solve a group; must not change the model. Weights and biases in the model's dtype."""

    def apply(self, classifier: Classifier, group: LinearGroup, solution: Solution) -> None:
        """Apply a solution to the model: its weights and biases, unless the solver changes more."""
        set_linears(classifier, group, solution)

    def refine(self, walk: SideBySide, index: int, masks: Mapping[str, Tensor]) -> bool:
        """Change the next encoder layer of `walk` after all its groups are solved.

        Args:
            masks: of the model's layers that are solved, by name.

        Returns:
            Whether anything was changed.
        """
        del walk, index, masks
        return False


@dataclass(frozen=True)
class WalkResult:
    """Masks by layer name, records in order, and the walk, which stands behind the last layer."""

    masks: dict[str, Tensor]
    records: list[LayerRecord]
    walk: SideBySide
    examples: int


def set_linears(classifier: Classifier, group: LinearGroup, solution: Solution) -> None:
    """Copy a solution's weights and biases into the model's layers, found by name."""
    LinearGroup.of(classifier, group.index, group.names).put(solution.weights, solution.biases)


def damped_hessian(
    name: str, hessian: Tensor, share: float, mean_square: float = 0.0
) -> tuple[Tensor, float]:
    """`damped`, for the layer of that name.

    Raises:
        UserError: the Hessian cannot be made positive definite.
    """
    try:
        return damped(hessian, share, mean_square)
    except UnsolvableError as error:
        raise UserError(
            f"{name}: cannot be solved: {error}; use more calibration texts, or, in adaptive, a larger "
            f"--damping"
        ) from error


def calibration_texts(
    classifier: Classifier,
    data: TextData,
    job: PruningJob,
    examples: int,
    tokens: int,
    *,
    whole: bool = False,
) -> list[Encoded]:
    """So many texts, drawn with the job's seed, and made ones behind them where they have fewer `tokens`.

    Args:
        whole: all of a text that is longer than the job's inputs, in windows, and not its beginning alone.
    """
    drawn = data.sample(examples, job.seed)
    encoded = (encode_windows if whole else encode)(classifier.tokenizer, drawn, job.max_length)
    generator = np.random.default_rng(job.seed)
    return fill_up(encoded, tokens, classifier.tokenizer, job.max_length, generator)


def start_walk(
    classifier: Classifier, data: TextData, job: PruningJob, *, dense: PreTrainedModel | None
) -> tuple[SideBySide, int]:
    """Return the walk over the job's calibration texts, and their number.

    Args:
        dense: the model to reproduce, on made texts as well if the texts are few; None where there is
            nothing to reproduce, and both models are the same one.
    """
    examples = job.config.calibration_examples
    tokens = 0 if dense is None else job.config.adaptive.calibration_tokens
    encoded = calibration_texts(classifier, data, job, examples, tokens)
    return walk_over(classifier, encoded, dense=dense), min(examples, len(data))


def walk_over(
    classifier: Classifier, encoded: Sequence[Encoded], *, dense: PreTrainedModel | None
) -> SideBySide:
    """Return the walk over tokenised texts; see `start_walk`."""
    pad_token_id = int(classifier.tokenizer.pad_token_id)
    batches = calibration_batches(encoded, CALIBRATION_BATCH_SIZE, pad_token_id, classifier.device)
    return SideBySide(dense or classifier.model, classifier.model, batches)


def group_steps(classifier: Classifier) -> list[tuple[int, tuple[str, ...]]]:
    """List the encoder layer and the names of every group, in the order of data flow."""
    return list(classifier.layout.groups(classifier.model))


def _refine(
    solver: GroupSolver, walk: SideBySide, index: int, masks: Mapping[str, Tensor], job: PruningJob
) -> None:
    """Refine an encoder layer, or take what the checkpoint holds of it."""
    block, key = walk.blocks[1], f"{index:02d}-refined"
    part = job.checkpoint.load(key, walk.dense.device)
    if part is not None:
        block.load_state_dict(part.tensors)
    elif solver.refine(walk, index, masks):
        job.checkpoint.save(key, Part({name: value.detach() for name, value in block.state_dict().items()}))


@torch.no_grad()
def prune_layerwise(
    classifier: Classifier,
    data: TextData,
    job: PruningJob,
    solver: GroupSolver,
    progress: Progress,
    *,
    dense: PreTrainedModel | None,
    drifted: bool = True,
) -> WalkResult:
    """Solve group after group, each for the inputs that the already pruned layers produce.

    Groups that the job's checkpoint holds are taken from there.

    Args:
        dense: walk beside this model, whose outputs are to be reproduced; is not changed.
        drifted: if not, each group gets the dense model's inputs in place of the drifted ones.
    """
    walk, examples = start_walk(classifier, data, job, dense=dense)
    layers = len(classifier.layout.blocks(classifier.model))
    masks: dict[str, Tensor] = {}
    records: list[LayerRecord] = []
    for index, names in progress.track(group_steps(classifier), f"Pruning {layers} encoder layers"):
        group = LinearGroup.of(classifier, index, names)
        part = job.checkpoint.load(group.key, classifier.device)
        if part is None:
            solution = solver.solve(group, walk.moments(group.first, drifted=drifted))
            job.checkpoint.save(group.key, solution.to_part())
        else:
            solution = Solution.from_part(part)
        solver.apply(classifier, group, solution)
        masks |= dict(zip(group.names, solution.masks, strict=bool(solution.masks)))
        records += solution.records
        if group.is_last:
            _refine(solver, walk, index, masks, job)
            walk.advance()
    return WalkResult(masks, records, walk, examples)
