"""Adversarial training on word embeddings: FreeLB (Zhu et al., ICLR 2020, algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressor.models.batching import Batch
from compressor.options import AdversarialConfig

# A gradient that vanishes gives a step of no length instead of one of infinite length.
SMALLEST_NORM = 1e-12


@dataclass(frozen=True)
class Perturbation:
    """How the embeddings are moved; norms are Frobenius norms over all words of a text.

    Attributes:
        steps: passes a training step; between them the perturbation climbs the loss.
        step_size: norm of each climb.
        initial_norm: largest norm of the random start.
        bound: largest norm of the perturbation; None for none.
        start: share of the training steps that come before, without perturbation.
    """

    steps: int
    step_size: float
    initial_norm: float
    bound: float | None = None
    start: float = 0.0


def perturbation_of(config: AdversarialConfig) -> Perturbation | None:
    """The perturbation that a recipe asks for; None where it asks for none."""
    if not config.adversarial_steps:
        return None
    return Perturbation(
        config.adversarial_steps,
        config.adversarial_step_size,
        config.adversarial_initial_norm,
        config.adversarial_bound,
        config.adversarial_start,
    )


def adversarial_backward(
    embed: nn.Module, inputs: Batch, loss: Callable[..., Tensor], perturbation: Perturbation
) -> None:
    """Add to the parameters' gradients the mean gradient of the loss over all passes.

    Args:
        embed: the model's word embeddings, on the device of `inputs`.
        inputs: of `compressor.models.batching.pad`.
        loss: a scalar, of these inputs with `inputs_embeds` in place of `input_ids`.
    """
    rest = {key: value for key, value in inputs.items() if key != "input_ids"}
    mask = inputs["attention_mask"][:, :, None].float()
    delta = torch.zeros(0)
    for step in range(perturbation.steps):
        embeddings = embed(inputs["input_ids"])
        if step == 0:
            delta = random_start(embeddings, mask, perturbation.initial_norm)
        else:
            # backward has set the gradient.
            delta = climb(delta.detach(), delta.grad * mask, perturbation)  # type: ignore[operator]
        delta.requires_grad_()
        (loss(inputs_embeds=embeddings + delta, **rest) / perturbation.steps).backward()


def random_start(embeddings: Tensor, mask: Tensor, norm: float) -> Tensor:
    """A uniform perturbation of each text's words, whose norm is at most `norm`; zero on padding.

    Args:
        embeddings: `(batch, sequence, hidden)`.
        mask: `(batch, sequence, 1)`, 1 on words and 0 on padding.
    """
    entries = mask.sum(dim=1, keepdim=True) * embeddings.shape[2]
    uniform = torch.empty_like(embeddings.detach()).uniform_(-1, 1)
    return uniform * mask * norm / entries.sqrt()


def climb(delta: Tensor, gradient: Tensor, perturbation: Perturbation) -> Tensor:
    """`delta`, one step of ascent further, and back onto the ball where it has left that.

    Args:
        delta, gradient: `(batch, sequence, hidden)`; each text steps and is bounded by itself.
    """
    delta = delta + perturbation.step_size * gradient / _norms(gradient)
    if perturbation.bound is not None:
        delta = delta * (perturbation.bound / _norms(delta)).clamp(max=1.0)
    return delta


def _norms(values: Tensor) -> Tensor:
    """`(batch, 1, 1)`, never zero."""
    norms: Tensor = torch.linalg.vector_norm(values, dim=(1, 2), keepdim=True)
    return norms.clamp(min=SMALLEST_NORM)
