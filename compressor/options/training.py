"""Options of training: fine-tuning, recovery, adversarial training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field

from compressor.options.normalization import NormalizationConfig
from compressor.options.section import Common, Section

OptimizerName = Literal["adamw", "adam", "sgd"]

Precision = Literal["fp32", "bf16"]

TaskName = Literal["classification", "regression"]

BatchSize = Annotated[
    int,
    Field(
        ge=1,
        le=4096,
        description="Batch size of training; with --accumulation-steps, of each accumulated batch.",
    ),
]

WarmupShare = Annotated[
    float, Field(ge=0, le=1, description="Fraction of the training steps for the learning-rate warm-up.")
]

SubstitutionChoice = Literal["drawn", "gradient"]

SubstitutionKind = Literal["words", "synonyms", "letters", "homoglyphs", "casing", "dropped"]


def parse_mixture(text: str) -> dict[SubstitutionKind, float]:
    """Return the weight of each kind of `words:2,letters`, in the order of `SubstitutionKind`.

    A weight that is not given is 1.

    Raises:
        ValueError: a kind is unknown or occurs twice, or a weight is no number above 0.
    """
    kinds = get_args(SubstitutionKind)
    found: dict[str, float] = {}
    for part in text.split(","):
        kind, _, weight = part.strip().partition(":")
        try:
            number = float(weight or 1)
        except ValueError:
            number = math.nan
        if kind not in kinds or not 0 < number < math.inf:
            raise ValueError(
                f"{part.strip()!r} is no kind with a weight above 0; write one as in letters:2, of "
                f"{', '.join(kinds)}"
            )
        if kind in found:
            raise ValueError(f"{kind} occurs twice; give it once, with its weight")
        found[kind] = number
    return {kind: found[kind] for kind in kinds if kind in found}


def _checked_mixture(text: str) -> str:
    parse_mixture(text)
    return text


MixtureText = Annotated[str, AfterValidator(_checked_mixture)]
# How, likewise.
CHOICE_DESCRIPTION = (
    "How substitutions are chosen. drawn: at random. gradient: those that raise the loss most to first "
    "order, by the gradient on the embeddings; a step takes longer."
)
# What substitutes words, for the description of each section's option.
MIXTURE_DESCRIPTION = (
    "Kinds of substitutions, one drawn for each word by its weight, as in words:2,letters. words: neighbours "
    "in word vectors. synonyms: of a thesaurus or WordNet. letters: misspellings. homoglyphs: letters that "
    "look alike. casing: other capitals. dropped: the word is left out. Stop words stay."
)


class PerturbationConfig(Section):
    """Perturbation of adversarial training (FreeLB); norms are over all embeddings of a text."""

    adversarial_step_size: float = Field(
        0.3, gt=0, le=100, description="Norm of each ascent step of the perturbation."
    )
    adversarial_initial_norm: float = Field(
        0.05, ge=0, le=100, description="Maximum norm of the random initial perturbation."
    )
    adversarial_bound: float | None = Field(
        None, gt=0, le=1000, description="Maximum norm of the perturbation; no limit by default."
    )
    adversarial_start: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Fraction of the training steps before the perturbation starts. A small model that is "
        "perturbed from the first step may only learn to predict one class.",
    )


class AdversarialConfig(PerturbationConfig):
    """Adversarial training."""

    adversarial_steps: int = Field(
        0,
        ge=0,
        le=100,
        description="Number of adversarial passes in a training step, on perturbed word embeddings "
        "(FreeLB); 0 trains without.",
    )


class TrainingConfig(AdversarialConfig):
    """Options that fine-tuning and recovery share."""

    batch_size: BatchSize = 32
    accumulation_steps: int = Field(
        1,
        ge=1,
        le=10_000,
        description="Number of batches whose gradients are accumulated for one training step.",
    )
    precision: Precision = Field(
        "fp32",
        description="Precision of forward and backward passes; weights and optimizer state stay in fp32.",
    )


class SubstitutionResourcesConfig(Section):
    """Resources of word substitution."""

    substitution_vectors: str | None = Field(
        None,
        description="Word vectors whose nearest neighbours substitute words of training texts: an .npz "
        "file with arrays words and vectors, or text with a word and its vector on each line. By default "
        "computed with MiniLM.",
    )
    substitution_wordnet: str | None = Field(
        None,
        description="Directory of WordNet's database files whose synonyms substitute words of training "
        "texts. By default a thesaurus from its package, among neighbours in --substitution-vectors.",
    )


class SubstitutionConfig(SubstitutionResourcesConfig):
    """Word substitution in training texts."""

    substitution_mixture: MixtureText = Field("words", description=MIXTURE_DESCRIPTION)
    substitution_choice: SubstitutionChoice = Field("drawn", description=CHOICE_DESCRIPTION)
    substitution_draws: int = Field(
        1,
        ge=1,
        le=64,
        description="Number of random substitutions of a text in a step; the step trains on the one with "
        "the largest loss. Each draw adds a third of a step.",
    )


class FinetuneConfig(TrainingConfig, SubstitutionConfig, NormalizationConfig):
    """Fine-tuning of a dense classifier."""

    task: Annotated[TaskName, Common()] = Field(
        "classification",
        description="classification: labels are classes. regression: labels are numbers; the model has one "
        "output and trains with mean squared error.",
    )
    epochs: Annotated[int, Common()] = Field(
        2, ge=1, le=100, description="Number of passes over the training data."
    )
    learning_rate: Annotated[float, Common()] = Field(5e-5, gt=0, le=1, description="Peak learning rate.")
    optimizer: OptimizerName = Field(
        "adamw",
        description="adamw has decoupled weight decay, adam adds it to the gradient; sgd uses momentum.",
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="Weight decay.")
    warmup_share: WarmupShare = 0.1
    substituted_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Fraction of a text's words that are substituted, drawn anew at each step; 0 trains on "
        "the original texts.",
    )


def training_in_words(options: Mapping[str, Any]) -> str:
    """Return the options of a fine-tuning that a grid varies, in one line."""
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
