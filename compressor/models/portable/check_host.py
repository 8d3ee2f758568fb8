"""Check that this machine gives the answers that an exported artifact gave where it was exported.

    python check_host.py ARTIFACT [--json]

`reference.json` of the artifact has texts, their token ids and the graph's logits. The texts are encoded
again with `tokenizer.json`, and the graph is run on the recorded token ids on one thread, with the runtime
that recorded them: each text alone, and the shorter ones in one padded batch. Needs that runtime (onnxruntime
or openvino), tokenizers and numpy, and no other file of compress. Exit code 0: the same answers; 1: other
answers; 2: they cannot be compared.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

GRAPH, TOKENIZER, REFERENCE = "model.onnx", "tokenizer.json", "reference.json"
# OpenVINO's own form of the graph, and its weights.
IR, IR_WEIGHTS = "model.xml", "model.bin"
ONNX_RUNTIME, OPENVINO = "onnxruntime", "openvino"
# What each runtime reads.
GRAPH_FILES = {ONNX_RUNTIME: (GRAPH,), OPENVINO: (IR, IR_WEIGHTS)}
# Consecutive values of a token that share a scale, where weights are int8 and nothing else is. Of the sizes
# that divide most layers it is the largest that is fast.
QUANTIZATION_GROUP = 64
SCHEMA_VERSION = 1
EXPORT_AGAIN = "export it again with: compress export"
LONGEST_EXCERPT = 40
LARGEST_ID = 2**31 - 1
READ_BYTES = 2**20


class CheckError(Exception):
    """An artifact whose answers cannot be compared; one line."""


@dataclass(frozen=True)
class Vector:
    """A text, or a pair of texts, and what the artifact's tokenizer made of it."""

    text: str
    pair: str | None
    tokens: list[int]
    segments: list[int]


@dataclass(frozen=True)
class Reference:
    """The recorded answers of an artifact.

    Attributes:
        alone: logits `(texts, labels)` float64 of each text alone.
        batch: places of the texts that also ran in one batch, in its order.
        together: logits `(batch, labels)` float64 of these.
        pad_token_id: that shorter texts of the batch are padded with.
        tolerance: largest allowed difference of a logit.
        mean_tolerance: largest allowed mean difference of all logits.
        runtime: that gave the logits.
        graph_sha256: of the graph's files, one after the other.
        tokenizer_unchecked: why the tokenizers library cannot encode the texts; None where it can.
        recorded_with: versions and processor.
    """

    vectors: list[Vector]
    alone: NDArray[np.float64]
    batch: list[int]
    together: NDArray[np.float64]
    pad_token_id: int
    tolerance: float
    mean_tolerance: float
    runtime: str
    graph_sha256: str
    tokenizer_unchecked: str | None
    recorded_with: dict[str, str]


@dataclass(frozen=True)
class HostCheck:
    """How far the answers of this machine are from the recorded ones.

    Attributes:
        texts: their number.
        other_tokens: texts with other token ids; None where only transformers can encode them.
        worst_difference: largest absolute difference of a logit, alone or in the batch.
        tolerance: that it may have.
        mean_difference: mean absolute difference of all logits, alone and in the batch.
        mean_tolerance: that it may have.
        changed_labels: texts with another label, alone or in the batch; None of a regression.
        seconds: that it took, without loading the graph where it was loaded before.
        differs: which of `tokenizer`, `weights` and `kernels` are not as they were.
        problems: one line for each of these.
    """

    texts: int
    other_tokens: int | None
    worst_difference: float
    tolerance: float
    mean_difference: float
    mean_tolerance: float
    changed_labels: int | None
    seconds: float
    differs: list[str]
    problems: list[str]

    @property
    def summary(self) -> str:
        """Return what was found in one line, without the problems."""
        labels = "" if self.changed_labels is None else f", {self.changed_labels} labels differ"
        tokens = "token ids not checked, " if self.other_tokens is None else ""
        return f"{self.texts} reference texts, {tokens}{self.distance}{labels}, {self.seconds:.1f} s"

    @property
    def distance(self) -> str:
        """Return how far the logits are from the recorded ones, and may be."""
        return (
            f"logits differ from the recorded ones by up to {self.worst_difference:.1e} (at most "
            f"{self.tolerance:.1e} is allowed), on average by {self.mean_difference:.1e} (at most "
            f"{self.mean_tolerance:.1e})"
        )


def read_reference(directory: Path) -> Reference:
    """Read the recorded answers of an artifact.

    Raises:
        CheckError: there are none, or the file is broken.
    """
    path = directory / REFERENCE
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckError(
            f"{path}: no such file, so this host cannot be checked; early exports and graphs in bf16 have "
            f"none; {EXPORT_AGAIN}"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckError(f"{path}: cannot be read: {first_line(error)}; {EXPORT_AGAIN}") from error
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version != SCHEMA_VERSION:
        raise CheckError(f"{path}: schema_version is {version!r}, not {SCHEMA_VERSION}; {EXPORT_AGAIN}")
    try:
        return _parse(value)
    except KeyError as error:
        raise CheckError(f"{path}: has no {error.args[0]}; {EXPORT_AGAIN}") from error
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise CheckError(f"{path}: is broken: {first_line(error)}; {EXPORT_AGAIN}") from error


def _parse(value: dict[str, Any]) -> Reference:
    """The content of the file; whatever is not of its kind raises an error of Python."""
    entries = value["vectors"]
    batch = [place for place, entry in enumerate(entries) if entry["batch_logits"] is not None]
    alone = np.array([entry["logits"] for entry in entries], dtype=np.float64)
    together = np.array([entries[place]["batch_logits"] for place in batch], dtype=np.float64)
    if alone.ndim != 2 or together.shape != (len(batch), alone.shape[1]) or not batch:
        raise ValueError("vectors: logits are not one row of numbers for each text")
    return Reference(
        vectors=[_parse_vector(f"vectors.{place}", entry) for place, entry in enumerate(entries)],
        alone=alone,
        batch=batch,
        together=together,
        pad_token_id=_parse_ids("pad_token_id", [value["pad_token_id"]])[0],
        tolerance=_parse_tolerance(value, "tolerance"),
        mean_tolerance=_parse_tolerance(value, "mean_tolerance"),
        runtime=_parse_runtime(value.get("runtime", ONNX_RUNTIME)),
        graph_sha256=str(value["graph_sha256"]),
        tokenizer_unchecked=value["tokenizer_unchecked"],
        recorded_with={str(key): str(entry) for key, entry in value["recorded_with"].items()},
    )


def _parse_runtime(value: Any) -> str:
    if value not in GRAPH_FILES:
        raise ValueError(f"runtime: is {value!r}, not one of {', '.join(GRAPH_FILES)}")
    return str(value)


def _parse_tolerance(value: dict[str, Any], key: str) -> float:
    found = float(value[key])
    # Nothing is larger than NaN or infinity.
    if not 0 <= found < float("inf"):
        raise ValueError(f"{key}: is {found}, not a finite number of 0 or more")
    return found


def _parse_vector(place: str, entry: dict[str, Any]) -> Vector:
    ids = _parse_ids(f"{place}.tokens", entry["tokens"])
    segments = _parse_ids(f"{place}.segments", entry["segments"])
    if not ids or len(ids) != len(segments):
        raise ValueError(f"{place}: tokens and segments are not of one length")
    pair = entry["pair"]
    return Vector(str(entry["text"]), None if pair is None else str(pair), ids, segments)


def _parse_ids(place: str, values: Sequence[Any]) -> list[int]:
    if not all(isinstance(value, int) and 0 <= value <= LARGEST_ID for value in values):
        raise ValueError(f"{place}: holds what is no token id")
    return list(values)


class Session(Protocol):
    """A graph that is loaded.

    Attributes:
        path: of its file.
        inputs: their names.
    """

    path: Path
    inputs: list[str]

    def run(self, feeds: Mapping[str, NDArray[np.int64]]) -> NDArray[Any]:
        """Return the logits `(texts, labels)` of a batch; inputs are `(texts, tokens)`."""


class OnnxRuntimeSession:
    """`model.onnx` in ONNX Runtime, on CPUs.

    Args:
        directory: of the artifact.
        threads: that it computes with.
        spinning: whether threads spin while they wait for work.
    """

    def __init__(self, directory: Path, threads: int, *, spinning: bool) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        self.path = directory / GRAPH
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(str(self.path), options, providers=providers)
        self.inputs: list[str] = [entry.name for entry in self._session.get_inputs()]

    def run(self, feeds: Mapping[str, NDArray[np.int64]]) -> NDArray[Any]:
        return np.asarray(self._session.run(None, dict(feeds))[0])


class OpenVinoSession:
    """`model.xml` in OpenVINO, on CPUs.

    Args:
        directory: of the artifact.
        threads: that it computes with; they wait as OpenVINO's thread pool has it.
    """

    def __init__(self, directory: Path, threads: int) -> None:
        import openvino

        self.path = directory / IR
        self._model = openvino.Core().compile_model(self.path, "CPU", openvino_options(threads))
        self.inputs: list[str] = [entry.get_any_name() for entry in self._model.inputs]

    def run(self, feeds: Mapping[str, NDArray[np.int64]]) -> NDArray[Any]:
        # The result lies in memory that the next call writes.
        return np.array(self._model(dict(feeds))[0])


def openvino_options(threads: int) -> dict[str, Any]:
    """Return the options that OpenVINO compiles a graph with, so that it answers as it was proven."""
    return {
        "INFERENCE_NUM_THREADS": threads,
        # Otherwise processors with bfloat16 would compute in it.
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": QUANTIZATION_GROUP,
        "PERFORMANCE_HINT": "LATENCY",
    }


def open_session(directory: Path, runtime: str, threads: int = 1, *, spinning: bool = True) -> Session:
    """Load the graph of an artifact on CPUs.

    Args:
        runtime: one of `GRAPH_FILES`.
        threads: that it computes with.
        spinning: whether ONNX Runtime's threads spin while they wait for work.

    Raises:
        CheckError: it cannot be loaded, or the runtime is not installed.
    """
    title = {ONNX_RUNTIME: "ONNX Runtime", OPENVINO: "OpenVINO"}[runtime]
    path = directory / GRAPH_FILES[runtime][0]
    try:
        if runtime == OPENVINO:
            return OpenVinoSession(directory, threads)
        return OnnxRuntimeSession(directory, threads, spinning=spinning)
    except ImportError as error:
        raise CheckError(
            f"{path}: is run by {title}, which cannot be imported here: {first_line(error)}; install it: pip "
            f"install {runtime}"
        ) from error
    except Exception as error:  # the errors of runtimes share no public base class
        raise CheckError(
            f"{path}: cannot be loaded by {title}: {first_line(error)}; {EXPORT_AGAIN}"
        ) from error


def run_graph(session: Session, vectors: Sequence[Vector], pad_token_id: int) -> NDArray[np.float64]:
    """Return the logits `(texts, labels)` float64 of one batch, padded on the right to its longest text.

    Raises:
        CheckError: the graph does not take it.
    """
    shape = len(vectors), max(len(vector.tokens) for vector in vectors)
    ids = np.full(shape, pad_token_id, dtype=np.int64)
    mask, segments = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for row, vector in enumerate(vectors):
        length = len(vector.tokens)
        ids[row, :length], segments[row, :length] = vector.tokens, vector.segments
        mask[row, :length] = 1
    columns = {"input_ids": ids, "attention_mask": mask, "token_type_ids": segments}
    try:
        feeds = {name: columns[name] for name in session.inputs}
        return np.asarray(session.run(feeds), dtype=np.float64)
    except Exception as error:  # as above
        raise CheckError(
            f"{session.path}: does not run on an input of shape {shape}: {first_line(error)}; {EXPORT_AGAIN}"
        ) from error


def run_alone(session: Session, vectors: Sequence[Vector], pad_token_id: int) -> NDArray[np.float64]:
    """Return the logits `(texts, labels)` float64 of each text in a batch of its own."""
    return np.concatenate([run_graph(session, [vector], pad_token_id) for vector in vectors])


def check_host(directory: Path) -> HostCheck:
    """Compare the answers of this machine, on one thread, with the recorded ones.

    Raises:
        CheckError: they cannot be compared.
    """
    start = time.perf_counter()
    reference = read_reference(directory)
    return check_session(reference, directory, open_session(directory, reference.runtime), start)


def check_session(
    reference: Reference, directory: Path, session: Session, start: float | None = None
) -> HostCheck:
    """Compare the answers of a loaded graph and the artifact's tokenizer with the recorded ones.

    Args:
        directory: of the artifact.
        start: `time.perf_counter()` when the check began; None is now.

    Raises:
        CheckError: they cannot be compared.
    """
    start = time.perf_counter() if start is None else start
    vectors, token = reference.vectors, reference.pad_token_id
    other_tokens = None if reference.tokenizer_unchecked else _other_tokens(directory / TOKENIZER, vectors)
    alone = run_alone(session, vectors, token)
    together = run_graph(session, [vectors[place] for place in reference.batch], token)
    if alone.shape != reference.alone.shape:
        raise CheckError(
            f"{_graph(reference, directory)}: gives {alone.shape[1]} logits, and {REFERENCE} has "
            f"{reference.alone.shape[1]}; {EXPORT_AGAIN}"
        )
    differences = _differences(np.concatenate([alone - reference.alone, together - reference.together]))
    changed = alone.argmax(axis=1) != reference.alone.argmax(axis=1)
    changed[reference.batch] |= together.argmax(axis=1) != reference.together.argmax(axis=1)
    found = HostCheck(
        texts=len(vectors),
        other_tokens=None if other_tokens is None else len(other_tokens),
        worst_difference=float(differences.max()),
        tolerance=reference.tolerance,
        mean_difference=float(differences.mean()),
        mean_tolerance=reference.mean_tolerance,
        changed_labels=None if alone.shape[1] == 1 else int(changed.sum()),
        seconds=time.perf_counter() - start,
        differs=[],
        problems=[],
    )
    return _judged(found, reference, directory, other_tokens or [])


def _judged(
    found: HostCheck, reference: Reference, directory: Path, other_tokens: Sequence[int]
) -> HostCheck:
    """What was found, with what is wrong with it."""
    problems = {}
    if other_tokens:
        problems["tokenizer"] = _tokenizer_problem(directory, reference.vectors, other_tokens)
    if found.worst_difference > found.tolerance or found.mean_difference > found.mean_tolerance:
        part, problem = _graph_problem(found, reference, directory)
        problems[part] = problem
    return replace(found, differs=[*problems], problems=[*problems.values()])


def _other_tokens(path: Path, vectors: Sequence[Vector]) -> list[int]:
    """Places of the texts that a tokenizer gives other token ids or segments than the recorded ones."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        found = [tokenizer.encode(vector.text, vector.pair) for vector in vectors]
    except Exception as error:  # the library raises plain exceptions
        raise CheckError(
            f"{path}: cannot be loaded, or encodes no text: {first_line(error)}; {EXPORT_AGAIN}"
        ) from error
    return [
        place
        for place, (vector, entry) in enumerate(zip(vectors, found, strict=True))
        if (entry.ids, entry.type_ids) != (vector.tokens, vector.segments)
    ]


def _differences(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    # A NaN is as far away as can be; comparisons with it would pass. JSON has no infinity.
    largest = np.finfo(np.float32).max
    return np.where(np.isfinite(differences), np.abs(differences), largest)


def _tokenizer_problem(directory: Path, vectors: Sequence[Vector], places: Sequence[int]) -> str:
    first = vectors[places[0]].text[:LONGEST_EXCERPT]
    return (
        f"{directory / TOKENIZER}: the tokenizer differs: other token ids than recorded for {len(places)} of "
        f"{len(vectors)} reference texts, first for {first!r}; restore the file, or {EXPORT_AGAIN}"
    )


def _graph_problem(found: HostCheck, reference: Reference, directory: Path) -> tuple[str, str]:
    """What makes the logits differ, `weights` or `kernels`, and a line on it."""
    path = _graph(reference, directory)
    is_same = graph_sha256(directory, reference.runtime) == reference.graph_sha256
    labels = (
        "" if found.changed_labels is None else f", labels of {found.changed_labels} of {found.texts} texts"
    )
    if not is_same:
        return "weights", (
            f"{path}: the weights differ: {found.distance}{labels}; it is not the graph that was recorded; "
            f"restore the file, or {EXPORT_AGAIN}"
        )
    return "kernels", (
        f"{path}: the kernels differ: {found.distance}{labels}, though the graph is the recorded one; it was "
        f"recorded with {_listed(reference.recorded_with)}; here is "
        f"{_listed(library_versions(reference.runtime))}; use those versions or another processor, or on "
        f"this one {EXPORT_AGAIN}"
    )


def _graph(reference: Reference, directory: Path) -> Path:
    return directory / GRAPH_FILES[reference.runtime][0]


def graph_sha256(directory: Path, runtime: str) -> str:
    """Return the SHA-256 of what a runtime reads of an artifact, one file after the other."""
    found = hashlib.sha256()
    for name in GRAPH_FILES[runtime]:
        with (directory / name).open("rb") as stream:
            while block := stream.read(READ_BYTES):
                found.update(block)
    return found.hexdigest()


def library_versions(runtime: str) -> dict[str, str]:
    """Return the versions of the libraries that encode texts and run the graph."""
    return {name: importlib.metadata.version(name) for name in (runtime, "tokenizers")}


def _listed(facts: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def main() -> int:
    """Check the artifact of the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("artifact", type=Path, help="directory from `compress export`")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    try:
        check = check_host(arguments.artifact)
    except CheckError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    lines = [*check.problems, f"{arguments.artifact}: {check.summary}"]
    print(json.dumps(asdict(check)) if arguments.json else "\n".join(lines))
    return 1 if check.problems else 0


if __name__ == "__main__":
    sys.exit(main())
