"""OpenVINO as what runs an artifact, on CPUs. The package comes with the extra `openvino`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.errors import UserError, first_line
from compressor.models.artifact_files import EXPORT_AGAIN
from compressor.models.predictors import ArtifactPredictor, artifact_graph

# Consecutive values of a token that share a scale, where weights are int8 and nothing else is. Of the sizes
# that divide most layers it is the largest that is fast.
QUANTIZATION_GROUP = 64
INSTALL = "pip install 'compress-bert[openvino]'"


@dataclass(frozen=True)
class _Port:
    """An input or output of a graph in the terms of ONNX Runtime."""

    name: str
    type: str
    shape: list[str | int | None]


class OpenVinoPredictor(ArtifactPredictor):
    """An exported artifact in OpenVINO, which reads the ONNX graph as it is.

    Args:
        directory: holds `model.onnx`, `config.json` and the tokenizer.
        threads: that one inference computes with.
        device: "cpu" alone.
        spinning: not used; OpenVINO's threads wait as its thread pool has it.
        lengths: tokens of the inputs that it is to take, by the name of their option.

    Raises:
        UserError: OpenVINO is not installed, or as `OnnxPredictor`.
    """

    runtime = "OpenVINO"

    def __init__(
        self,
        directory: Path,
        threads: int,
        device: str = "cpu",
        *,
        spinning: bool = False,
        lengths: Mapping[str, int | None] | None = None,
    ) -> None:
        try:
            import openvino
        except ImportError as error:
            raise UserError(f"runtime: openvino: OpenVINO is not installed; install it: {INSTALL}") from error
        if device != "cpu":
            raise UserError(f"runtime: openvino: runs on CPUs, not on {device}; give --device cpu")
        graph = artifact_graph(directory)
        options: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads,
            # Otherwise processors with bfloat16 would compute in it.
            "INFERENCE_PRECISION_HINT": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": QUANTIZATION_GROUP,
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            self._model = openvino.Core().compile_model(graph, "CPU", options)
        except Exception as error:  # OpenVINO raises plain RuntimeErrors, pybind11 others
            raise UserError(
                f"{graph}: cannot be loaded by OpenVINO: {first_line(error)}; {EXPORT_AGAIN}"
            ) from error
        inputs = [_port(entry) for entry in self._model.inputs]
        outputs = [_port(entry) for entry in self._model.outputs]
        self._take(directory, inputs, outputs, device, lengths)

    def _run(self, feeds: dict[str, NDArray[np.int64]]) -> NDArray[Any]:
        # The result lies in memory that the next call writes.
        return np.array(self._model(feeds)[0])


def _port(port: Any) -> _Port:
    """Describe an input or output of a compiled model."""
    types = {"i64": "tensor(int64)", "f32": "tensor(float)", "f16": "tensor(float16)"}
    kind = port.get_element_type().get_type_name()
    sizes = [None if size.is_dynamic else size.get_length() for size in port.get_partial_shape()]
    return _Port(port.get_any_name(), types.get(kind, kind), list(sizes))
