"""An ONNX graph in the form that the options of an export ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch

from compressor.models.batching import Encoded
from compressor.models.classifier import Classifier
from compressor.options import ExportConfig
from compressor.options.export import precision_of, weight_bits_of
from compressor.system.console import Progress
from exporters.cpu_kernels import suit_cpu_kernels
from exporters.mixed import Quantized
from exporters.onnx import export_graph
from exporters.quantize import fit_scales, quantize_dynamic, quantize_static, quantize_weights
from exporters.quantize_rows import LARGEST_WEIGHTS
from exporters.rounding import FittedWeight, LayerInputs, fit_weights, observe_inputs
from exporters.sparse import store_sparse

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


# Makes int8 of a graph in place, with the weights that were fitted to texts.
QuantizeByRows: TypeAlias = Callable[[Path, Mapping[str, FittedWeight]], Quantized]


@dataclass(frozen=True)
class Calibration:
    """What int8 is fitted to.

    Attributes:
        inputs: of the encoder's layers, by name; empty where weights are rounded to the nearest.
        scales: of int8-static.
    """

    inputs: Mapping[str, LayerInputs] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)

    def for_timing(self) -> Calibration:
        """Return one that gives a graph the same nodes, and weights that take no time to be rounded."""
        return replace(
            self,
            inputs={
                name: replace(own, square=torch.zeros_like(own.square)) for name, own in self.inputs.items()
            },
        )


def write_graph(
    exported: Classifier,
    graph: Path,
    config: ExportConfig,
    calibration: Calibration,
    quantize_by_rows: QuantizeByRows,
) -> tuple[dict[str, Any], Quantized]:
    """Write the ONNX graph in the precision and storage of the options; see `give_form`."""
    write_plain_graph(exported, graph, config)
    return give_form(graph, config, calibration, quantize_by_rows)


def calibrate(
    exported: Classifier, encoded: Sequence[Encoded], config: ExportConfig, seed: int, progress: Progress
) -> Calibration:
    """Observe on texts what int8 is fitted to; nothing for other precisions.

    Args:
        exported: the classifier as its graph is written.
        encoded: texts like those that the artifact will see, never the test texts.
    """
    precision = precision_of(config)
    is_fitted = precision in ("int8", "int8-static") and config.rounding == "fitted"
    inputs = observe_inputs(exported, encoded, progress) if is_fitted else {}
    scales = fit_scales(exported, encoded, seed, progress) if precision == "int8-static" else {}
    return Calibration(inputs, scales)


def write_plain_graph(exported: Classifier, graph: Path, config: ExportConfig) -> None:
    """Write the ONNX graph in floating point: float32 where the options ask for int8."""
    export_graph(exported, graph, DTYPES.get(precision_of(config), torch.float32))


def give_form(
    graph: Path, config: ExportConfig, calibration: Calibration, quantize_by_rows: QuantizeByRows
) -> tuple[dict[str, Any], Quantized]:
    """Give a plain graph the precision and storage of the options, in place.

    Returns:
        What is stored sparsely, and what `quantize_by_rows` returns.
    """
    quantized, precision = Quantized(), precision_of(config)
    # TensorRT and GPUs have fusions of their own.
    if config.target == "onnx" and precision not in DTYPES:
        suit_cpu_kernels(graph, any_processor=config.target_isa == "any")
    by_rows = precision == "int8" and config.runtime != "openvino"
    largest = LARGEST_WEIGHTS[weight_bits_of(config) if by_rows else 8]
    fitted = fit_weights(graph, calibration.inputs, largest, by_rows=by_rows) if calibration.inputs else {}
    if by_rows:
        quantized = quantize_by_rows(graph, fitted)
    elif precision == "int8":
        quantize_weights(graph, fitted)
    elif precision == "int8-static":
        quantize_static(graph, calibration.scales, fitted)
    elif precision == "int8-dynamic":
        quantize_dynamic(graph)
    return store_sparse(graph) if config.storage == "sparse" else {}, quantized
