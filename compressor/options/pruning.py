"""Options of pruning."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from compressor.options.registry import PluginOptions, Registry
from compressor.options.section import Common, Section, said, shown
from compressor.options.training import (
    CHOICE_DESCRIPTION,
    MIXTURE_DESCRIPTION,
    MixtureText,
    SubstitutionChoice,
    SubstitutionConfig,
    TrainingConfig,
)

ALGORITHM_REGISTRY = Registry(
    "algorithm", "compress.algorithms", ("adaptive", "randomized", "magnitude", "wanda", "sparsegpt")
)

AlgorithmName = Annotated[str, ALGORITHM_REGISTRY]

Scope = Literal["row", "layer"]

SamplingSchedule = Literal["constant", "falling"]

CandidateSchedule = Literal["constant", "rising"]

CandidateRatios = Literal["same", "spread"]
Saliency = Literal["magnitude", "adaptive"]

ClassMetricName = Literal["accuracy", "f1", "matthews"]

CorrelationName = Literal["pearson", "spearman"]

RankingName = Literal["ndcg", "mrr"]

MetricName = Literal[ClassMetricName, CorrelationName, RankingName]

CandidateScore = Literal["loss", ClassMetricName, CorrelationName]


# What a robust distillation is where nothing else is said.
ROBUST_DEFAULTS = {"distillation_steps": 500, "distillation_examples": 8192}
# Options of a robust distillation alone.
ROBUST_OPTIONS = (
    "distillation_substituted_share",
    "clean_divergence_tolerance",
    "substitution_mixture",
    "substitution_choice",
    "substitution_draws",
)


def _if_robust(description: str) -> str:
    return f"With --robust: {description[0].lower()}{description[1:]}"


class AdaptiveConfig(SubstitutionConfig):
    """Adaptive knowledge-retention pruning (algorithm 1)."""

    robust: Annotated[bool, Common()] = Field(
        False,
        description="Also distill the dense model's output on a text into the pruned model's output on "
        "perturbed versions of it. Without other values, --distillation-steps is then 500 and "
        "--distillation-examples 8,192.",
    )
    solver: Literal["fast", "exact", "greedy"] = Field(
        "fast",
        description="fast: ADMM mask search, weight swaps and exact least squares. exact: the paper's "
        "elimination, cubic in the layer's width and very slow beyond small models. greedy: one pass, the "
        "least accurate.",
    )
    allocation: Literal["uniform", "error"] = Field(
        "uniform",
        description="uniform: the same sparsity in every layer, as in the paper. error: more zeros where "
        "the measured error is smallest, with the same total (unstructured only).",
    )
    adaptive_hessian: bool = Field(
        True,
        description="Compute the Hessian from the inputs that the pruned layers before produce. Without "
        "it, from the dense model's inputs.",
    )
    resolve_weight: bool = Field(
        True,
        description="Before a layer is pruned, re-solve its dense weight by least squares for the inputs "
        "that the pruned layers before produce.",
    )
    calibration_tokens: int = Field(
        0,
        ge=0,
        le=100_000_000,
        description="Minimum number of calibration tokens. If the calibration texts have fewer, texts "
        "synthesized from their pieces are added; 0 uses the texts alone.",
    )
    damping: float = Field(
        0.01,
        gt=0,
        le=10,
        description="Ridge penalty towards the dense weight, as a fraction of the mean diagonal of the "
        "Hessian.",
    )
    reconstruction_passes: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Passes over the calibration texts that tune each pruned encoder layer to the dense "
        "layer's output, with fixed masks and without labels.",
    )
    reconstruction_rate: float = Field(
        3e-4, gt=0, le=1, description="Peak learning rate of the reconstruction passes."
    )
    distillation_steps: int = Field(
        0,
        validate_default=True,
        ge=0,
        le=1_000_000,
        description="Training steps at the end that distill the dense model's logits and hidden states "
        "into the pruned model, with fixed masks and without labels. They use the calibration texts, with "
        "texts longer than --max-length split into windows, and synthesized texts.",
    )
    distillation_examples: int = Field(
        0,
        validate_default=True,
        ge=0,
        description="Number of calibration texts for the distillation, drawn with the seed; 0 uses as many "
        "as --calibration-examples.",
    )
    distillation_rate: float = Field(2e-4, gt=0, le=1, description="Peak learning rate of the distillation.")
    distillation_rates: list[Annotated[float, Field(gt=0, le=1)]] | None = Field(
        None,
        min_length=2,
        description="Peak learning rates to choose from, in place of --distillation-rate: each is tried for "
        "a fifth of the steps, and the one that ends with the lowest loss on held-out texts is used.",
    )
    distillation_substituted_share: float = Field(
        0.3,
        gt=0,
        le=1,
        description="With --robust: fraction of the words that are substituted in a perturbed text.",
    )
    clean_divergence_tolerance: float = Field(
        0.05,
        ge=0,
        le=100,
        description="With --robust: by how much (nats) the kept weights may diverge more from the dense "
        "model's answers to unperturbed held-out texts than those at the start of the distillation.",
    )
    substitution_mixture: MixtureText = Field(
        "words:3,synonyms:2,letters:3",
        description=_if_robust(MIXTURE_DESCRIPTION),
    )
    substitution_choice: SubstitutionChoice = Field("gradient", description=_if_robust(CHOICE_DESCRIPTION))
    resolve_heads: bool = Field(
        True, description="Re-solve pooler and classifier for the inputs that the pruned encoder produces."
    )
    iterations: int = Field(
        60, ge=1, le=10_000, description="Maximum number of ADMM iterations of the fast solver."
    )
    speedup: float | None = Field(
        None,
        gt=1,
        le=1000,
        description="Remove heads, neurons and whole blocks until the exported model is predicted to be this "
        "many times as fast as the dense model in PyTorch, by --latency-table. Where the measured error is "
        "smallest, most is removed. In place of --sparsity.",
    )
    latency_budget_ms: float | None = Field(
        None,
        gt=0,
        description="As --speedup, until the predicted latency, averaged over the shapes of the table, is at "
        "most this many milliseconds.",
    )
    latency_table: str | None = Field(
        None, description="File of compress latency-table: the latency of each width on the target machine."
    )
    allocation_trials: int = Field(
        48,
        ge=0,
        le=100_000,
        description="With --speedup: number of random variations of the allocated widths. The one with the "
        "lowest divergence from the dense model on calibration texts is used.",
    )

    @property
    def has_latency_goal(self) -> bool:
        """Whether widths are chosen for a latency, in place of a sparsity."""
        return self.speedup is not None or self.latency_budget_ms is not None

    @field_validator("distillation_steps", "distillation_examples")
    @classmethod
    def _robust_by_default(cls, given: int, info: ValidationInfo) -> int:
        if given == 0 and info.data.get("robust") and info.field_name is not None:
            return ROBUST_DEFAULTS[info.field_name]
        return given

    @model_validator(mode="after")
    def _perturbed_only_if_robust(self) -> Self:
        if not self.robust:
            for name in ROBUST_OPTIONS:
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise said(f"{name}: has no effect without a robust distillation; add robust")
        return self

    @model_validator(mode="after")
    def _one_latency_goal(self) -> Self:
        if self.speedup is not None and self.latency_budget_ms is not None:
            raise said("speedup: latency_budget_ms is given too; leave one of them out")
        if self.has_latency_goal and self.latency_table is None:
            raise said(
                "latency_table: is missing; measure one with compress latency-table, and name its file"
            )
        if self.latency_table is not None and not self.has_latency_goal:
            raise said("latency_table: has no effect without speedup or latency_budget_ms; add one of them")
        return self


class RandomizedConfig(TrainingConfig):
    """Randomized mask generation and selection (algorithm 2)."""

    steps: int = Field(3, ge=1, le=1000, description="Number of pruning steps over which the sparsity rises.")
    schedule: Literal["cubic", "geometric"] = Field(
        "cubic",
        description="How the sparsity rises. cubic: by a cubic function of the step. geometric: each step "
        "keeps the same fraction of the remaining weights.",
    )
    step_sparsities: list[Annotated[float, Field(gt=0, lt=1)]] | None = Field(
        None,
        min_length=1,
        description="Sparsity after each step, rising to --sparsity; replaces --steps and --schedule.",
    )
    candidates: int = Field(
        3, ge=1, le=1000, description="Number of candidate masks in a step; the first is by magnitude alone."
    )
    candidate_schedule: CandidateSchedule = Field(
        "constant",
        description="Number of candidates over the steps. constant: the same. rising: grows linearly to "
        "--candidates, because selection matters most where few weights remain.",
    )
    score: CandidateScore = Field(
        "loss",
        description="Score of a candidate on held-out texts: the training loss, or a metric. f1 is of the "
        "second class, or the macro average for more than two classes; pearson and spearman are for "
        "regression.",
    )
    shift_weight: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="Weight in the score of the output shift under typos and synonyms: the divergence "
        "(nats) between the outputs on held-out texts and on their perturbed copies; for regression, the "
        "squared difference.",
    )
    attack_weight: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="Weight in the score of the fraction of attacked held-out texts that DeepWordBug "
        "leaves with a wrong prediction.",
    )
    attacked_examples: int = Field(
        16, ge=1, description="Number of held-out texts to attack if --attack-weight is given."
    )
    sampling_ratio: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Fraction of the kept weights that is sampled at random instead of ranked.",
    )
    sampling_schedule: SamplingSchedule = Field(
        "constant",
        description="Sampling ratio over the steps. constant: the same. falling: decreases to a small "
        "value in the last step.",
    )
    candidate_ratios: CandidateRatios = Field(
        "same",
        description="Sampling ratio over the candidates of a step. same: equal for all but the first. "
        "spread: from 0 to --sampling-ratio.",
    )
    temperature: float = Field(
        1.0,
        gt=0,
        le=100,
        description="Weights are sampled with probability proportional to |w|^(1/temperature).",
    )
    saliency: Saliency = Field(
        "magnitude",
        description="Importance of a weight, by which weights are ranked and sampled. magnitude: as "
        "published. adaptive: weights that algorithm 1 keeps at the sparsity of the step rank before those "
        "that it prunes; the kept weights are also re-solved.",
    )
    mask_scope: Literal["layer", "global"] = Field(
        "layer", description="Scope of the unstructured sparsity: each matrix, or all matrices together."
    )
    revive: bool = Field(
        False, description="Let pruned weights return in a later step, with their value in the dense model."
    )
    halving: bool = Field(
        False,
        description="Successive halving: score candidates in several rounds of training and drop the worse "
        "half after each. Otherwise score once.",
    )
    rectify: Literal["none", "adaptive"] = Field(
        "none",
        description="adaptive: re-solve the kept weights for the dense model's outputs, layer by layer as "
        "in algorithm 1, before a candidate is scored and before the recovery.",
    )
    reference: Literal["dense", "previous", "both"] = Field(
        "dense",
        description="Model whose outputs re-solved weights reproduce: the dense model, the model after the "
        "previous step, or both in turn over the candidates.",
    )
    early_steps: int = Field(
        6, ge=0, le=100_000, description="Number of training steps of a candidate before it is scored."
    )
    early_learning_rate: float = Field(1e-4, gt=0, le=1, description="Learning rate of the early steps.")
    recovery_steps: int = Field(
        60,
        ge=0,
        le=1_000_000,
        description="Number of training steps with the selected mask in each pruning step.",
    )
    learning_rate: float = Field(5e-5, gt=0, le=1, description="Peak learning rate of the recovery.")
    step_learning_rates: list[Annotated[float, Field(gt=0, le=1)]] | None = Field(
        None,
        min_length=1,
        description="Peak learning rate of each step's recovery; replaces --learning-rate. The early "
        "learning rate keeps its ratio to it. The best rate rises with the sparsity.",
    )
    patience: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Early stopping: the number of evaluations without a lower held-out loss after which a "
        "recovery ends and restores the best weights. 0 trains to the end and keeps the last weights.",
    )
    evaluation_interval: int = Field(
        20,
        ge=1,
        le=1_000_000,
        description="Number of training steps between evaluations if --patience is given.",
    )
    holdout_examples: int = Field(
        256,
        ge=1,
        description="Number of calibration texts that are held out of training to score the candidates.",
    )
    distillation_weight: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Weight of the distillation from the dense model's logits in the loss; the labels have "
        "the rest.",
    )
    distillation_temperature: float = Field(
        2.0, gt=0, le=100, description="Softmax temperature of both models in the distillation."
    )
    hidden_weight: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="Weight in the loss of the distance to the dense model's hidden states.",
    )
    dropout: bool = Field(
        False,
        description="Use the dropout of the model's configuration in early and recovery steps. A sparse "
        "model recovers faster without it.",
    )


class PruneConfig(Section):
    """Pruning."""

    algorithm: Annotated[AlgorithmName, Common()] = Field(
        "adaptive", description="adaptive and randomized are the published methods; the others are baselines."
    )
    algorithm_options: PluginOptions = Field(
        {},
        validate_default=True,
        description="Options of an algorithm that a package registers, by their names; on the command line "
        "NAME=VALUE, repeated.",
    )
    # Before the pattern, which depends on it.
    adaptive: AdaptiveConfig = AdaptiveConfig()
    pattern: Annotated[str, Common()] = Field(
        "",
        validate_default=True,
        description="unstructured; N:M such as 2:4 (N of M weights are kept); or structured (attention "
        "heads and feed-forward neurons are removed). By default unstructured, or structured with --speedup.",
    )
    sparsity: Annotated[float | None, Common()] = Field(
        None,
        ge=0,
        lt=1,
        description="Fraction of zeros in the encoder, or of heads and neurons to remove; by default 0.5, "
        "or what N:M implies.",
    )
    scope: Scope | None = Field(
        None,
        description="Scope in which unstructured weights are ranked: each row (as in the paper), or the "
        "layer (adaptive ranks query, key and value together). The default depends on the algorithm.",
    )
    calibration_examples: int = Field(
        512,
        ge=1,
        description="Number of calibration texts, drawn with the seed; randomized trains on all.",
    )
    randomized: RandomizedConfig = RandomizedConfig()

    @field_validator("algorithm_options")
    @classmethod
    def _of_the_algorithm(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        # Of an unknown algorithm no options are known.
        known = info.data.get("algorithm")
        return given if known is None else ALGORITHM_REGISTRY.checked_options(known, given)

    @field_validator("adaptive")
    @classmethod
    def _only_adaptive_has_latency_goals(cls, given: AdaptiveConfig, info: ValidationInfo) -> AdaptiveConfig:
        algorithm = info.data.get("algorithm", "adaptive")
        if given.has_latency_goal and algorithm != "adaptive":
            raise said(
                f"speedup and latency_budget_ms: algorithm {algorithm} cannot choose widths; use algorithm "
                f"adaptive, or a sparsity"
            )
        return given

    @field_validator("pattern")
    @classmethod
    def _of_the_goal(cls, given: str, info: ValidationInfo) -> str:
        adaptive = info.data.get("adaptive")
        if adaptive is None or not adaptive.has_latency_goal:
            return given or "unstructured"
        if given not in ("", "structured"):
            raise said(f"{shown(given)}: with a speedup heads and neurons are removed; leave the pattern out")
        return "structured"

    @field_validator("sparsity")
    @classmethod
    def _not_beside_a_latency_goal(cls, given: float | None, info: ValidationInfo) -> float | None:
        adaptive = info.data.get("adaptive")
        if given is not None and adaptive is not None and adaptive.has_latency_goal:
            raise said(f"{given:g}: the speedup decides how much is removed; leave the sparsity out")
        return given
