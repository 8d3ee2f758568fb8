"""What runs a model: PyTorch a classifier, and an artifact the runtime that its manifest names.

ONNX Runtime and OpenVINO are built in; packages register others as entry points (group `compress.runtimes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

from compressor.errors import UserError
from compressor.models.classifier import load_classifier
from compressor.models.manifest import (
    MANIFEST,
    check_labels,
    is_artifact,
    read_artifact_manifest,
    read_runtime,
    runtime_name,
)
from compressor.models.openvino import OpenVinoPredictor
from compressor.models.predictors import OnnxPredictor, Predictor, TorchPredictor
from compressor.models.preprocessing import check_measured_as_proven
from compressor.options import RUNTIME_REGISTRY, RunConfig, RuntimeName, package_of
from compressor.system.environment import prepare, thread_count


class Runtime(Protocol):
    """Loads an exported artifact; a class of predictors is one."""

    def __call__(
        self,
        directory: Path,
        threads: int,
        device: str = "cpu",
        *,
        spinning: bool = False,
        lengths: Mapping[str, int | None] | None = None,
    ) -> Predictor:
        """Load the artifact in `directory`.

        Args:
            threads: that it may compute with.
            device: "cpu" or "cuda".
            spinning: whether idle threads may spin before they sleep.
            lengths: tokens of the inputs that it is to take, by the name of their option.

        Raises:
            UserError: it cannot be run.
        """


RUNTIMES: dict[str, Runtime] = {"onnxruntime": OnnxPredictor, "openvino": OpenVinoPredictor}


def runtime_named(name: RuntimeName) -> Runtime:
    """Return the runtime of a name, built in or registered by a package.

    Raises:
        UserError: no such name, or what a package registered under it cannot be called.
    """
    entry = RUNTIME_REGISTRY.entry_point(name)
    if entry is None:
        return RUNTIMES[name]
    found = RUNTIME_REGISTRY.load(name)
    if not callable(found):
        raise UserError(
            f"runtime: {name!r}, {entry.value} of {package_of(entry)}, is of type {type(found).__name__}, "
            f"which cannot be called to load an artifact"
        )
    return cast("Runtime", found)


def runtime_of(directory: Path, manifest: Mapping[str, Any]) -> Runtime:
    """Return the runtime that an artifact was exported for.

    Raises:
        UserError: its manifest names none that is registered.
    """
    return _runtime(directory, runtime_name(directory, manifest))


def _runtime(directory: Path, name: str) -> Runtime:
    try:
        return runtime_named(name)
    except UserError as error:
        raise UserError(f"{directory / MANIFEST}: {error}") from error


def loader_of(source: str, run: RunConfig) -> Callable[[], Predictor]:
    """Return what loads a classifier or an artifact whose files were checked before, and does nothing else.

    Args:
        source: directory, or hub id of a classifier.

    Raises:
        UserError: an artifact's manifest names no runtime that is registered.
    """
    device = prepare(run)
    path = Path(source)
    if is_artifact(path):
        return partial(_runtime(path, read_runtime(path)), path, thread_count(run), device.type)
    return lambda: TorchPredictor(load_classifier(source, device))


def load_predictor(directory: str, run: RunConfig, max_length: int) -> Predictor:
    """A predictor for a classifier (directory or hub id) or for an exported artifact (directory).

    Args:
        max_length: longest input in tokens that it is to be given.

    Raises:
        UserError: neither of the two, broken, or an artifact that was proven with shorter inputs.
    """
    path = Path(directory)
    device = prepare(run)
    lengths = {"max_length": max_length}
    if is_artifact(path):
        manifest = read_artifact_manifest(path)
        runtime = runtime_of(path, manifest)
        predictor = runtime(path, thread_count(run), device.type, lengths=lengths)
        check_labels(path, manifest, predictor.label_names)
        check_measured_as_proven(path, manifest, max_length)
        return predictor
    return TorchPredictor(load_classifier(directory, device, lengths=lengths))
