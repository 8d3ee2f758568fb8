"""Training keeps the weights of the lowest held-out loss, and may end when that no longer falls."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from compressor.system.checkpoint import NoCheckpoint, Part

# Sizes of the weights that a disk holds while the best ones are replaced.
DISK_SHARE = 2


class BestWeights:
    """Keeps the trained weights of the lowest held-out loss, those at the start included.

    Args:
        loss: on held-out data, of the model as it is.
        interval: training steps between evaluations; the last step is always evaluated.
        checkpoint: keeps the best weights of a training that is resumed.
        name: of the checkpoint's part.

    Attributes:
        start: loss before the first step.
        lowest: loss of the weights that are kept.
        step: training steps after which these were reached; 0 is the start.
    """

    def __init__(
        self,
        loss: Callable[[], float],
        interval: int,
        checkpoint: NoCheckpoint | None = None,
        name: str = "best",
    ) -> None:
        self._loss = loss
        self._interval = interval
        self._checkpoint = checkpoint or NoCheckpoint()
        self._name = name
        self._best: dict[str, Tensor] = {}
        self.start = self.lowest = math.inf
        self.step = 0

    def begin(self, model: nn.Module) -> None:
        """Evaluate the weights before the first step; take what a stopped training kept if it is better."""
        self.start = self.lowest = self._measured()
        self._best = _copied(model)
        part = self._checkpoint.load(self._name)
        if part is not None:
            self._best = part.tensors
            self.lowest, self.step = part.facts["loss"], part.facts["step"]

    def is_due(self, done: int, steps: int) -> bool:
        """Return whether to evaluate after `done` of `steps` training steps."""
        return done % self._interval == 0 or done == steps

    def is_over(self, model: nn.Module, done: int) -> bool:
        """Evaluate a model in evaluation mode after `done` steps; return whether to stop, which is never."""
        self._consider(model, done)
        return False

    def restore(self, model: nn.Module) -> None:
        """Put the best weights back."""
        with torch.no_grad():
            for name, weight in _trained(model).items():
                if name in self._best:
                    weight.copy_(self._best[name])

    def _measured(self) -> float:
        """The loss; infinite where it is none, since any other is better."""
        loss = self._loss()
        return loss if math.isfinite(loss) else math.inf

    def _consider(self, model: nn.Module, done: int) -> bool:
        """Keep the model's weights if they are the best so far; return whether they are."""
        loss = self._measured()
        # A resumed training may hold a later best than its step: of equal losses the earlier one counts.
        if not (loss, done) < (self.lowest, self.step):
            return False
        self.lowest, self.step = loss, done
        self._best = _copied(model)
        self._checkpoint.save(self._name, Part(self._best, {"loss": loss, "step": done}))
        return True


class EarlyStopping(BestWeights):
    """Ends a training when its held-out loss no longer falls; the start does not count.

    Args:
        loss, interval: as of `BestWeights`.
        patience: evaluations in a row without a lower loss after which training is over.
    """

    def __init__(self, loss: Callable[[], float], interval: int, patience: int) -> None:
        super().__init__(loss, interval)
        self._patience = patience
        self._without = 0

    def begin(self, model: nn.Module) -> None:
        del model

    def is_over(self, model: nn.Module, done: int) -> bool:
        """Evaluate a model in evaluation mode after `done` steps; return whether to stop."""
        self._without = 0 if self._consider(model, done) else self._without + 1
        return self._without >= self._patience


def _trained(model: nn.Module) -> Mapping[str, nn.Parameter]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in _trained(model).items()}
