"""Options of pruning."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from compressor.options.registry import PluginOptions, Registry
from compressor.options.section import Section
from compressor.options.training import SubstitutionResourcesConfig, TrainingConfig

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

MetricName = Literal[ClassMetricName, CorrelationName]

CandidateScore = Literal["loss", MetricName]


class AdaptiveConfig(SubstitutionResourcesConfig):
    """Adaptive knowledge-retention pruning (algorithm 1)."""

    solver: Literal["fast", "exact", "greedy"] = Field(
        "fast",
        description="fast: ADMM mask search, swaps and exact least squares; exact: the paper's elimination, "
        "cubic in the layer's width and very slow past small models; greedy: one pass, the least exact.",
    )
    allocation: Literal["uniform", "error"] = Field(
        "uniform",
        description="uniform: the same sparsity everywhere, as in the paper; error: more zeros where the "
        "measured error is cheapest, the same number in all (unstructured only).",
    )
    adaptive_hessian: bool = Field(
        True, description="Second moments of the drifted inputs; if not, of the dense model's."
    )
    resolve_weight: bool = Field(
        True, description="Re-solve each dense weight for the drifted inputs before it is pruned."
    )
    calibration_tokens: int = Field(
        0,
        ge=0,
        le=100_000_000,
        description="Tokens to calibrate with: where the calibration texts have fewer, texts made of their "
        "pieces fill up; 0 takes the texts alone.",
    )
    damping: float = Field(
        0.01,
        gt=0,
        le=10,
        description="Ridge towards the dense weight, as a share of the Hessian's mean diagonal.",
    )
    reconstruction_passes: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Passes over the calibration texts in which each pruned encoder layer is tuned, "
        "zeros fixed and without labels, to the dense layer's output.",
    )
    reconstruction_rate: float = Field(3e-4, gt=0, le=1, description="Peak learning rate of these passes.")
    distillation_steps: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Training steps at the end in which the whole pruned model learns the dense model's "
        "logits and hidden states, zeros fixed and without labels, on the calibration texts, longer ones in "
        "windows of --max-length, and on made ones.",
    )
    distillation_examples: int = Field(
        0,
        ge=0,
        description="Calibration texts that these steps see, drawn with the seed; 0 takes as many as "
        "--calibration-examples.",
    )
    distillation_rate: float = Field(2e-4, gt=0, le=1, description="Peak learning rate of these steps.")
    distillation_substituted_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the words of these texts that each step also replaces, by the close ones that "
        "move the pruned model most from the dense model's answer, which it learns to give all the same: for "
        "a robust dense model; more than doubles the time of a step.",
    )
    resolve_heads: bool = Field(
        True, description="Re-solve pooler and classifier for the inputs that the pruned encoder feeds them."
    )
    iterations: int = Field(60, ge=1, le=10_000, description="Most ADMM iterations of the fast solver.")


class RandomizedConfig(TrainingConfig):
    """Randomized mask generation and selection (algorithm 2)."""

    steps: int = Field(3, ge=1, le=1000, description="Pruning steps over which the sparsity rises.")
    schedule: Literal["cubic", "geometric"] = Field(
        "cubic", description="How the sparsity rises: cubic, or the same share of live weights each step."
    )
    step_sparsities: list[Annotated[float, Field(gt=0, lt=1)]] | None = Field(
        None,
        min_length=1,
        description="Sparsity of each step, rising to that of the run, in place of --steps and --schedule.",
    )
    candidates: int = Field(3, ge=1, le=1000, description="Masks drawn in a step; the first is by magnitude.")
    candidate_schedule: CandidateSchedule = Field(
        "constant",
        description="The number of candidates over the steps: the same, or rising to it by equal parts, "
        "since a choice matters most where few weights are left.",
    )
    score: CandidateScore = Field(
        "loss",
        description="What candidates are compared by on held-out texts: the training loss, or a metric; f1 "
        "is of the second class, or the mean over classes if there are more; pearson and spearman are for a "
        "regression.",
    )
    shift_weight: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="What a candidate's score loses for each unit of divergence (in nats; of a regression, "
        "of squared difference) between its answers to held-out texts and to the same texts with typos and "
        "synonyms.",
    )
    attack_weight: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="What a candidate's score loses if DeepWordBug leaves no attacked held-out text with the "
        "right answer; in proportion if it leaves some.",
    )
    attacked_examples: int = Field(
        16, ge=1, description="Held-out texts that are attacked, if --attack-weight is given."
    )
    sampling_ratio: float = Field(
        0.05, ge=0, le=1, description="Share of the kept weights that is drawn and not ranked."
    )
    sampling_schedule: SamplingSchedule = Field(
        "constant",
        description="The sampling ratio over the steps: the same, or falling to a last small part.",
    )
    candidate_ratios: CandidateRatios = Field(
        "same",
        description="The sampling ratio over the candidates of a step: the same for all but the first, or "
        "spread from 0 to it, so that they differ by how much is drawn as well as by what.",
    )
    temperature: float = Field(
        1.0,
        gt=0,
        le=100,
        description="Weights are drawn with probability proportional to |w|^(1/temperature).",
    )
    saliency: Saliency = Field(
        "magnitude",
        description="What weights are ranked and drawn by: their magnitude, as published; or adaptive: what "
        "algorithm 1 keeps of all of the dense model's weights at the sparsity of the step, ahead of what it "
        "leaves out. Adaptive also re-solves what the mask keeps.",
    )
    mask_scope: Literal["layer", "global"] = Field(
        "layer", description="Where unstructured zeros are counted: in each matrix, or over all of them."
    )
    revive: bool = Field(
        False, description="Weights that a step zeroed may come back in a later one, with the dense value."
    )
    halving: bool = Field(
        False,
        description="Score candidates in rounds, each of which trains them on and drops the worse half; "
        "otherwise once.",
    )
    rectify: Literal["none", "adaptive"] = Field(
        "none",
        description="adaptive: before a candidate is scored and before the recovery, re-solve what the mask "
        "keeps for the dense model's outputs, layer by layer as in algorithm 1.",
    )
    reference: Literal["dense", "previous", "both"] = Field(
        "dense",
        description="Whose outputs re-solved weights reproduce: the dense model's, those of the model behind "
        "the previous step, or of both, candidates taking turns.",
    )
    early_steps: int = Field(
        6, ge=0, le=100_000, description="Training steps of a candidate before it is scored."
    )
    early_learning_rate: float = Field(1e-4, gt=0, le=1, description="Learning rate of these steps.")
    recovery_steps: int = Field(
        60, ge=0, le=1_000_000, description="Training steps of the chosen mask in each pruning step."
    )
    learning_rate: float = Field(5e-5, gt=0, le=1, description="Peak learning rate of the recovery.")
    step_learning_rates: list[Annotated[float, Field(gt=0, le=1)]] | None = Field(
        None,
        min_length=1,
        description="Peak learning rate of each pruning step's recovery, in place of --learning-rate, to "
        "which the early rate keeps its proportion: the best rate rises with the sparsity.",
    )
    patience: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Evaluations in a row without a lower held-out loss after which a recovery ends; it then "
        "takes the best weights. 0 trains to the end and takes the last.",
    )
    evaluation_interval: int = Field(
        20, ge=1, le=1_000_000, description="Training steps between evaluations, if --patience is given."
    )
    holdout_examples: int = Field(
        256, ge=1, description="Calibration texts kept out of training, on which candidates are scored."
    )
    distillation_weight: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Weight of the dense model's logits in the loss; the labels have the rest.",
    )
    distillation_temperature: float = Field(
        2.0, gt=0, le=100, description="Temperature of the softmax of both models in the distillation."
    )
    hidden_weight: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="Weight of the distance to the dense model's hidden states, which is added to the loss.",
    )
    dropout: bool = Field(
        False,
        description="Drop entries out in early and recovery steps, as the model's configuration says. A "
        "sparse model recovers faster without.",
    )


class PruneConfig(Section):
    """What is zeroed, and how."""

    algorithm: AlgorithmName = Field(
        "adaptive", description="adaptive and randomized are the published methods, the others baselines."
    )
    algorithm_options: PluginOptions = Field(
        {},
        validate_default=True,
        description="Options of an algorithm that a package registers, by their names; on the command line "
        "NAME=VALUE, repeated.",
    )
    pattern: str = Field(
        "unstructured",
        description="unstructured; N:M (N of M stay) such as 2:4; or structured (heads and neurons go).",
    )
    sparsity: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Share of zeros in the encoder, or of heads and neurons that go; 0.5 if not given, "
        "N:M implies its own.",
    )
    scope: Scope | None = Field(
        None,
        description="Where unstructured weights are ranked: each row (as in the paper), or the layer (query, "
        "key and value as one in adaptive); the algorithm's own if not given.",
    )
    calibration_examples: int = Field(
        512,
        ge=1,
        description="Calibration texts that are used, drawn with the seed; randomized trains on all.",
    )
    adaptive: AdaptiveConfig = AdaptiveConfig()
    randomized: RandomizedConfig = RandomizedConfig()

    @field_validator("algorithm_options")
    @classmethod
    def _of_the_algorithm(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        # Of an unknown algorithm no options are known.
        known = info.data.get("algorithm")
        return given if known is None else ALGORITHM_REGISTRY.checked_options(known, given)
