"""Options of training: fine-tuning, recovery, adversarial training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from compressor.options.section import Section

OptimizerName = Literal["adamw", "adam", "sgd"]

Precision = Literal["fp32", "bf16"]

TaskName = Literal["classification", "regression"]

BatchSize = Annotated[
    int,
    Field(ge=1, le=4096, description="Texts of a training step, or of each of its accumulated parts."),
]

WarmupShare = Annotated[
    float, Field(ge=0, le=1, description="Share of the steps in which the learning rate rises.")
]

SubstitutionChoice = Literal["drawn", "gradient"]


class PerturbationConfig(Section):
    """How adversarial training (FreeLB) moves the word embeddings; norms are of a whole text's."""

    adversarial_step_size: float = Field(
        0.3, gt=0, le=100, description="Norm of each ascent step of the perturbation."
    )
    adversarial_initial_norm: float = Field(
        0.05, ge=0, le=100, description="Norm that bounds the random perturbation of the start."
    )
    adversarial_bound: float | None = Field(
        None, gt=0, le=1000, description="Largest norm of the perturbation; none if not given."
    )
    adversarial_start: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the training steps that come before without perturbation: perturbed from its "
        "first step on, a small model may never learn more than a constant answer.",
    )


class AdversarialConfig(PerturbationConfig):
    """Adversarial training, or none."""

    adversarial_steps: int = Field(
        0,
        ge=0,
        le=100,
        description="Forward and backward passes of a training step on perturbed word embeddings (FreeLB); "
        "0 trains without perturbation.",
    )


class TrainingConfig(AdversarialConfig):
    """What fine-tuning and recovery have in common."""

    batch_size: BatchSize = 32
    accumulation_steps: int = Field(
        1,
        ge=1,
        le=10_000,
        description="Batches whose gradients make one training step, where memory does not hold a large one.",
    )
    precision: Precision = Field(
        "fp32", description="Arithmetic of the model's passes; weights and optimizer stay in fp32."
    )


class SubstitutionResourcesConfig(Section):
    """What word substitution needs besides texts."""

    substitution_vectors: str | None = Field(
        None,
        description="Word vectors whose neighbours replace words of training texts: an .npz file with arrays "
        "words and vectors, or text with a word and its numbers on each line; computed with MiniLM if not "
        "given.",
    )


class SubstitutionConfig(SubstitutionResourcesConfig):
    """How words of texts that are trained on are replaced."""

    substitution_choice: SubstitutionChoice = Field(
        "drawn",
        description="Which words are replaced, and by what. drawn: by chance. gradient: those whose "
        "replacement raises the loss most, by its gradient on the embeddings; adds half a step.",
    )
    substitution_draws: int = Field(
        1,
        ge=1,
        le=64,
        description="How many times a step draws what replaces the words of a text, to train on the draw "
        "that the model does worst on; each takes a third of a step.",
    )


class FinetuneConfig(TrainingConfig, SubstitutionConfig):
    """Fine-tuning of a dense classifier."""

    task: TaskName = Field(
        "classification",
        description="classification: labels are classes; regression: labels are numbers, of which the model "
        "gives one, trained by mean squared error.",
    )
    epochs: int = Field(2, ge=1, le=100, description="Passes over the training data.")
    learning_rate: float = Field(5e-5, gt=0, le=1, description="Peak learning rate.")
    optimizer: OptimizerName = Field(
        "adamw",
        description="adamw decouples the weight decay, adam adds it to the gradient; sgd has momentum.",
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="Weight decay.")
    warmup_share: WarmupShare = 0.1
    substituted_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of a text's words that are replaced by close ones, chosen anew at each step; 0 "
        "trains on the texts as they are.",
    )


def training_in_words(options: Mapping[str, Any]) -> str:
    """The options of a fine-tuning that a grid varies, in one line."""
    steps, share, draws = (
        options[name] for name in ("adversarial_steps", "substituted_share", "substitution_draws")
    )
    by_gradient = options["substitution_choice"] == "gradient"
    worst = " by gradient" if by_gradient else f", worst of {draws}" if draws > 1 else ""
    kinds = [f"FreeLB, {steps} steps"] if steps else []
    kinds += [f"{share:.0%} substituted{worst}"] if share else []
    return (
        f"{', '.join(kinds) or 'plain'}, {options['optimizer']}, "
        f"learning rate {options['learning_rate']:g}, weight decay {options['weight_decay']:g}, "
        f"epochs {options['epochs']}"
    )
