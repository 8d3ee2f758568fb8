"""int8 graphs with one scale for a tensor: dynamic, for ONNX Runtime, and static (QDQ), for TensorRT as well.

Weights are symmetric with a scale for each output channel in both, so that a zero stays exactly zero.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from compressor.models.batching import Encoded
from compressor.models.classifier import Classifier, encoder_linears
from compressor.system.console import Progress
from exporters.onnx_graph import replace_contents
from exporters.quantize_rows import int8_weight
from exporters.rounding import FittedWeight, watch_inputs

LARGEST = 127
# Tokens of a layer's input that its scale is fitted to; the error is flat in their number.
FITTED_TOKENS = 1024
# Largest value that is kept, as a share of the largest that was seen.
CLIPPING_SHARES = torch.linspace(0.1, 1.0, 91, dtype=torch.float64)


def quantize_dynamic(path: Path) -> None:
    """Make a graph's matrices and embeddings int8 in place; inputs of matrices are quantized as they come.

    Scales of activations are found at run time, so no texts are needed; each is of a whole batch, so that the
    answer to a text depends on the others. Products of two activations stay float. The operators are ONNX's
    own, but TensorRT has no DynamicQuantizeLinear.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize

    model = onnx.load(path)
    # ONNX Runtime runs no such product with a constant for each head.
    stacked = {entry.name for entry in model.graph.initializer if len(entry.dims) > 2}
    with _quiet():
        # Scores and contexts of attention are products of activations.
        quantize(
            model,
            path,
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[node.name for node in model.graph.node if stacked.intersection(node.input)],
            extra_options={"MatMulConstBOnly": True},
        )


def quantize_static(
    path: Path, scales: Mapping[str, float], fitted: Mapping[str, FittedWeight] | None = None
) -> None:
    """Make the encoder's matrices int8 in place, their inputs too, with scales that are fixed.

    What reads one tensor shares its quantized form; residuals, which read the same tensors, stay float.

    Args:
        scales: of each encoder layer's input, by the layer's name (`fit_scales`).
        fitted: weights that were fitted to texts, by name; all others are rounded to the nearest.
    """
    model = onnx.load(path)
    initializers = {entry.name: entry for entry in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    added: list[onnx.TensorProto] = [numpy_helper.from_array(np.array(0, np.int8), "int8_zero")]
    quantized: dict[str, str] = {}
    for node in model.graph.node:
        name = node.input[1].removesuffix(".weight") if node.op_type == "MatMul" else ""
        if name in scales:
            source = node.input[0]
            if source not in quantized:
                quantized[source] = f"{source}_dequantized"
                added.append(numpy_helper.from_array(np.array(scales[name], np.float32), f"{source}_scale"))
                parameters = [f"{source}_scale", "int8_zero"]
                nodes += [
                    helper.make_node(
                        "QuantizeLinear", [source, *parameters], [f"{source}_quantized"], f"{source}_quantize"
                    ),
                    helper.make_node(
                        "DequantizeLinear",
                        [f"{source}_quantized", *parameters],
                        [quantized[source]],
                        f"{source}_dequantize",
                    ),
                ]
            added += _int8_weight(initializers.pop(node.input[1]), fitted or {})
            nodes.append(_dequantized(node.input[1]))
            node.input[0], node.input[1] = quantized[source], nodes[-1].output[0]
        nodes.append(node)
    replace_contents(model, nodes, [*initializers.values(), *added])
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def quantize_weights(path: Path, fitted: Mapping[str, FittedWeight] | None = None) -> None:
    """Make the weights of a graph's matrices int8 in place, in the form in which OpenVINO quantizes inputs.

    Each weight is dequantized before its product, as far as the graph says. OpenVINO takes the int8 values as
    they are, and quantizes what they are multiplied with at run time: groups of a token's values, none of
    which depend on another token.

    Args:
        fitted: weights that were fitted to texts, by name; all others are rounded to the nearest.
    """
    model = onnx.load(path)
    kept = {entry.name: entry for entry in model.graph.initializer}
    read = {node.input[1] for node in model.graph.node if node.op_type == "MatMul"}
    weights = [kept.pop(name) for name in sorted(read & set(kept)) if len(kept[name].dims) == 2]
    made = {weight.name: _dequantized(weight.name) for weight in weights}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in made:
            node.input[1] = made[node.input[1]].output[0]
    added = [part for entry in weights for part in _int8_weight(entry, fitted or {})]
    replace_contents(model, [*made.values(), *model.graph.node], [*kept.values(), *added])
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def _dequantized(name: str) -> onnx.NodeProto:
    """The node that makes a weight of what `_int8_weight` gives."""
    parts = [f"{name}_{part}" for part in ("quantized", "scale", "zero_point")]
    return helper.make_node("DequantizeLinear", parts, [f"{name}_dequantized"], f"{name}_dequantize", axis=1)


def _int8_weight(weight: TensorProto, fitted: Mapping[str, FittedWeight]) -> list[TensorProto]:
    """Values, scales and zero points of a weight `(in, out)`, one scale a column."""
    own = int8_weight(weight, fitted)
    return [
        numpy_helper.from_array(own.values, f"{weight.name}_quantized"),
        numpy_helper.from_array(own.scales, f"{weight.name}_scale"),
        numpy_helper.from_array(np.zeros(len(own.scales), np.int8), f"{weight.name}_zero_point"),
    ]


def fit_scale(values: Tensor) -> float:
    """The symmetric int8 scale with the least squared error on `values`, any shape.

    Values above 127 scales are clipped: what that costs a few large ones, all others gain.
    """
    flat = values.flatten().double()
    largest = float(flat.abs().max())
    if largest == 0:
        return 1.0
    scales = CLIPPING_SHARES * largest / LARGEST
    errors = [float((fake_quantize(flat, scale) - flat).square().sum()) for scale in scales.tolist()]
    return float(scales[int(np.argmin(errors))])


def fake_quantize(values: Tensor, scale: float) -> Tensor:
    """What int8 with that scale and zero point 0 makes of values."""
    return (values / scale).round().clamp(-LARGEST - 1, LARGEST) * scale


def fit_scales(
    classifier: Classifier, encoded: Sequence[Encoded], seed: int, progress: Progress
) -> dict[str, float]:
    """Scale of each encoder layer's input, from tokens of real texts; no padding is among them.

    Args:
        encoded: texts like those that the artifact will see, never the test texts.
        seed: of the tokens that are drawn, `FITTED_TOKENS` a layer.
    """
    linears = encoder_linears(classifier.model)
    share = min(1.0, FITTED_TOKENS / sum(len(ids) for ids, _ in encoded))
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.empty(0)
    seen: dict[str, list[Tensor]] = {name: [] for name in linears}

    def keep(name: str, rows: Tensor) -> None:
        nonlocal chosen
        if name == next(iter(linears)):
            # The same tokens of a text for all its layers.
            chosen = torch.rand(len(rows), generator=generator) < share
        seen[name].append(rows[chosen].cpu())

    watch_inputs(classifier, encoded, keep, progress, "Fitting int8 scales")
    return {name: fit_scale(torch.cat(values)) for name, values in seen.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime's tool advises a preparation that changes nothing for these graphs."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
