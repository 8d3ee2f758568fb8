"""Define the report of a validation (`report.json`) and its appendix for readers.

The JSON schema next to this file is generated from these models; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from compressor.options import MetricName
from exporters.tensorrt.engine_log import EngineBuild

SCHEMA_VERSION = 3
REPORT = "report.json"
VARIANTS = ("dense", "pruned", "artifact")
OF_CLASSES = "Null for regression."
OF_RERANKERS = "Null unless task_metric is ndcg or mrr."

Verdict = Literal["pass", "fail"]
GateStatus = Literal["pass", "fail", "warn", "inconclusive"]
SliceKind = Literal["label", "length"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class IntervalFigures(_Part):
    """Both ends of a 95 % confidence interval."""

    low: float
    high: float


class WordBudgetFigures(_Part):
    """Accuracy under attack within a word budget, from the attack without a limit."""

    max_words_changed: float = Field(gt=0, le=1)
    accuracy_under_attack: float = Field(ge=0, le=1)
    interval: IntervalFigures


class MeanAccuracyFigures(_Part):
    """Accuracy under attack, averaged over word budgets."""

    longest_budget: float = Field(gt=0, le=1, description="The word budgets are from 0 to this.")
    mean: float = Field(ge=0, le=1)
    interval: IntervalFigures


class RobustnessFigures(_Part):
    """Metrics of one attack, or of several together; fractions are from 0 to 1."""

    attack: str = Field(description="Its name; of several, their names with commas between them.")
    accuracy: float = Field(ge=0, le=1, description="Accuracy on the attacked examples, before the attack.")
    accuracy_under_attack: float = Field(ge=0, le=1)
    attack_success_rate: float | None = Field(
        ge=0,
        le=1,
        description="Fraction of the correctly classified examples that are changed; null without any.",
    )
    queries_per_example: float | None = Field(ge=0, description="Mean over the attacked examples.")
    examples: int = Field(ge=1)
    accuracy_interval: IntervalFigures
    accuracy_under_attack_interval: IntervalFigures
    attack_success_rate_interval: IntervalFigures | None
    word_budgets: list[WordBudgetFigures] = Field(
        [], description="One for each of the attack's word_budgets; empty for attacks without word budgets."
    )
    mean_accuracy_under_attack: MeanAccuracyFigures | None = Field(
        None, description="Null for attacks without word budgets."
    )


class MeanDifferenceFigures(_Part):
    """Difference of two means on the same examples, dense minus this variant."""

    difference: float = Field(ge=-1, le=1)
    interval: IntervalFigures
    examples: int = Field(ge=1)


class DifferenceFigures(_Part):
    """Difference of two fractions on the same examples, dense minus this variant."""

    difference: float = Field(ge=-1, le=1)
    interval: IntervalFigures
    p_value: float = Field(ge=0, le=1, description="p-value of McNemar's exact test.")
    only_first: int = Field(ge=0, description="Examples that count only for the dense model.")
    only_second: int = Field(ge=0, description="Examples that count only for this variant.")
    examples: int = Field(ge=1)


class TransferFigures(_Part):
    """Transfer of the dense model's adversarial texts to this variant."""

    texts: int = Field(
        ge=0, description="Adversarial texts whose original this variant classifies correctly."
    )
    fooled: int = Field(ge=0, description="Those of them that this variant classifies wrongly.")
    rate: float | None = Field(
        ge=0, le=1, description="Transfer rate, fooled divided by texts; null without texts."
    )
    interval: IntervalFigures | None


class WordBudgetDropFigures(_Part):
    """Difference of two attacks within a word budget."""

    max_words_changed: float = Field(gt=0, le=1)
    accuracy_under_attack_drop: DifferenceFigures


class AgainstFigures(_Part):
    """Comparison with the same attack on the dense model."""

    accuracy_under_attack_drop: DifferenceFigures
    word_budgets: list[WordBudgetDropFigures] = Field([], description="One for each of those in robustness.")
    mean_accuracy_under_attack_drop: MeanDifferenceFigures | None = Field(
        None, description="Null if there is no mean."
    )
    transfer: TransferFigures


class AttackFigures(_Part):
    """Metrics of one of several attacks, and the comparison with it on the dense model."""

    robustness: RobustnessFigures
    against_dense: AgainstFigures | None = Field(description="Null for the dense model itself.")


class AnswersAgainstFigures(_Part):
    """Comparison of a variant's predictions with the dense model's, on all test texts."""

    accuracy_drop: DifferenceFigures | None = Field(description=OF_CLASSES)
    label_agreement: float | None = Field(
        ge=0, le=1, description=f"Fraction of texts with the same predicted label. {OF_CLASSES}"
    )
    label_agreement_interval: IntervalFigures | None = Field(description=OF_CLASSES)
    task_score_drop: float
    task_score_drop_interval: IntervalFigures
    rank_correlation: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="Mean over queries of Spearman's correlation with the dense model's answers. "
        f"{OF_RERANKERS}",
    )
    rank_correlation_interval: IntervalFigures | None = Field(None, description=OF_RERANKERS)


class SliceFigures(_Part):
    """Accuracy on a part of the test data."""

    by: SliceKind
    name: str
    examples: int = Field(ge=1)
    accuracy: float = Field(ge=0, le=1)
    interval: IntervalFigures
    drop: DifferenceFigures | None = Field(description="Null for the dense model itself.")
    regression: bool = Field(description="Whether the interval of the drop is above zero.")


class LatencyFigures(_Part):
    """Time of one forward pass at one shape."""

    batch_size: int = Field(ge=1)
    sequence_length: int = Field(ge=1)
    p50_ms: float = Field(gt=0)
    p95_ms: float = Field(gt=0)
    p99_ms: float = Field(gt=0)
    examples_per_second: float = Field(gt=0, description="Batch size divided by the median time.")
    rounds: int = Field(ge=1, description="Number of timed runs.")
    stable: bool = Field(description="Whether the medians of the last three windows agree within 5 %.")


class FlopsFigures(_Part):
    """Floating-point operations of the encoder's matrix products at one shape."""

    batch_size: int = Field(ge=1)
    sequence_length: int = Field(ge=1)
    all_weights: int = Field(ge=0, description="With all weights.")
    nonzero_weights: int = Field(ge=0, description="With nonzero weights only.")


class FootprintFigures(_Part):
    """Load time and memory in a new process, after the libraries are imported."""

    load_seconds: float = Field(gt=0)
    peak_memory_bytes: int = Field(gt=0, description="Peak resident memory of the process.")
    model_memory_bytes: int = Field(
        ge=0, description="Part of it that is due to loading and one run at the shape below."
    )
    batch_size: int = Field(ge=1)
    sequence_length: int = Field(ge=1)


class SizeFigures(_Part):
    """Size by part, in bytes."""

    embeddings: int = Field(ge=0)
    encoder: int = Field(ge=0)
    head: int = Field(ge=0)
    other: int = Field(description="Header of the weight files, or nodes and constants of the graph.")
    tokenizer: int | None = Field(
        ge=0, description="Files of the tokenizer; not part of size_bytes. Null for a model from the hub."
    )


class InvarianceFigures(_Part):
    """Difference between the answers to texts alone on one thread and in padded batches."""

    examples: int = Field(ge=1, description="Number of texts.")
    batch_size: int = Field(ge=1, description="Texts of a batch.")
    shuffles: int = Field(ge=1, description="Number of orders in which batches were made of the texts.")
    batch_disagreement: float | None = Field(
        ge=0, le=1, description=f"Fraction of predicted labels that differ. {OF_CLASSES}"
    )
    worst_batch_shift: float = Field(ge=0, description="Largest absolute difference of a logit.")


class VariantFigures(_Part):
    """Measurements of one variant."""

    path: str
    accuracy: float | None = Field(ge=0, le=1, description=OF_CLASSES)
    accuracy_interval: IntervalFigures | None = Field(description=OF_CLASSES)
    examples: int = Field(ge=1, description="Number of test examples.")
    right: str | None = Field(
        pattern="^([0-9a-f]{2})+$",
        description="Correctly classified test examples, one bit each, first one highest, in hexadecimal. "
        f"Allows a paired comparison of two reports on the same data. {OF_CLASSES}",
    )
    task_score: float = Field(ge=-1, le=1, description="Value of task_metric.")
    task_score_interval: IntervalFigures
    calibration_error: float | None = Field(
        ge=0, le=1, description=f"Expected calibration error, 15 bins of equal width. {OF_CLASSES}"
    )
    answers_against_dense: AnswersAgainstFigures | None = Field(
        description="Null for the dense model itself."
    )
    slices: list[SliceFigures] = Field(description="Empty for regression.")
    robustness: RobustnessFigures | None = Field(
        description=f"Under several attacks an example counts if it holds under each of them. {OF_CLASSES}"
    )
    against_dense: AgainstFigures | None = Field(description=f"Null for the dense model itself. {OF_CLASSES}")
    attacks: list[AttackFigures] = Field([], description="One for each of several attacks; else empty.")
    latency: list[LatencyFigures]
    size_bytes: int = Field(ge=0, description="Weights (and graph), without the tokenizer.")
    size_ratio: float | None = Field(
        None,
        ge=0,
        description="size_bytes divided by that of the dense model; null in reports of versions without it.",
    )
    size_by_part: SizeFigures | None = Field(
        None, description="Null in reports of versions that did not measure it."
    )
    sparsity: float = Field(ge=0, le=1, description="Fraction of zeros in the encoder's matrices.")
    flops: FlopsFigures
    footprint: FootprintFigures | None = Field(description="Null if it was not measured.")
    invariance: InvarianceFigures | None = Field(
        None,
        description="Null if it was not measured, as in reports of versions that did not measure it.",
    )


class Variants(_Part):
    """All variants; pruned is null if its directory was not found."""

    dense: VariantFigures
    pruned: VariantFigures | None
    artifact: VariantFigures


class GateResult(_Part):
    """Result of one gate."""

    gate: str = Field(description="As written, such as `warn: accuracy >= 0.99 * dense`.")
    metric: str
    place: str | None = Field(
        description="Shape, attack or word budget at which the metric was closest to the bound or worst."
    )
    value: float = Field(description="Value of the metric.")
    interval: IntervalFigures | None = Field(
        description="95 % interval to compare with the limit; includes the uncertainty of both sides."
    )
    bound: str = Field(description="Such as `>= 0.99 * dense`.")
    limit: float = Field(description="Value of the bound.")
    status: GateStatus
    note: str | None = Field(description="Reason why the result is not reliable, if it is not.")

    @property
    def sentence(self) -> str:
        """Return metric and bound in one line."""
        place = f" at {self.place}" if self.place else ""
        interval = f" ({self.interval.low:.4g} to {self.interval.high:.4g})" if self.interval else ""
        limit = "" if self.bound.split()[-1] == f"{self.limit:g}" else f" = {self.limit:.6g}"
        note = f"; {self.note}" if self.note else ""
        certain = "certainly " if "certain:" in self.gate else ""
        return f"{self.metric}{place} is {self.value:g}{interval}, bound {certain}{self.bound}{limit}{note}"


class Report(_Part):
    """The result of a validation, in `report.json` and in the output of `--json`."""

    schema_version: int = SCHEMA_VERSION
    verdict: Verdict
    task_metric: MetricName
    majority_share: float | None = Field(
        ge=0,
        le=1,
        description=f"Accuracy of always predicting the most frequent label of the test data. {OF_CLASSES}",
    )
    class_coverage: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Fraction of the model's classes that occur in the test data; null in reports of "
        f"versions that did not measure it. {OF_CLASSES}",
    )
    absent_classes: list[str] = Field(
        [],
        description="Classes of the model that do not occur in the test data.",
    )
    variants: Variants
    gates: list[GateResult]
    engine: EngineBuild | None = Field(
        None, description="TensorRT engine of the artifact's graph; null without --engine."
    )
    environment: dict[str, Any]
    seed: int
    _path: Path | None = PrivateAttr(None)

    def written_to(self, path: Path) -> Report:
        """Return the report with the directory that it was written to, which is no part of its content."""
        report = self.model_copy()
        report._path = path
        return report

    @property
    def path(self) -> Path:
        """The directory of `report.json` and the pages.

        Raises:
            ValueError: the report was not written.
        """
        if self._path is None:
            raise ValueError("this report was not written to a directory")
        return self._path

    def __fspath__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class LayerRow:
    """One linear layer of the encoder; the error is relative to the output's energy."""

    name: str
    sparsity: float
    relative_error: float | None


@dataclass(frozen=True)
class AttackRow:
    """One successful attack; texts of a pair are joined."""

    variant: str
    label: str
    original: str
    perturbed: str
    queries: int


@dataclass(frozen=True)
class Appendix:
    """Facts from the records of the stages that reports show beyond `report.json`."""

    layers: list[LayerRow] = field(default_factory=list)
    attacks: list[AttackRow] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
