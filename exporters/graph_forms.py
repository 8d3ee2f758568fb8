"""An ONNX graph in the form that the options of an export ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from compressor.models.classifier import Classifier
from compressor.options import ExportConfig
from compressor.options.export import precision_of
from exporters.cpu_kernels import suit_cpu_kernels
from exporters.mixed import Quantized
from exporters.onnx import export_graph
from exporters.quantize import quantize_dynamic, quantize_static, quantize_weights
from exporters.sparse import store_sparse

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def write_graph(
    exported: Classifier,
    graph: Path,
    config: ExportConfig,
    scales: Mapping[str, float] | None,
    quantize_by_rows: Callable[[Path], Quantized],
) -> tuple[dict[str, Any], Quantized]:
    """Write the ONNX graph in the precision and storage of the options; see `give_form`."""
    write_plain_graph(exported, graph, config)
    return give_form(graph, config, scales, quantize_by_rows)


def write_plain_graph(exported: Classifier, graph: Path, config: ExportConfig) -> None:
    """Write the ONNX graph in floating point: float32 where the options ask for int8."""
    export_graph(exported, graph, DTYPES.get(precision_of(config), torch.float32))


def give_form(
    graph: Path,
    config: ExportConfig,
    scales: Mapping[str, float] | None,
    quantize_by_rows: Callable[[Path], Quantized],
) -> tuple[dict[str, Any], Quantized]:
    """Give a plain graph the precision and storage of the options, in place.

    Args:
        scales: of int8-static.
        quantize_by_rows: makes int8 of a graph in place.

    Returns:
        What is stored sparsely, and what `quantize_by_rows` returns.
    """
    quantized, precision = Quantized(), precision_of(config)
    # TensorRT and GPUs have fusions of their own.
    if config.target == "onnx" and precision not in DTYPES:
        suit_cpu_kernels(graph)
    if scales is not None:
        quantize_static(graph, scales)
    elif precision == "int8" and config.runtime == "openvino":
        quantize_weights(graph)
    elif precision == "int8":
        quantized = quantize_by_rows(graph)
    elif precision == "int8-dynamic":
        quantize_dynamic(graph)
    return store_sparse(graph) if config.storage == "sparse" else {}, quantized
