"""Options of what looks for the best artifact."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from compressor.options.export import RuntimeName
from compressor.options.section import Common, Section, said

# Those of an export that a CPU runs.
TablePrecision = Literal["fp32", "fp16", "int8", "int8-dynamic", "int8-static"]
Objective = Literal["latency", "size"]
_SHAPE = re.compile(r"([1-9]\d{0,3})x([1-9]\d{0,4})(?::(\d+(?:\.\d+)?))?")


def parse_shapes(text: str) -> list[tuple[int, int, float]]:
    """Return batch size, length in tokens and weight of each shape of `1x32:2,8x128`.

    A weight that is not given is 1.

    Raises:
        ValueError: a shape is written in another way, has no weight above 0, or occurs twice.
    """
    found = []
    for part in text.split(","):
        match = _SHAPE.fullmatch(part.strip())
        weight = float(match[3] or 1) if match else 0.0
        if match is None or weight == 0:
            raise ValueError(
                f"{part.strip()!r} is no shape; write BATCHxLENGTH, with a weight above 0 as in 8x128:2"
            )
        found.append((int(match[1]), int(match[2]), weight))
    if len({shape[:2] for shape in found}) < len(found):
        raise ValueError("a shape occurs twice; give it once, with its weight")
    return found


def _checked_shapes(text: str) -> str:
    parse_shapes(text)
    return text


class LatencyTableConfig(Section):
    """Latency table."""

    runtime: Annotated[RuntimeName, Common()] = Field(
        "onnxruntime", description="What will run the artifact, as in `compress export`."
    )
    precision: Annotated[TablePrecision, Common()] = Field(
        "int8", description="Precision of the artifact, as in `compress export`."
    )
    shapes: Annotated[str, AfterValidator(_checked_shapes), Common()] = Field(
        "1x32,1x128,8x128",
        description="Batch sizes and lengths in tokens of the service, separated by commas. A weight after a "
        "colon is the share of its traffic, as in 1x32:2,8x128; by default all have the same.",
    )
    rounds: int = Field(
        12,
        ge=3,
        le=100_000,
        description="Timed runs of each model at each shape; up to twice as many until the times are stable.",
    )
    shape_seconds: float = Field(
        40.0,
        gt=0,
        le=86_400,
        description="Maximum time for one shape, in seconds; three runs of each model are timed in any case.",
    )


class SearchConfig(Section):
    """Search."""

    objective: Annotated[Objective, Common()] = Field(
        "latency", description="What is to be smallest among the artifacts that hold the gates."
    )
    latency_tables: Annotated[list[str], Common()] = Field(
        [],
        description="Files of compress latency-table, measured where the artifact will run: one for each "
        "runtime and precision to try. By default one is measured here, for int8 in ONNX Runtime.",
    )
    budget_minutes: Annotated[float, Common()] = Field(
        30.0,
        gt=0,
        le=100_000,
        description="Time for candidates. None begins that would not end in time, if it took as long as the "
        "longest before it, or as the exported dense model if it only has to be measured.",
    )
    processes: Annotated[int, Common()] = Field(
        1,
        ge=1,
        le=1000,
        description="Number of processes that make candidates: the next one, and those that are likely to "
        "come after it. They split the threads, and none works while a candidate is measured. Attacks are "
        "split over as many. The outcome is that of one process with as many threads as each has.",
    )
    speedups: list[Annotated[float, Field(gt=0)]] = Field(
        [],
        description="Speed-ups over dense PyTorch to try, in this order; those that no widths reach are left "
        "out. By default the search begins with what a gate on latency_ratio asks for, or half way, and "
        "bisects.",
    )
    candidates: int = Field(12, ge=1, le=1000, description="Maximum number of candidates of each table.")
    closeness: float = Field(
        0.1,
        gt=0,
        le=10,
        description="The search ends when the fastest candidate that holds the gates and the next one that "
        "does not differ by less than this fraction in speed.",
    )
    confidence: float = Field(
        0.8,
        ge=0.5,
        lt=1,
        description="One-sided confidence with which candidates must hold the gates on quality, by the "
        "intervals on the selection texts; 0.5 takes the figures as they are. The best of several candidates "
        "looks better there than it is, and has to hold the gates on the test texts as well.",
    )
    calibration_examples: int = Field(
        1024, ge=1, description="Number of calibration texts for pruning, drawn with the seed."
    )
    recovery_steps: int = Field(
        500,
        ge=0,
        le=1_000_000,
        description="Training steps after pruning that distill the dense model into a candidate, without "
        "labels.",
    )
    recovery_examples: int = Field(
        8192, ge=0, description="Number of calibration texts for the recovery, drawn with the seed."
    )
    recovery_rates: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [1e-4, 2e-4, 4e-4],
        min_length=1,
        description="Peak learning rates of the recovery to choose from, by a short run of each if there are "
        "several.",
    )
    recovery_robust: bool = Field(
        False,
        description="Also distill the dense model's answers to perturbed texts, as compress prune --robust.",
    )

    @model_validator(mode="after")
    def _something_to_make_robust(self) -> Self:
        if self.recovery_robust and not self.recovery_steps:
            raise said("recovery_robust: there is no recovery; give recovery_steps, such as 500")
        return self
