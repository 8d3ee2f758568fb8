"""Check that this machine gives the answers that an exported artifact gave where it was exported.

    python check_host.py ARTIFACT [--json]

`reference.json` of the artifact has texts, their token ids and the graph's logits. The texts are encoded
again with `tokenizer.json`, and the graph is run on the recorded token ids with ONNX Runtime on one thread:
each text alone, and the shorter ones in one padded batch. Needs onnxruntime, tokenizers and numpy, and no
other file of compress. Exit code 0: the same answers; 1: other answers; 2: they cannot be compared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import tokenizers
from numpy.typing import NDArray
from tokenizers import Tokenizer

GRAPH, TOKENIZER, REFERENCE = "model.onnx", "tokenizer.json", "reference.json"
SCHEMA_VERSION = 1
EXPORT_AGAIN = "export it again with: compress export"
LONGEST_EXCERPT = 40
LARGEST_ID = 2**31 - 1


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
        graph_sha256: of the graph that gave the logits.
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
        graph_sha256=str(value["graph_sha256"]),
        tokenizer_unchecked=value["tokenizer_unchecked"],
        recorded_with={str(key): str(entry) for key, entry in value["recorded_with"].items()},
    )


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


def open_session(directory: Path) -> onnxruntime.InferenceSession:
    """Load the graph of an artifact for one thread of the processor.

    Raises:
        CheckError: it cannot be loaded.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    path = directory / GRAPH
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no public base class
        raise CheckError(
            f"{path}: cannot be loaded by ONNX Runtime: {first_line(error)}; {EXPORT_AGAIN}"
        ) from error


def run_graph(
    session: onnxruntime.InferenceSession, vectors: Sequence[Vector], pad_token_id: int
) -> NDArray[np.float64]:
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
        feeds = {entry.name: columns[entry.name] for entry in session.get_inputs()}
        return np.asarray(session.run(None, feeds)[0], dtype=np.float64)
    except Exception as error:  # as above
        raise CheckError(
            f"{GRAPH}: does not run on an input of shape {shape}: {first_line(error)}; {EXPORT_AGAIN}"
        ) from error


def run_alone(
    session: onnxruntime.InferenceSession, vectors: Sequence[Vector], pad_token_id: int
) -> NDArray[np.float64]:
    """Return the logits `(texts, labels)` float64 of each text in a batch of its own."""
    return np.concatenate([run_graph(session, [vector], pad_token_id) for vector in vectors])


def check_host(directory: Path) -> HostCheck:
    """Compare the answers of this machine, on one thread, with the recorded ones.

    Raises:
        CheckError: they cannot be compared.
    """
    start = time.perf_counter()
    reference = read_reference(directory)
    return check_session(reference, directory, open_session(directory), start)


def check_session(
    reference: Reference, directory: Path, session: onnxruntime.InferenceSession, start: float | None = None
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
            f"{directory / GRAPH}: gives {alone.shape[1]} logits, and {REFERENCE} has "
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
    path = directory / GRAPH
    with path.open("rb") as stream:
        is_same = hashlib.file_digest(stream, "sha256").hexdigest() == reference.graph_sha256
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
        f"recorded with {_listed(reference.recorded_with)}; here is {_listed(library_versions())}; use those "
        f"versions or another processor, or on this one {EXPORT_AGAIN}"
    )


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that encode texts and run the graph."""
    return {"onnxruntime": str(onnxruntime.__version__), "tokenizers": str(tokenizers.__version__)}


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
