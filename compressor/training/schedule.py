"""How long and how fast to train."""

from __future__ import annotations

import math
from dataclasses import dataclass

from compressor.options import OptimizerName, Precision
from compressor.training.freelb import Perturbation


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train: linear warm-up, linear decay to zero.

    Attributes:
        batch_size: texts of a forward pass; a step has `accumulation_steps` of them.
        perturbation: of adversarial training; None trains without.
        precision: of forward passes; weights and optimizer are float32.
        hidden_weight: of the distance to the teacher's hidden states.
        dropout: whether entries drop out while training, as the model's configuration says.
    """

    steps: int
    learning_rate: float
    batch_size: int
    optimizer: OptimizerName = "adamw"
    weight_decay: float = 0.01
    warmup_share: float = 0.1
    distillation_weight: float = 0.0
    distillation_temperature: float = 1.0
    perturbation: Perturbation | None = None
    accumulation_steps: int = 1
    precision: Precision = "fp32"
    hidden_weight: float = 0.0
    dropout: bool = True


def learning_rate_factor(step: int, schedule: Schedule) -> float:
    """Share of the peak learning rate at `step`, counted from 0."""
    warmup = max(1, math.ceil(schedule.steps * schedule.warmup_share))
    return min((step + 1) / warmup, (schedule.steps - step) / max(1, schedule.steps - warmup + 1), 1.0)


def perturbation_at(step: int, schedule: Schedule) -> Perturbation | None:
    """The perturbation of adversarial training at `step`, counted from 0; None before it starts."""
    perturbation = schedule.perturbation
    if perturbation is None or step < perturbation.start * schedule.steps:
        return None
    return perturbation
