"""Early stopping: training ends when held-out loss no longer falls, with the best weights."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class EarlyStopping:
    """Remembers the weights of the lowest loss.

    Args:
        loss: on held-out data, of the model as it is.
        interval: training steps between evaluations.
        patience: evaluations in a row without a lower loss after which training is over.
    """

    def __init__(self, loss: Callable[[], float], interval: int, patience: int) -> None:
        self._loss = loss
        self._interval = interval
        self._patience = patience
        self._lowest = float("inf")
        self._best: dict[str, Tensor] = {}
        self._without = 0

    def is_due(self, done: int, steps: int) -> bool:
        """Whether to evaluate after `done` of `steps` training steps."""
        return done % self._interval == 0 or done == steps

    def is_over(self, model: nn.Module) -> bool:
        """Evaluate a model in evaluation mode, keep its weights if they are the best, say whether to stop."""
        loss = self._loss()
        if loss < self._lowest:
            self._lowest, self._without = loss, 0
            self._best = {name: value.clone() for name, value in model.state_dict().items()}
        else:
            self._without += 1
        return self._without >= self._patience

    def restore(self, model: nn.Module) -> None:
        """Put the best weights back."""
        if self._best:
            model.load_state_dict(self._best)
