"""What each width of an encoder layer costs on a machine: a table that is measured there, and read anywhere.

The parts of an encoder layer run one after the other, so the time of a model is the sum of the times of its
parts: what is left without any head and neuron, and each layer's attention and feed-forward block. The table
has both blocks at several widths (as in ZipLM, Kurtic, Frantar & Alistarh, NeurIPS 2023); widths between them
are interpolated. `compress latency-table` measures one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from compressor.errors import UserError
from compressor.system.files import read_json

SCHEMA_VERSION: Literal[1] = 1
REMEDY = "measure it with: compress latency-table"


class Widths(NamedTuple):
    """What an encoder layer has of heads and of feed-forward neurons."""

    heads: int
    neurons: int


class TableShape(BaseModel):
    """A shape of the service, and the share of its traffic that has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_size: int = Field(ge=1)
    length: int = Field(ge=1)
    weight: float = Field(gt=0)


class BlockTimes(BaseModel):
    """What one block costs at each width, over the same layer without this block.

    Attributes:
        widths: number of heads or neurons, ascending from 0 to the dense model's.
        ms: for each width the milliseconds at each shape; zeros at width 0.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    widths: list[int]
    ms: list[list[float]]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.widths) != len(self.ms) or self.widths[:1] != [0] or any(self.ms[0]):
            raise ValueError("widths must begin with 0, at a cost of 0, and each must have its times")
        if any(below >= above for below, above in pairwise(self.widths)):
            raise ValueError("widths must ascend")
        return self

    def at(self, width: int) -> NDArray[np.float64]:
        """Return the milliseconds of a width at each shape, `(shapes,)` float64, between two linearly.

        Raises:
            ValueError: the width is beyond the dense model's.
        """
        if not 0 <= width <= self.widths[-1]:
            raise ValueError(f"a width of {width} is not between 0 and {self.widths[-1]}")
        columns = np.array(self.ms, dtype=np.float64).T
        return np.array([np.interp(width, self.widths, column) for column in columns])


class LatencyTable(BaseModel):
    """The times of a model family's blocks in a runtime, with the dense model's beside them.

    Attributes:
        runtime: name of the runtime.
        precision: of the graphs, as `compress export --precision` has it.
        threads: of each run.
        layers, heads, neurons, hidden_size, head_size: the dense model's shape.
        shapes: batch sizes and lengths that were measured.
        attention, feed_forward: of one encoder layer.
        rest_ms: of the model without any head and neuron, at each shape.
        dense_ms: of the whole dense model in the runtime, measured.
        reference_ms: of the whole dense model in PyTorch, measured in the same rounds.
        environment: machine and versions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = SCHEMA_VERSION
    runtime: str
    precision: str
    threads: int = Field(ge=1)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    neurons: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    head_size: int = Field(ge=1)
    shapes: list[TableShape] = Field(min_length=1)
    attention: BlockTimes
    feed_forward: BlockTimes
    rest_ms: list[float]
    dense_ms: list[float]
    reference_ms: list[float]
    environment: dict[str, Any]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.attention.widths[-1] != self.heads or self.feed_forward.widths[-1] != self.neurons:
            raise ValueError("the last width of each block must be the dense model's")
        rows = [*self.attention.ms, *self.feed_forward.ms, self.rest_ms, self.dense_ms, self.reference_ms]
        if any(len(row) != len(self.shapes) for row in rows):
            raise ValueError("each row of times must have one for each shape")
        if min(*self.rest_ms, *self.dense_ms, *self.reference_ms) <= 0:
            raise ValueError("the times of whole models must be above 0")
        return self

    @property
    def weights(self) -> NDArray[np.float64]:
        """Share of each shape, `(shapes,)` float64; their sum is 1."""
        weights = np.array([shape.weight for shape in self.shapes], dtype=np.float64)
        shares: NDArray[np.float64] = weights / weights.sum()
        return shares

    def predicted_ms(self, widths: Sequence[Widths]) -> NDArray[np.float64]:
        """Return the milliseconds of a model at each shape, `(shapes,)` float64.

        Args:
            widths: of each encoder layer.
        """
        total = np.array(self.rest_ms, dtype=np.float64)
        for heads, neurons in widths:
            total += self.attention.at(heads) + self.feed_forward.at(neurons)
        return total

    @property
    def dense_widths(self) -> list[Widths]:
        """Return what each encoder layer of the dense model has."""
        return [Widths(self.heads, self.neurons)] * self.layers

    @property
    def narrowest_widths(self) -> list[Widths]:
        """Return the fewest heads and neurons of a model that has some of both in each encoder layer."""
        return [Widths(self.attention.widths[1], self.feed_forward.widths[1])] * self.layers

    def dense_errors(self) -> NDArray[np.float64]:
        """Return by what share the prediction for the dense model is off at each shape, `(shapes,)` float64.

        It is above 0 where the prediction is more than what was measured.
        """
        predicted = self.predicted_ms(self.dense_widths)
        errors: NDArray[np.float64] = predicted / np.array(self.dense_ms) - 1
        return errors

    def speedup(self, ms: NDArray[np.float64]) -> float:
        """Return how many times as fast as dense PyTorch such times are, averaged over the shapes.

        The average is that of the time ratios, weighted by the shapes' shares: it is a sum over a model's
        blocks, as the geometric mean is not.
        """
        return float(1.0 / (self.weights @ (ms / np.array(self.reference_ms))))


def read_latency_table(path: Path) -> LatencyTable:
    """Read a file that `compress latency-table` wrote.

    Raises:
        UserError: the file is missing or broken; all of its problems are named.
    """
    content = read_json(path, REMEDY)
    try:
        return LatencyTable.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'table'}: {one['msg']}" for one in error.errors()
        )
        raise UserError(f"{path}: {problems}; {REMEDY}") from error
