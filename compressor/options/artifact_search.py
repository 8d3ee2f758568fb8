"""Options of the search for the best artifact."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from compressor.options.section import Common, Section

Objective = Literal["latency", "size"]


class SearchConfig(Section):
    """Search."""

    objective: Annotated[Objective, Common()] = Field(
        "latency", description="What is to be smallest among the artifacts that hold the gates."
    )
    budget_minutes: Annotated[float, Common()] = Field(
        30.0,
        gt=0,
        le=100_000,
        description="Time for candidates. None begins that would not end in time, if it took as long as the "
        "longest before it.",
    )
    candidates: int = Field(12, ge=1, le=1000, description="Maximum number of candidates of each table.")
    closeness: float = Field(
        0.1,
        gt=0,
        le=10,
        description="The search ends when the fastest candidate that holds the gates and the next one that "
        "does not differ by less than this fraction in speed.",
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
    recovery_rate: float = Field(5e-4, gt=0, le=1, description="Peak learning rate of the recovery.")
