"""The report of a validation: its form (`report.json`) and what people read besides it.

The JSON schema beside this file is made from these models; a test keeps the two alike.
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
OF_CLASSES = "Null of a regression, whose answers are numbers."

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
    """An attack that may change no more than a share of a text's words, read off the one without a bound."""

    max_words_changed: float = Field(gt=0, le=1)
    accuracy_under_attack: float = Field(ge=0, le=1)
    interval: IntervalFigures


class MeanAccuracyFigures(_Part):
    """Accuracy under attack, averaged over the shares of words that may change."""

    longest_budget: float = Field(gt=0, le=1, description="The shares are 0 to this.")
    mean: float = Field(ge=0, le=1)
    interval: IntervalFigures


class RobustnessFigures(_Part):
    """Figures of one attack; shares are 0 to 1."""

    attack: str
    accuracy: float = Field(ge=0, le=1, description="On the attacked examples, before the attack.")
    accuracy_under_attack: float = Field(ge=0, le=1)
    attack_success_rate: float | None = Field(
        ge=0, le=1, description="Successes among the examples that were right; null if there were none."
    )
    queries_per_example: float | None = Field(ge=0, description="Mean over the attacked examples.")
    examples: int = Field(ge=1)
    accuracy_interval: IntervalFigures
    accuracy_under_attack_interval: IntervalFigures
    attack_success_rate_interval: IntervalFigures | None
    word_budgets: list[WordBudgetFigures] = Field(
        [], description="One for each of the attack's word_budgets; none where they cannot be read off."
    )
    mean_accuracy_under_attack: MeanAccuracyFigures | None = Field(
        None, description="Null where it cannot be read off."
    )


class MeanDifferenceFigures(_Part):
    """Two means on the same examples, the dense model's minus this variant's."""

    difference: float = Field(ge=-1, le=1)
    interval: IntervalFigures
    examples: int = Field(ge=1)


class DifferenceFigures(_Part):
    """Two shares on the same examples, the dense model's minus this variant's."""

    difference: float = Field(ge=-1, le=1)
    interval: IntervalFigures
    p_value: float = Field(ge=0, le=1, description="McNemar's exact test that the two are the same.")
    only_first: int = Field(ge=0, description="Examples that count for the dense model alone.")
    only_second: int = Field(ge=0, description="Examples that count for this variant alone.")
    examples: int = Field(ge=1)


class TransferFigures(_Part):
    """The dense model's adversarial texts, replayed on this variant."""

    texts: int = Field(ge=0, description="Successes whose original this variant gets right.")
    fooled: int = Field(ge=0, description="Those whose perturbed text it gets wrong.")
    rate: float | None = Field(ge=0, le=1, description="Their share; null if there were no such texts.")
    interval: IntervalFigures | None


class WordBudgetDropFigures(_Part):
    """What two attacks that may change no more than a share of a text's words differ by."""

    max_words_changed: float = Field(gt=0, le=1)
    accuracy_under_attack_drop: DifferenceFigures


class AgainstFigures(_Part):
    """An attack held against the same attack on the dense model."""

    accuracy_under_attack_drop: DifferenceFigures
    word_budgets: list[WordBudgetDropFigures] = Field([], description="One for each of robustness's.")
    mean_accuracy_under_attack_drop: MeanDifferenceFigures | None = Field(
        None, description="Null where there is no mean."
    )
    transfer: TransferFigures


class AnswersAgainstFigures(_Part):
    """A variant's answers to all test texts, held against the dense model's answers."""

    accuracy_drop: DifferenceFigures | None = Field(description=OF_CLASSES)
    label_agreement: float | None = Field(
        ge=0, le=1, description=f"Share of texts that get the same label. {OF_CLASSES}"
    )
    label_agreement_interval: IntervalFigures | None = Field(description=OF_CLASSES)
    task_score_drop: float
    task_score_drop_interval: IntervalFigures


class SliceFigures(_Part):
    """Accuracy on a part of the test data."""

    by: SliceKind
    name: str
    examples: int = Field(ge=1)
    accuracy: float = Field(ge=0, le=1)
    interval: IntervalFigures
    drop: DifferenceFigures | None = Field(description="Null for the dense model itself.")
    regression: bool = Field(description="Whether the drop's interval is above nought.")


class LatencyFigures(_Part):
    """Time of one forward pass at one shape."""

    batch_size: int = Field(ge=1)
    sequence_length: int = Field(ge=1)
    p50_ms: float = Field(gt=0)
    p95_ms: float = Field(gt=0)
    p99_ms: float = Field(gt=0)
    examples_per_second: float = Field(gt=0, description="Batch size over the median time.")
    rounds: int = Field(ge=1, description="Timed runs behind the figures.")
    stable: bool = Field(description="Whether the medians of the last three windows agree within 5 %.")


class FlopsFigures(_Part):
    """Floating-point operations of the encoder's matrix products at one shape."""

    batch_size: int = Field(ge=1)
    sequence_length: int = Field(ge=1)
    all_weights: int = Field(ge=0, description="With every weight, zero or not.")
    nonzero_weights: int = Field(ge=0, description="With the weights that are not zero alone.")


class FootprintFigures(_Part):
    """Load time and memory in a fresh process, the libraries imported before."""

    load_seconds: float = Field(gt=0)
    peak_memory_bytes: int = Field(gt=0, description="Resident memory of the whole process at its peak.")
    model_memory_bytes: int = Field(
        ge=0, description="What of it came with loading and one run at the shape below."
    )
    batch_size: int = Field(ge=1)
    sequence_length: int = Field(ge=1)


class VariantFigures(_Part):
    """What was measured of one variant."""

    path: str
    accuracy: float | None = Field(ge=0, le=1, description=OF_CLASSES)
    accuracy_interval: IntervalFigures | None = Field(description=OF_CLASSES)
    examples: int = Field(ge=1, description="Test examples behind the accuracy and the task's score.")
    right: str | None = Field(
        pattern="^([0-9a-f]{2})+$",
        description="Which test examples are right: a bit each, the first one highest, in hexadecimal. "
        f"Two reports on the same data compare example by example. {OF_CLASSES}",
    )
    task_score: float = Field(ge=-1, le=1, description="The metric that the report's task_metric names.")
    task_score_interval: IntervalFigures
    calibration_error: float | None = Field(
        ge=0, le=1, description=f"Expected calibration error, 15 bins of equal width. {OF_CLASSES}"
    )
    answers_against_dense: AnswersAgainstFigures | None = Field(
        description="Null for the dense model itself."
    )
    slices: list[SliceFigures] = Field(description="None of a regression, whose answers are numbers.")
    robustness: RobustnessFigures | None = Field(description=OF_CLASSES)
    against_dense: AgainstFigures | None = Field(description=f"Null for the dense model itself. {OF_CLASSES}")
    latency: list[LatencyFigures]
    size_bytes: int = Field(ge=0, description="Weights (and graph), without the tokenizer.")
    sparsity: float = Field(ge=0, le=1, description="Share of zeros in the encoder's matrices.")
    flops: FlopsFigures
    footprint: FootprintFigures | None = Field(description="Null where it was not to be measured.")


class Variants(_Part):
    """The variants side by side; pruned is null where its directory was not at hand."""

    dense: VariantFigures
    pruned: VariantFigures | None
    artifact: VariantFigures


class GateResult(_Part):
    """What came of one gate."""

    gate: str = Field(description="As it is written, such as `warn: accuracy >= 0.99 * dense`.")
    metric: str
    place: str | None = Field(
        description="Shape, or share of words, at which the figure was nearest to the bound or worst."
    )
    value: float = Field(description="The metric's.")
    interval: IntervalFigures | None = Field(
        description="At 95 %, to be held against the limit: it holds the uncertainty of both sides."
    )
    bound: str = Field(description="Such as `>= 0.99 * dense`.")
    limit: float = Field(description="The number that the bound came to.")
    status: GateStatus
    note: str | None = Field(description="Why the figure is not to be relied on, if it is not.")

    @property
    def sentence(self) -> str:
        """Figure and bound in one line."""
        place = f" at {self.place}" if self.place else ""
        interval = f" ({self.interval.low:.4g} to {self.interval.high:.4g})" if self.interval else ""
        limit = "" if self.bound.split()[-1] == f"{self.limit:g}" else f" = {self.limit:.6g}"
        note = f"; {self.note}" if self.note else ""
        certain = "certainly " if "certain:" in self.gate else ""
        return f"{self.metric}{place} is {self.value:g}{interval}, bound {certain}{self.bound}{limit}{note}"


class Report(_Part):
    """The result of a validation, as `report.json` holds it and `--json` prints it."""

    schema_version: int = SCHEMA_VERSION
    verdict: Verdict
    task_metric: MetricName
    majority_share: float | None = Field(
        ge=0,
        le=1,
        description=f"Share of the most frequent label in the test data: a constant answer's. {OF_CLASSES}",
    )
    class_coverage: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the model's classes that some test text has; null in reports that were made "
        f"before it was measured. {OF_CLASSES}",
    )
    absent_classes: list[str] = Field(
        [],
        description="Classes of the model that no test text has: no figure of the report is about them.",
    )
    variants: Variants
    gates: list[GateResult]
    engine: EngineBuild | None = Field(
        None, description="What TensorRT made of the artifact's graph; null where no build of it was given."
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
    """What the readable reports show beyond `report.json`: facts from the stages' own records."""

    layers: list[LayerRow] = field(default_factory=list)
    attacks: list[AttackRow] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
