"""Serve an exported artifact over HTTP, with the runtime that it was exported for and the tokenizer alone.

    POST /predict  {"texts": ["a quiet film", ...]}, for pairs also {"pairs": [...]} of the same length
                   -> {"predictions": [{"label": ..., "score": ..., "scores": {label: probability}}, ...]};
                   the score of a regression, which has one label, is its number
    GET  /health   {"status": "ok", "labels": [...], "model_sha256": ...}

Errors are {"error": one line} with 400 (not such a request), 413 (too much of it) or 503 (too many wait).
Every file of the artifact is checked against its manifest before any is loaded; one that differs stops the
start with one line and exit code 2. So do other answers to the artifact's reference texts than its export
recorded (`check_host.py` beside this file compares). Texts are cut and padded as tokenizer.json says, which
must be what the artifact was proven with. `--help` lists the options. Texts are never logged.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
import uvicorn
from check_host import (
    EXPORT_AGAIN,
    GRAPH,
    GRAPH_FILES,
    ONNX_RUNTIME,
    REFERENCE,
    TOKENIZER,
    CheckError,
    Session,
    check_session,
    open_session,
    read_reference,
)
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tokenizers import Tokenizer

CONFIG, MANIFEST = "config.json", "manifest.json"
TOKENIZER_CONFIG, SIDES = "tokenizer_config.json", ("truncation_side", "padding_side")
SHUTDOWN_SECONDS = 30


class StartError(Exception):
    """A setting or an artifact that cannot be served; one line."""


class Settings(BaseModel):
    """Options of the service."""

    model_config = ConfigDict(frozen=True)

    artifact: Path = Field(Path("/artifact"), description="Directory from `compress export`.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, lt=2**16, description="Port to listen on; 0 takes a free one.")
    threads: PositiveInt = Field(
        1, description="Processor threads; give what the container may use. Requests are answered in turn."
    )
    spinning: bool = Field(
        True,
        description="Whether threads of ONNX Runtime spin while they wait for work: the shortest answers, "
        "for some processor time; false where others need the cores.",
    )
    max_tokens: PositiveInt | None = Field(
        None,
        description="Longest input in tokens, longer ones are cut; no more than the max_length that the "
        "artifact was exported with, which is taken if not given.",
    )
    max_texts: PositiveInt = Field(64, description="Most texts of a request.")
    max_characters: PositiveInt = Field(10_000, description="Most characters of a text.")
    max_body_bytes: PositiveInt = Field(2**20, description="Most bytes of a request.")
    max_waiting: NonNegativeInt = Field(32, description="Most requests that wait for their turn.")


class PredictRequest(BaseModel):
    """The body of /predict."""

    model_config = ConfigDict(extra="forbid", strict=True)

    texts: list[str] = Field(min_length=1)
    pairs: list[str] | None = None


def read_settings(arguments: Sequence[str]) -> Settings:
    """The settings that a command line gives; `--help` lists them.

    Raises:
        StartError: a value is not one of its kind.
        SystemExit: an unknown option, or `--help`.
    """
    parser = argparse.ArgumentParser(description="Serve an exported artifact over HTTP.", allow_abbrev=False)
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f" (default: {field.default})"
        parser.add_argument(
            _option(name), help=f"{field.description}{default}", default=argparse.SUPPRESS, metavar="VALUE"
        )
    try:
        return Settings.model_validate(vars(parser.parse_args(arguments)))
    except ValidationError as error:
        problem = error.errors()[0]
        option = _option(str(problem["loc"][0]))
        raise StartError(f"{option}: {problem['msg']}, not {problem['input']!r}") from error


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def check_artifact(directory: Path) -> dict[str, Any]:
    """The manifest of an artifact, each of whose files is what was exported.

    Raises:
        StartError: no manifest, or a file that is missing, changed, not listed though needed, or outside.
    """
    manifest = _read_json(directory / MANIFEST)
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
        raise StartError(f"{directory / MANIFEST}: lists no files; it is no manifest of compress")
    for name in (GRAPH, *GRAPH_FILES[runtime_of(directory, manifest)], CONFIG):
        if name not in files:
            raise StartError(f"{directory / MANIFEST}: does not list {name}, which is needed")
    for name, entry in files.items():
        path = directory / name
        if not _is_own_file(directory, name):
            raise StartError(f"{directory / MANIFEST}: {name!r} leads out of the artifact")
        if not path.is_file():
            raise StartError(f"{path}: is missing, though the manifest lists it")
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != entry.get("sha256"):
                raise StartError(f"{path}: is not the file that was exported; its sha256 differs")
    return manifest


def runtime_of(directory: Path, manifest: dict[str, Any]) -> str:
    """The runtime that an artifact was exported for; early exports knew ONNX Runtime alone.

    Raises:
        StartError: it is none that is served.
    """
    name = manifest.get("runtime", ONNX_RUNTIME)
    if name not in GRAPH_FILES:
        raise StartError(
            f"{directory / MANIFEST}: runtime is {name!r}, and only {' and '.join(GRAPH_FILES)} are served"
        )
    return str(name)


def _is_own_file(directory: Path, name: str) -> bool:
    """Whether a name leads into the directory, or from a snapshot of the Hugging Face cache to its blobs."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return False
    root, found = directory.resolve(), (directory / name).resolve()
    cached = root.parent.name == "snapshots" and found.parent == root.parent.parent / "blobs"
    return cached or found.is_relative_to(root)


def load_tokenizer(artifact: Path, manifest: dict[str, Any], max_tokens: int | None) -> Tokenizer:
    """The artifact's tokenizer, which cuts and pads as its proof did, or cuts earlier.

    Args:
        max_tokens: longest input in tokens; None is that of the proof.

    Raises:
        StartError: an artifact of an early export, one that needs transformers, one whose tokenizer is not
            that of its proof, or more tokens than were proven.
    """
    proven = manifest.get("preprocessing")
    if not isinstance(proven, dict):
        raise StartError(f"{artifact / MANIFEST}: has no preprocessing; {EXPORT_AGAIN}")
    if proven.get("needs_transformers") is not None:
        raise StartError(
            f"{artifact}: {proven['needs_transformers']}, so only transformers can encode its texts"
        )
    if TOKENIZER not in manifest["files"]:
        raise StartError(f"{artifact / MANIFEST}: does not list {TOKENIZER}, which is needed")
    try:
        tokenizer = Tokenizer.from_file(str(artifact / TOKENIZER))
    except Exception as error:  # the library raises plain exceptions
        raise StartError(f"{artifact / TOKENIZER}: cannot be loaded: {error}") from error
    cut, padded = tokenizer.truncation or {}, tokenizer.padding or {}
    stated = {
        "max_length": cut.get("max_length"),
        "truncation": cut.get("strategy"),
        "truncation_side": cut.get("direction"),
        "stride": cut.get("stride"),
        "padding_side": padded.get("direction"),
        "pad_token": padded.get("pad_token"),
        "pad_token_id": padded.get("pad_id"),
        "pad_token_type_id": padded.get("pad_type_id"),
    }
    is_longest = bool(padded) and padded["length"] is None and padded["pad_to_multiple_of"] is None
    stated["padding"] = "longest" if is_longest else None
    for key, value in stated.items():
        if value is None or value != proven.get(key):
            raise StartError(
                f"{artifact / TOKENIZER}: {key} is {value!r}, and {MANIFEST} has {proven.get(key)!r}; "
                f"{EXPORT_AGAIN}"
            )
    config = _read_json(artifact / TOKENIZER_CONFIG)
    for key, name in (("model_max_length", "max_length"), *((side, side) for side in SIDES)):
        if config.get(key) != proven.get(name):
            raise StartError(
                f"{artifact / TOKENIZER_CONFIG}: {key} is {config.get(key)!r}, and {MANIFEST} has "
                f"{proven.get(name)!r}; {EXPORT_AGAIN}"
            )
    if max_tokens is not None and max_tokens > proven["max_length"]:
        raise StartError(
            f"--max-tokens: {max_tokens} is more than the {proven['max_length']} that {artifact} "
            f"was proven with"
        )
    if max_tokens is not None:
        tokenizer.enable_truncation(**cut | {"max_length": max_tokens})
    return tokenizer


def check_answers(artifact: Path, manifest: dict[str, Any], session: Session) -> None:
    """Hold the answers of a loaded graph and of the tokenizer against those that the export recorded.

    An artifact of an early export has none: a warning says so.

    Raises:
        StartError: other answers.
    """
    if REFERENCE not in manifest["files"]:
        print(
            f"warning: {artifact}: has no {REFERENCE}, so its answers on this host are not checked; "
            f"{EXPORT_AGAIN}",
            file=sys.stderr,
        )
        return
    try:
        reference = read_reference(artifact)
        runtime = runtime_of(artifact, manifest)
        if reference.runtime != runtime:
            raise StartError(
                f"{artifact / REFERENCE}: runtime is {reference.runtime!r}, and {MANIFEST} has {runtime!r}; "
                f"{EXPORT_AGAIN}"
            )
        check = check_session(reference, artifact, session)
    except CheckError as error:
        raise StartError(str(error)) from error
    if check.problems:
        raise StartError(check.problems[0])
    print(f"{artifact}: {check.summary}", file=sys.stderr)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StartError(f"{path}: cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise StartError(f"{path}: holds no JSON object")
    return value


class Classifier:
    """An artifact, ready to classify.

    Raises:
        StartError: an artifact that was changed or does not load.
    """

    def __init__(self, settings: Settings) -> None:
        manifest = check_artifact(settings.artifact)
        self.labels: list[str] = [str(label) for label in manifest["labels"]]
        self.sha256: str = manifest["files"][GRAPH]["sha256"]
        self._tokenizer = load_tokenizer(settings.artifact, manifest, settings.max_tokens)
        runtime = runtime_of(settings.artifact, manifest)
        try:
            self._session = open_session(
                settings.artifact, runtime, settings.threads, spinning=settings.spinning
            )
        except CheckError as error:
            raise StartError(str(error)) from error
        answers = self.answers(["warm up"], None).shape[1]
        if answers != len(self.labels):
            raise StartError(f"{settings.artifact}: the graph has {answers} answers, not {len(self.labels)}")
        check_answers(settings.artifact, manifest, self._session)

    def answers(self, texts: list[str], pairs: list[str] | None) -> NDArray[np.float64]:
        """Probabilities `(texts, labels)` of a batch, padded to its longest text; a regression's numbers."""
        encoded = self._tokenizer.encode_batch(
            texts if pairs is None else list(zip(texts, pairs, strict=True))
        )
        columns = {
            "input_ids": [entry.ids for entry in encoded],
            "attention_mask": [entry.attention_mask for entry in encoded],
            "token_type_ids": [entry.type_ids for entry in encoded],
        }
        feeds = {name: np.array(columns[name], dtype=np.int64) for name in self._session.inputs}
        logits = np.asarray(self._session.run(feeds), dtype=np.float64)
        if logits.shape[1] == 1:
            return logits
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        result: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
        return result

    def predict(self, texts: list[str], pairs: list[str] | None) -> list[dict[str, Any]]:
        """The likeliest label of each text, its probability, and those of all; a regression's number."""
        predictions = []
        for row in self.answers(texts, pairs).tolist():
            scores = dict(zip(self.labels, row, strict=True))
            label = max(scores, key=scores.__getitem__)
            predictions.append({"label": label, "score": scores[label], "scores": scores})
        return predictions


def make_app(classifier: Classifier, settings: Settings) -> Starlette:
    """The service of one classifier."""
    turn = anyio.CapacityLimiter(1)

    async def predict(request: Request) -> Response:
        asked = _parse(await _read_body(request, settings.max_body_bytes))
        _check_size(asked, settings)
        if turn.available_tokens == 0 and turn.statistics().tasks_waiting >= settings.max_waiting:
            raise HTTPException(503, "too many requests wait; try again", {"Retry-After": "1"})
        predictions = await anyio.to_thread.run_sync(
            classifier.predict, asked.texts, asked.pairs, limiter=turn
        )
        return JSONResponse({"predictions": predictions})

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "labels": classifier.labels, "model_sha256": classifier.sha256})

    routes = [Route("/predict", predict, methods=["POST"]), Route("/health", health, methods=["GET"])]
    return Starlette(routes=routes, exception_handlers={HTTPException: _as_json})


async def _as_json(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _read_body(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise HTTPException(413, f"the request is longer than {limit} bytes")
    return bytes(body)


def _parse(body: bytes) -> PredictRequest:
    try:
        return PredictRequest.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"]) or "body"
        raise HTTPException(400, f"{place}: {problem['msg']}") from error


def _check_size(asked: PredictRequest, settings: Settings) -> None:
    pairs = asked.pairs or []
    if asked.pairs is not None and len(pairs) != len(asked.texts):
        raise HTTPException(400, f"pairs: {len(pairs)} of them, but {len(asked.texts)} texts")
    if len(asked.texts) > settings.max_texts:
        raise HTTPException(413, f"texts: {len(asked.texts)} of them; at most {settings.max_texts}")
    longest = max(map(len, [*asked.texts, *pairs]))
    if longest > settings.max_characters:
        raise HTTPException(413, f"a text has {longest} characters; at most {settings.max_characters}")


def main() -> int:
    """Serve until stopped; return the exit code."""
    # The tokenizer's own threads would come on top of those that were asked for.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        settings = read_settings(sys.argv[1:])
        classifier = Classifier(settings)
    except StartError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    uvicorn.run(
        make_app(classifier, settings),
        host=settings.host,
        port=settings.port,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
