"""What training minimises, and how far two models' answers are apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from compressor.training.schedule import Schedule


def distillation_loss(
    logits: Tensor, labels: Tensor, teacher_logits: Tensor | None, schedule: Schedule
) -> Tensor:
    """The loss on labels mixed with the distance to the teacher (Hinton et al., 2015).

    Of classes `(1 - a) CE(logits, labels) + a T^2 KL(softmax(teacher / T) || softmax(logits / T))`;
    of a regression `(1 - a) MSE(logits, labels) + a MSE(logits, teacher)`, which has no temperature.

    Args:
        logits, teacher_logits: `(batch, labels)`; of a regression `(batch, 1)`.
        labels: `(batch,)`: int64 class indices, or a regression's numbers as floats.
    """
    is_regression = labels.is_floating_point()
    loss = (
        nn.functional.mse_loss(logits[:, 0], labels)
        if is_regression
        else nn.functional.cross_entropy(logits, labels)
    )
    weight, temperature = schedule.distillation_weight, schedule.distillation_temperature
    if teacher_logits is None or weight == 0:
        return loss
    if is_regression:
        return (1 - weight) * loss + weight * nn.functional.mse_loss(logits, teacher_logits)
    divergence = nn.functional.kl_div(
        (logits / temperature).log_softmax(dim=1),
        (teacher_logits / temperature).log_softmax(dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return (1 - weight) * loss + weight * temperature**2 * divergence


def example_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss on labels of each example, `(batch,)`; arguments as for `distillation_loss`."""
    if labels.is_floating_point():
        return (logits[:, 0] - labels).square()
    return nn.functional.cross_entropy(logits, labels, reduction="none")


def answers_of(logits: Tensor, labels: Tensor) -> Tensor:
    """What logits say in place of `labels`: classes `(batch,)` int64, or where these are floats numbers."""
    return logits[:, 0] if labels.is_floating_point() else logits.argmax(dim=1)


def answer_divergence(reference: Tensor, logits: Tensor) -> Tensor:
    """Return the mean of `KL(softmax(reference) || softmax(logits))` over texts, in nats; a scalar.

    Of a regression the mean squared difference, in the square of its numbers' unit.

    Args:
        reference, logits: `(texts, labels)` float32; of a regression `(texts, 1)`.
    """
    if reference.shape[1] == 1:
        return nn.functional.mse_loss(logits, reference)
    return nn.functional.kl_div(
        logits.log_softmax(dim=1), reference.log_softmax(dim=1), reduction="batchmean", log_target=True
    )


def hidden_distance(states: Sequence[Tensor], teacher_states: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Mean squared difference of hidden states over words and layers (Jiao et al., 2020, equation 8).

    Both models have the same width, so there is no projection. Padding does not count.

    Args:
        states, teacher_states: one `(batch, sequence, hidden)` a layer.
        mask: `(batch, sequence)`, 1 on words and 0 on padding.
    """
    words = mask[:, :, None].float()
    entries = words.sum() * states[0].shape[2]
    distances = [
        ((own.float() - other.float()).square() * words).sum() / entries
        for own, other in zip(states, teacher_states, strict=True)
    ]
    return torch.stack(distances).mean()


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Within it nothing of the model drops out."""
    drops_out = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(drops_out)
