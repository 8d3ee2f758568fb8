"""What TensorRT made of a graph: the log and the layers that trtexec leaves, read back as figures."""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from compressor.errors import UserError

ENGINE = "model.plan"
BUILD_LOG = "trtexec.log"
LAYER_INFO = "layers.json"
GRAPH_DIGEST = "graph.sha256"

MOST_ERRORS = 10

_Content = TypeVar("_Content")
_STARTED = re.compile(r"^&&&& RUNNING TensorRT\.trtexec(?: \[TensorRT v([\d.]+)\])?(.*)$", re.M)
_ENDED = re.compile(r"^&&&& (PASSED|FAILED) TensorRT\.trtexec", re.M)
_ERROR = re.compile(r"^(?:\[[^\]]*\] )?\[E\] *(?:\[TRT\] *)?(.+)$", re.M)
# Early versions of TensorRT list names alone; later ones count, and may list names after a colon.
_SPARSE_LINES = {
    "eligible": re.compile(
        r"\(Sparsity\) (?:Layers eligible for sparse math:"
        r"|Found (?P<count>\d+) layer\(s\) eligible to use sparse tactics:?)(?P<names>[^\n]*)"
    ),
    "chosen": re.compile(
        r"\(Sparsity\) (?:TRT inference plan picked sparse implementation for layers:"
        r"|Chose (?P<count>\d+) layer\(s\) using sparse tactics:?)(?P<names>[^\n]*)"
    ),
}
_FLAG = re.compile(r"--sparsity=(\w+)")
_GPU = re.compile(r"\] Selected Device: ([^\n]+)")
_BUILD_TIME = re.compile(r"\] Engine built in (\S+) sec")
_THROUGHPUT = re.compile(r"\] Throughput: (\S+) qps")
_SKIPPED = re.compile(r"Skipping tactic \S+ due to insufficient memory", re.I)
_PERCENTILE = re.compile(r"percentile\(([\d.]+)%\) = (\S+) ms")
_SPARSE_KERNEL = re.compile(r"sparse|spmma|sptensor", re.I)
_ONNX_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one inference.

    Attributes:
        percentiles: percent, as trtexec writes it, to milliseconds.
    """

    min_ms: float
    max_ms: float
    mean_ms: float
    median_ms: float
    percentiles: dict[str, float]


@dataclass(frozen=True)
class SparseLayers:
    """How many layers, and which, if TensorRT named them; layers are nodes that it fused."""

    count: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class EngineLog:
    """A run of trtexec.

    Attributes:
        version: of TensorRT, such as "10.14.1"; None if the log does not tell.
        passed: whether trtexec built the engine and, if it was to, ran it.
        errors: the first errors, the cause before its consequences. An engine may be built all the
            same, where TensorRT found another way.
        sparsity: what --sparsity was; None if it was not given.
        eligible: layers with 2:4 weights; None if the log does not tell.
        chosen: layers for which a sparse kernel was the fastest.
        skipped_tactics: kernels that were not tried for want of memory; with any, others than the
            fastest may have been chosen.
        throughput_per_second: batches, not texts, of the shape that was run.
        gpu_latency: of the kernels alone; None if nothing was run.
        latency: with transfers, if there were any.
    """

    version: str | None
    passed: bool
    errors: tuple[str, ...]
    gpu: str | None
    sparsity: str | None
    eligible: SparseLayers | None
    chosen: SparseLayers | None
    skipped_tactics: int
    build_seconds: float | None
    throughput_per_second: float | None
    gpu_latency: Latency | None
    latency: Latency | None


@dataclass(frozen=True)
class EngineLayer:
    """A layer of a built engine.

    Attributes:
        kernel: TensorRT's name of its kernel, empty if it has none.
        sparse: whether that kernel multiplies 2:4 weights.
        nodes: the ONNX nodes that it does the work of.
    """

    name: str
    kernel: str
    sparse: bool
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class EngineBuild(EngineLog):
    """All that `build_engine.sh` left of a build.

    Attributes:
        graph_sha256: of the graph that was built; None if the script that built it did not tell.
        sparse_layers: those of the engine's layers that have a sparse kernel; None if the build left
            no layers.
    """

    graph_sha256: str | None
    sparse_layers: tuple[EngineLayer, ...] | None


def read_engine_log(text: str) -> EngineLog:
    """Read what `trtexec --verbose` wrote, of TensorRT 8.4 or later; a failed build is read too.

    Raises:
        UserError: no log of trtexec, one that ends too early, one of a forced run, or figures that
            are none.
    """
    started = _last(_STARTED, text)
    if started is None:
        raise UserError(f"no log of trtexec; give the {BUILD_LOG} that build_engine.sh wrote")
    # Logs may be appended to one file; the last run is the one whose engine is there.
    text = text[started.start() :]
    ended = _last(_ENDED, text)
    if ended is None:
        raise UserError(
            "ends before trtexec did: it still runs, or was stopped; run build_engine.sh again, to its end"
        )
    flag = _FLAG.search(started[2])
    if flag is not None and flag[1] == "force":
        raise UserError(
            "is of a run with --sparsity=force, which overwrites weights: the figures are another model's; "
            "run with --sparsity=enable"
        )
    gpu, built, throughput = (pattern.search(text) for pattern in (_GPU, _BUILD_TIME, _THROUGHPUT))
    return EngineLog(
        version=None if started[1] is None else _version(started[1]),
        passed=ended[1] == "PASSED",
        errors=tuple(match[1].strip() for match in _ERROR.finditer(text))[:MOST_ERRORS],
        gpu=None if gpu is None else gpu[1].strip(),
        sparsity=None if flag is None else flag[1],
        eligible=_sparse_layers(_SPARSE_LINES["eligible"], text),
        chosen=_sparse_layers(_SPARSE_LINES["chosen"], text),
        skipped_tactics=len(_SKIPPED.findall(text)),
        build_seconds=None if built is None else _number(built[1]),
        throughput_per_second=None if throughput is None else _number(throughput[1]),
        gpu_latency=_latency("GPU Compute Time", text),
        latency=_latency("Latency", text),
    )


def read_layer_info(text: str) -> list[EngineLayer]:
    """Read what `trtexec --exportLayerInfo --profilingVerbosity=detailed` wrote.

    Raises:
        UserError: no such JSON, or names alone.
    """
    try:
        layers = json.loads(text)["Layers"]
        if not isinstance(layers, list):
            raise TypeError("Layers is no list")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"no layers of trtexec ({error}); give the {LAYER_INFO} that build_engine.sh wrote"
        ) from error
    if not all(isinstance(entry, dict) for entry in layers):
        raise UserError("holds names of layers alone; build with --profilingVerbosity=detailed")
    return [_layer(entry) for entry in layers]


def read_build(directory: Path) -> EngineBuild:
    """Read the directory that `build_engine.sh` filled.

    Raises:
        UserError: no log there, or one that cannot be read.
    """
    log = directory / BUILD_LOG
    if not log.is_file():
        raise UserError(
            f"{log}: no such file; build_engine.sh writes it, give the directory that it was given"
        )
    layers, digest = directory / LAYER_INFO, directory / GRAPH_DIGEST
    found = _read(layers, read_layer_info) if layers.is_file() else None
    run = _read(log, read_engine_log)
    return EngineBuild(
        **{entry.name: getattr(run, entry.name) for entry in fields(run)},
        graph_sha256=digest.read_text(encoding="ascii", errors="replace").strip()
        if digest.is_file()
        else None,
        sparse_layers=None if found is None else tuple(layer for layer in found if layer.sparse),
    )


def read_build_of(graph_sha256: str, directory: Path) -> EngineBuild:
    """Read the build of a graph that is known by its digest.

    Raises:
        UserError: as `read_build`; no engine came of it, or it is one of another graph.
    """
    build = read_build(directory)
    if not build.passed:
        raise UserError(f"{directory}: no engine was built: {'; '.join(build.errors[:1])}; build it again")
    if build.graph_sha256 != graph_sha256:
        known = "of another graph" if build.graph_sha256 else f"of an unknown graph, without {GRAPH_DIGEST}"
        raise UserError(f"{directory}: holds a build {known}; run the build_engine.sh of this artifact again")
    return build


def _read(path: Path, reader: Callable[[str], _Content]) -> _Content:
    try:
        return reader(path.read_text(encoding="utf-8", errors="replace"))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = deque(pattern.finditer(text), maxlen=1)
    return found[0] if found else None


def _version(digits: str) -> str:
    """Return 8601 as 8.6.1 and 101401 as 10.14.1; the minor version got a second digit in 10."""
    if "." in digits or len(digits) < 4:
        return digits
    width = 1 if len(digits) == 4 else 2
    major, minor, patch = digits[: -2 - width], digits[-2 - width : -2], digits[-2:]
    return f"{int(major)}.{int(minor)}.{int(patch)}"


def _sparse_layers(pattern: re.Pattern[str], text: str) -> SparseLayers | None:
    """Return the last such line: TensorRT writes one each time that it chooses kernels."""
    found = _last(pattern, text)
    if found is None:
        return None
    names = tuple(name.strip() for name in found["names"].split(", ") if name.strip())
    return SparseLayers(len(names) if found["count"] is None else int(found["count"]), names)


def _latency(name: str, text: str) -> Latency | None:
    # The verbose log explains each figure by a line that starts alike.
    found = re.search(rf"\] {name}: (min = [^\n]+)", text)
    if found is None:
        return None
    figures = dict(re.findall(r"(min|max|mean|median) = (\S+) ms", found[1]))
    missing = {"min", "max", "mean", "median"} - set(figures)
    if missing:
        raise UserError(f"{name} lacks its {', '.join(sorted(missing))}; the log was cut or changed")
    return Latency(
        **{f"{key}_ms": _number(value) for key, value in figures.items()},
        percentiles={percent: _number(value) for percent, value in _PERCENTILE.findall(found[1])},
    )


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{text!r} is no figure; trtexec timed nothing, or the log was changed")
    return value


def _layer(entry: dict[str, Any]) -> EngineLayer:
    kernel = str(entry.get("TacticName", ""))
    return EngineLayer(
        name=str(entry.get("Name", "")),
        kernel=kernel,
        sparse=_SPARSE_KERNEL.search(kernel) is not None,
        nodes=tuple(_ONNX_NODE.findall(str(entry.get("Metadata", "")))),
    )
