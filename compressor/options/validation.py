"""Options of validation and inspection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from compressor.options.pruning import MetricName
from compressor.options.run import MOST_TOKENS
from compressor.options.section import Section


class KnowledgeConfig(Section):
    """Knowledge kept of a dense model."""

    against: str | None = Field(
        None, description="Dense classifier to compare with on texts: directory or hub id."
    )
    data: str | None = Field(
        None,
        description="Clean texts, labels not needed: file or hub id; the originals of --attacked if not "
        "given.",
    )
    attacked: Path | None = Field(
        None,
        description="Directory from `compress attack`, whose successful attacks are the attacked texts.",
    )
    examples: int | None = Field(
        None,
        ge=1,
        description="Most texts of a kind that are compared, drawn with the seed; 256 if not given.",
    )
    sentence: str | None = Field(None, description="Text of the attention maps; the first one if not given.")
    attacked_sentence: str | None = Field(None, description="What an attack made of --sentence.")
    attention_layer: int | None = Field(
        None, description="Encoder layer of the attention maps, from 1; the last if not given."
    )


class ValidateConfig(Section):
    """Measurement and gates."""

    task_metric: MetricName = Field(
        "accuracy",
        description="The task's own metric, beside accuracy: accuracy, f1 (of class 1, or the mean over more "
        "than two classes), matthews; of a regression pearson or spearman.",
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
        description="Timed runs of each variant at each batch size and length; up to twice as many where the "
        "times do not settle.",
    )
    latency_seconds: float = Field(
        120.0,
        gt=0,
        le=86_400,
        description="Longest time of a batch size and length, in seconds; where the times have not settled "
        "by then, they are marked so.",
    )
    latency_threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="Processor threads that latency is measured with: what the artifact is to be served with "
        "(--threads of serve.py, intra_op_thread_count of Triton); 0 takes --threads.",
    )
    latency_spinning: bool = Field(
        True,
        description="Measure latency with threads of ONNX Runtime that spin while they wait for work, as "
        "serve.py and Triton do unless told otherwise.",
    )
    footprint: bool = Field(
        True,
        description="Measure load time and memory, each variant in a process of its own: some seconds each.",
    )
    gates: list[str] = Field(
        [
            "dense_over_majority >= 0.05",
            "accuracy_drop <= 0.01",
            "accuracy_under_attack_drop <= 0.05",
        ],
        description="Bounds on the result, such as 'accuracy_drop <= 0.01', 'accuracy >= 0.99 * dense' or "
        "'latency_p50 <= 1.1 * baseline'; a broken one gives exit code 1, unless it begins with 'warn:'.",
    )
    baseline: str | None = Field(
        None, description="Report of an earlier validation (report.json or its folder) for gates to refer to."
    )

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Batch size and sequence length of each latency that is timed, in order."""
        return [(size, length) for size in self.batch_sizes for length in self.sequence_lengths]
