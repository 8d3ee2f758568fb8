"""OpenVINO as what runs an artifact, on CPUs. The package comes with the extra `openvino`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compressor.errors import UserError, first_line
from compressor.models.artifact_files import ARTIFACT_IR, EXPORT_AGAIN, OUTPUT
from compressor.models.portable.check_host import openvino_options
from compressor.models.predictors import ArtifactPredictor, artifact_graph

if TYPE_CHECKING:
    from openvino import Core

INSTALL = "pip install 'compress-bert[openvino]'"


@dataclass(frozen=True)
class _Port:
    """An input or output of a graph in the terms of ONNX Runtime."""

    name: str
    type: str
    shape: list[str | int | None]


class OpenVinoPredictor(ArtifactPredictor):
    """An exported artifact in OpenVINO: its `model.xml`, or the ONNX graph of one for another runtime.

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
        core = load_core()
        if device != "cpu":
            raise UserError(f"runtime: openvino: runs on CPUs, not on {device}; give --device cpu")
        graph = artifact_graph(directory)
        if (directory / ARTIFACT_IR).is_file():
            graph = directory / ARTIFACT_IR
        try:
            self._model = core.compile_model(graph, "CPU", openvino_options(threads))
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


def load_core() -> Core:
    """Return OpenVINO's core.

    Raises:
        UserError: OpenVINO is not installed.
    """
    try:
        from openvino import Core
    except ImportError as error:
        raise UserError(f"runtime: openvino: OpenVINO is not installed; install it: {INSTALL}") from error
    return Core()


def _port(port: Any) -> _Port:
    """Describe an input or output of a compiled model."""
    types = {"i64": "tensor(int64)", "f32": "tensor(float)", "f16": "tensor(float16)"}
    kind = port.get_element_type().get_type_name()
    sizes = [None if size.is_dynamic else size.get_length() for size in port.get_partial_shape()]
    # A value may have several names.
    name = OUTPUT if OUTPUT in port.get_names() else port.get_any_name()
    return _Port(name, types.get(kind, kind), list(sizes))
