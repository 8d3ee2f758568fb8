"""What a training needs to go on where it was stopped: kept every two minutes, taken back to the bit."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from compressor.system.checkpoint import NoCheckpoint, Part

# What a stop costs at most; BERT-base's state is 1.3 GB, so not more often.
SECONDS_BETWEEN = 120.0
WEIGHT, OPTIMIZER, RANDOM = "weight.", "optimizer.", "random."
# Sizes of the weights that a disk holds while a state is replaced: twice the weights and the optimizer's
# two moments.
DISK_SHARE = 6


class TrainingCheckpoint:
    """Keeps the state of one training as a part of its stage's checkpoint.

    The state is the trained weights, the optimizer's moments, PyTorch's random state, and the steps done.

    Args:
        checkpoint: of the stage; belongs to a job that decides the training.
        name: of the part.
    """

    def __init__(self, checkpoint: NoCheckpoint, name: str) -> None:
        self._checkpoint = checkpoint
        self._name = name
        self._last = time.monotonic()

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Put back what was kept, if there is something; return the steps that were done."""
        part = self._checkpoint.load(self._name)
        if part is None:
            return 0
        with torch.no_grad():
            for name, weight in _trained(model).items():
                weight.copy_(part.tensors[WEIGHT + name])
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in part.tensors.items():
            if name.startswith(OPTIMIZER):
                place, key = name.removeprefix(OPTIMIZER).split(".")
                state.setdefault(int(place), {})[key] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        torch.set_rng_state(part.tensors[RANDOM + "cpu"])
        if RANDOM + "cuda" in part.tensors:
            torch.cuda.set_rng_state(part.tensors[RANDOM + "cuda"], _device(model))
        return int(part.facts["steps"])

    def keep(self, model: nn.Module, optimizer: torch.optim.Optimizer, done: int) -> None:
        """Keep the state behind `done` steps, unless the last one is newer than two minutes."""
        if time.monotonic() - self._last < SECONDS_BETWEEN:
            return
        tensors = {WEIGHT + name: weight.detach() for name, weight in _trained(model).items()}
        for place, state in optimizer.state_dict()["state"].items():
            tensors |= {
                f"{OPTIMIZER}{place}.{key}": value
                for key, value in state.items()
                if isinstance(value, Tensor)
            }
        tensors[RANDOM + "cpu"] = torch.get_rng_state()
        if _device(model).type == "cuda":
            tensors[RANDOM + "cuda"] = torch.cuda.get_rng_state(_device(model))
        self._checkpoint.save(self._name, Part(tensors, {"steps": done}))
        self._last = time.monotonic()


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
