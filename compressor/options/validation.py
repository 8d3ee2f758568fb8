"""Options of validation and inspection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from compressor.options.pruning import MetricName
from compressor.options.run import MOST_TOKENS
from compressor.options.section import Common, Section


class KnowledgeConfig(Section):
    """Comparison with a dense model."""

    against: Annotated[str | None, Common()] = Field(
        None, description="Dense classifier to compare with: directory or hub id."
    )
    data: Annotated[str | None, Common()] = Field(
        None,
        description="Clean texts, without labels: file or hub id; by default the original texts of "
        "--attacked.",
    )
    attacked: Annotated[Path | None, Common()] = Field(
        None,
        description="Directory from `compress attack`; its successful attacks are the adversarial texts.",
    )
    examples: int | None = Field(
        None,
        ge=1,
        description="Maximum number of clean, and of adversarial, texts to compare, drawn with the seed; "
        "256 by default.",
    )
    sentence: str | None = Field(None, description="Text of the attention maps; by default the first one.")
    attacked_sentence: str | None = Field(None, description="Adversarial version of --sentence.")
    attention_layer: int | None = Field(
        None, description="Encoder layer of the attention maps, from 1; by default the last."
    )


class ValidateConfig(Section):
    """Measurement and gates."""

    task_metric: Annotated[MetricName, Common()] = Field(
        "accuracy",
        description="Metric of the task besides accuracy: accuracy, f1 (of class 1, or the macro average "
        "for more than two classes) or matthews; for regression pearson or spearman; for rerankers "
        "ndcg or mrr, of the first 10 candidates of each query, which is the first text of a pair.",
    )
    batch_sizes: list[Annotated[int, Field(ge=1, le=4096)]] = Field(
        [1, 8], min_length=1, description="Batch sizes of the latency table."
    )
    sequence_lengths: list[Annotated[int, Field(ge=1, le=MOST_TOKENS)]] = Field(
        [32, 128], min_length=1, description="Sequence lengths of the latency table, in tokens."
    )
    latency_rounds: int = Field(
        20,
        ge=3,
        le=100_000,
        description="Timed runs of each variant at each shape; up to twice as many until the times are "
        "stable.",
    )
    latency_seconds: float = Field(
        120.0,
        gt=0,
        le=86_400,
        description="Maximum time for one shape, in seconds. Times that are not stable by then are marked.",
    )
    latency_threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="Number of CPU threads for latency, the same as in serving (--threads of serve.py, "
        "intra_op_thread_count of Triton); 0 uses --threads.",
    )
    latency_spinning: bool = Field(
        True,
        description="Measure latency with ONNX Runtime threads that spin while they wait for work, as "
        "serve.py and Triton do by default.",
    )
    footprint: bool = Field(
        True,
        description="Measure load time and memory, each variant in its own process; takes some seconds each.",
    )
    invariance_examples: int = Field(
        128,
        ge=0,
        description="Number of test texts, drawn with the seed, whose answers alone on one thread are "
        "compared with those in padded batches of 16; 0 leaves the comparison out.",
    )
    gates: Annotated[list[str], Common()] = Field(
        [
            "dense_over_majority >= 0.05",
            "accuracy_drop <= 0.01",
            "accuracy_under_attack_drop <= 0.05",
        ],
        description="Bounds on metrics, such as 'accuracy_drop <= 0.01', 'accuracy >= 0.99 * dense' or "
        "'latency_p50 <= 1.1 * baseline'. A failed gate gives exit code 1, unless it starts with 'warn:'.",
    )
    baseline: Annotated[str | None, Common()] = Field(
        None,
        description="Report of an earlier validation (report.json or its directory) that gates refer to.",
    )

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Return batch size and sequence length of each timed shape, in order."""
        return [(size, length) for size in self.batch_sizes for length in self.sequence_lengths]
