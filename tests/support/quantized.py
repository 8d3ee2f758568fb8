"""An artifact's graph in another form, in a folder of its own."""

import shutil
from collections.abc import Callable
from pathlib import Path


def quantized_copy(artifact: Path, folder: Path, quantize: Callable[[Path], None]) -> Path:
    """Copy an artifact into a folder, and quantize the copy's graph in place."""
    copy = folder / "artifact"
    shutil.copytree(artifact, copy)
    quantize(copy / "model.onnx")
    return copy
