"""The graph of an artifact in OpenVINO's own form, beside the ONNX graph that it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compressor.models.artifact_files import ARTIFACT_GRAPH, ARTIFACT_IR
from compressor.models.openvino import load_core
from compressor.models.portable.check_host import QUANTIZATION_GROUP

# Servers that set no options read these from the file.
RUNTIME_OPTIONS = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": QUANTIZATION_GROUP}


def write_ir(directory: Path) -> None:
    """Write `model.xml` and `model.bin` of the ONNX graph in a directory.

    The same graph gives the same bytes. Weights keep their types, of which OpenVINO would make float16.

    Raises:
        UserError: OpenVINO is not installed.
    """
    core = load_core()
    from openvino import save_model

    model = core.read_model(directory / ARTIFACT_GRAPH)
    name_by_place(model)
    for name, value in RUNTIME_OPTIONS.items():
        model.set_rt_info(str(value), ["runtime_options", name])
    save_model(model, directory / ARTIFACT_IR, compress_to_fp16=False)


def name_by_place(model: Any) -> None:
    """Rename the operations of a model that OpenVINO numbered through all models of a process."""
    for place, operation in enumerate(model.get_ordered_ops()):
        name, kind = operation.get_friendly_name(), operation.get_type_name()
        if name.startswith(f"{kind}_") and name.removeprefix(f"{kind}_").isdecimal():
            operation.set_friendly_name(f"{kind}_at_{place}")
