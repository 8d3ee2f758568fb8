"""int8 weights fitted to texts: rounded for what layers give, with inputs whose channels are of one size.

Each matrix is rounded so that its layer's outputs on real inputs change least (`round_columns`). And a few
channels of a layer normalization's output are far larger than the others, so that one scale for a token
leaves these few of the 255 values. Such inputs are divided by a vector, by which the rows of the matrices
are multiplied (SmoothQuant; Xiao, Lin, Seznec, Wu, Demouth, Han, ICML 2023, eq. 4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor

from compressor.models.batching import Encoded, inputs_of, pad
from compressor.models.classifier import Classifier, encoder_linears
from compressor.pruning.solvers.rounding import round_columns
from compressor.pruning.solvers.solvers import damped
from compressor.system.console import Progress

# Ridge of the inputs' second moments, as a share of their mean diagonal.
DAMPING = 0.01
# How far the size of a channel goes over into the weights: 0 not at all, 1 wholly.
SMOOTHING = 0.5
# Of the largest channel; smaller ones are taken for as large as this.
SMALLEST_CHANNEL = 1e-4
# Of unsigned 8-bit integers: as many below as above.
MIDDLE = 128
# Few, since tensors with the same one share nodes of the graph.
ZERO_POINTS = (32, 64, MIDDLE, 192, 224)
# Inputs that are multiplied in one product, in float32; sums of products are in float64.
TOKENS_AT_ONCE = 1024


@dataclass(frozen=True)
class LayerInputs:
    """What is known of a linear layer's inputs X, a row a token.

    Attributes:
        square: `(in, in)` float64, `X^T X`.
        largest: `(in,)` float64, the largest absolute value of each channel.
        ranges: `(tokens, 2)` float64, the smallest and the largest value of each row.
    """

    square: Tensor
    largest: Tensor
    ranges: Tensor


class _Inputs:
    """Sums up the inputs of a linear layer."""

    def __init__(self, channels: int) -> None:
        self._square = torch.zeros(channels, channels, dtype=torch.float64)
        self._largest = torch.zeros(channels, dtype=torch.float64)
        self._ranges: list[Tensor] = []
        self._waiting: list[Tensor] = []

    def add(self, rows: Tensor) -> None:
        """Add inputs `(tokens, in)`."""
        self._waiting.append(rows.cpu())
        if sum(map(len, self._waiting)) >= TOKENS_AT_ONCE:
            self._sum_up()

    def found(self) -> LayerInputs:
        """Return what is known by now."""
        self._sum_up()
        ranges = torch.cat(self._ranges) if self._ranges else torch.zeros(0, 2, dtype=torch.float64)
        return LayerInputs(self._square, self._largest, ranges)

    def _sum_up(self) -> None:
        if self._waiting:
            rows = torch.cat(self._waiting)
            self._square += rows.T @ rows
            self._largest = torch.maximum(self._largest, rows.abs().amax(dim=0).double())
            self._ranges.append(torch.stack([rows.amin(dim=1), rows.amax(dim=1)], dim=1).double())
            self._waiting.clear()


@dataclass(frozen=True)
class FittedWeight:
    """An int8 matrix of a graph.

    Attributes:
        values: `(in, out)` int8.
        scales: `(out,)` float32.
        smoothing: `(in,)` float32, what the inputs are divided by; None where they are taken as they are.
        zero_point: what an input of 0 becomes, from 1 to 254, where each row has a scale.
    """

    values: NDArray[np.int8]
    scales: NDArray[np.float32]
    smoothing: NDArray[np.float32] | None = None
    zero_point: int = MIDDLE


def column_scales(weight: NDArray[Any], largest: int) -> NDArray[np.float32]:
    """Return what one integer is worth in each column of a weight `(in, out)`: float32 `(out,)`.

    Args:
        largest: value that the largest weight of a column becomes.
    """
    top = np.abs(weight).max(axis=0)
    # A column of zeros has any scale.
    return np.where(top > 0, top / largest, 1).astype(np.float32)


def watch_inputs(
    classifier: Classifier,
    encoded: Sequence[Encoded],
    see: Callable[[str, Tensor], None],
    progress: Progress,
    title: str,
) -> None:
    """Run a classifier, as its graph computes, on texts and show the inputs of each encoder layer.

    Args:
        see: is called with a layer's name and its inputs `(tokens, in)`, text after text and in the order in
            which data flows.
    """
    model = classifier.layout.for_graph(classifier.model)
    handles = [
        linear.register_forward_pre_hook(lambda _, inputs, name=name: see(name, inputs[0].flatten(0, -2)))
        for name, linear in encoder_linears(model).items()
    ]
    try:
        for text in progress.track(encoded, title):
            with torch.inference_mode():
                # One text at a time has no padding.
                model(**inputs_of(model, pad([text], 0)))
    finally:
        for handle in handles:
            handle.remove()


def observe_inputs(
    classifier: Classifier, encoded: Sequence[Encoded], progress: Progress
) -> dict[str, LayerInputs]:
    """Return what is known of the inputs of each encoder layer, by its name; layers that share them share it.

    Args:
        encoded: texts like those that the artifact will see, never the test texts.
    """
    linears = encoder_linears(classifier.model)
    first = {
        name: group[0]
        for _, group in classifier.layout.groups(classifier.model)
        for name in group
        if name in linears
    }
    sums = {name: _Inputs(linears[name].in_features) for name in dict.fromkeys(first.values())}

    def see(name: str, rows: Tensor) -> None:
        if name in sums:
            sums[name].add(rows)

    watch_inputs(classifier, encoded, see, progress, "Fitting int8 weights")
    found = {name: own.found() for name, own in sums.items()}
    return {name: found[shared] for name, shared in first.items()}


def fit_weights(
    graph: Path, inputs: Mapping[str, LayerInputs], largest: int, *, by_rows: bool
) -> dict[str, FittedWeight]:
    """Quantize the encoder's matrices of a float32 graph, by the weights' names; the graph stays as it is.

    Args:
        inputs: of the layers, by name; a matrix without any is left out.
        largest: value that the largest weight of a column becomes.
        by_rows: whether the inputs have a scale for each row; then outputs of layer normalizations are
            divided by a vector, and others have a zero point of their own.
    """
    model = onnx.load(graph)
    weights = {entry.name: entry for entry in model.graph.initializer}
    normalized = {node.output[0] for node in model.graph.node if node.op_type == "LayerNormalization"}
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights and _layer(node.input[1]) in inputs:
            readers.setdefault(node.input[0], []).append(node.input[1])
    fitted: dict[str, FittedWeight] = {}
    for source, names in readers.items():
        own = inputs[_layer(names[0])]
        matrices = {name: torch.tensor(numpy_helper.to_array(weights[name])).double() for name in names}
        smoothing, zero_point = None, MIDDLE
        if by_rows and source in normalized:
            smoothing = smoothing_of(own.largest, torch.cat(list(matrices.values()), dim=1))
        elif by_rows:
            zero_point = fit_zero_point(own.ranges)
        for name, matrix in matrices.items():
            fitted[name] = _fitted(matrix, own.square, smoothing, zero_point, largest)
    return fitted


def smoothing_of(largest: Tensor, weight: Tensor) -> Tensor:
    """Return what each channel is divided by so that channels and the weights on them are of one size.

    Args:
        largest: `(in,)`, the largest absolute value of each channel.
        weight: `(in, out)`, all that the channels are multiplied by.

    Returns:
        `(in,)`, above 0, in float32's precision.
    """
    sizes = largest.clamp_min(float(largest.max()) * SMALLEST_CHANNEL)
    tops = weight.abs().amax(dim=1)
    tops = tops.clamp_min(float(tops.max()) * SMALLEST_CHANNEL)
    found = sizes**SMOOTHING / tops ** (1 - SMOOTHING)
    return torch.where(torch.isfinite(found) & (found > 0), found, 1.0).float().double()


def fit_zero_point(ranges: Tensor) -> int:
    """Return that of `ZERO_POINTS` with the smallest mean squared step; the middle one for no rows.

    A row's step is the least with which all its values are among the 256 integers. The outputs of a GELU are
    hardly below 0, so that a low zero point gives them nearly twice as many steps as the middle one.

    Args:
        ranges: `(rows, 2)`, the smallest and the largest value of each row.
    """
    if not ranges.any():
        return MIDDLE
    points = torch.tensor(ZERO_POINTS, dtype=ranges.dtype)
    below, above = -ranges[:, :1] / points, ranges[:, 1:] / (255 - points)
    return int(points[torch.maximum(below, above).square().mean(dim=0).argmin()])


def _layer(weight: str) -> str:
    """The name of the layer that a weight is of."""
    return weight.removesuffix(".weight")


def _fitted(
    weight: Tensor, square: Tensor, smoothing: Tensor | None, zero_point: int, largest: int
) -> FittedWeight:
    """Quantize a matrix `(in, out)`."""
    if smoothing is not None:
        weight, square = weight * smoothing[:, None], square / torch.outer(smoothing, smoothing)
    scales = column_scales(weight.numpy(), largest)
    steps = torch.from_numpy(scales).double()
    if square.any():
        values = round_columns(weight.T, damped(square, DAMPING)[0], steps, largest).T
    else:
        # Nothing tells roundings apart where inputs are always 0, or the layer was never asked.
        values = (weight / steps).round()
    return FittedWeight(
        np.ascontiguousarray(values.to(torch.int8).numpy()),
        scales,
        None if smoothing is None else smoothing.float().numpy(),
        zero_point,
    )
