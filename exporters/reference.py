"""Write `reference.json`: texts with the answers that an artifact gave where it was exported.

`compressor.models.portable.check_host` runs the graph for the file and compares later, so that both sides do
the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.errors import UserError
from compressor.models.batching import encode_texts, pad
from compressor.models.classifier import Classifier
from compressor.models.portable.check_host import (
    GRAPH_FILES,
    ONNX_RUNTIME,
    REFERENCE,
    SCHEMA_VERSION,
    CheckError,
    Vector,
    graph_sha256,
    library_versions,
    open_session,
    run_alone,
    run_graph,
)
from compressor.models.predictors import TorchPredictor
from compressor.options.export import GraphPrecision
from compressor.system.environment import processor_name
from exporters.reference_texts import ReferenceTexts

# Texts of the batch; longer ones run alone, so that a host is checked in seconds.
LONGEST_IN_BATCH = 64
# Two processors order sums differently. int8 rounds what such a difference moves over a half to another step.
LEAST_TOLERANCES = {"fp32": 1e-4, "fp16": 2e-2}
LEAST_TOLERANCE_OF_INT8, LEAST_MEAN_TOLERANCE_OF_INT8 = 1e-2, 5e-3
# Of int8's mean difference from PyTorch. Other roundings were measured to be a tenth of it, and those of
# processors whose 16-bit sums overflow more than all of it. A few texts have no mean to tell them by.
MEAN_SHARE_OF_INT8 = 0.5
FEWEST_FOR_MEAN = 16


@dataclass(frozen=True)
class _Answers:
    """What an artifact answers.

    Attributes:
        alone: logits `(texts, labels)` float64 of each text alone.
        batch: places of the texts that run in one batch as well.
        together: logits `(batch, labels)` float64 of these.
    """

    vectors: list[Vector]
    alone: NDArray[np.float64]
    batch: list[int]
    together: NDArray[np.float64]


def write_reference(
    classifier: Classifier, directory: Path, texts: ReferenceTexts, facts: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Run an artifact on texts and write what it answers; the same artifact gives the same bytes.

    Args:
        directory: of the artifact, with graph and tokenizer.
        facts: of its manifest: `runtime`, `precision`, `max_length`, `preprocessing` and `parity`.

    Returns:
        What the manifest says of the file; None for bf16, which ONNX Runtime does not run on CPUs. ONNX
        Runtime also runs artifacts for runtimes of other packages, which hosts are not checked with.

    Raises:
        UserError: logits that are not finite, or farther from PyTorch's than the parity check allows.
    """
    precision, parity = facts["precision"], facts["parity"]
    if precision == "bf16":
        return None
    token = int(classifier.tokenizer.pad_token_id)
    runtime = facts["runtime"] if facts["runtime"] in GRAPH_FILES else ONNX_RUNTIME
    answers = _answers(_encoded(classifier, texts, facts["max_length"]), directory, runtime, token)
    differences = _differences_from_pytorch(classifier, answers)
    _check(differences, parity["tolerance"])
    measured = {"max_difference": float(differences.max()), "mean_difference": float(differences.mean())}
    tolerances = tolerances_of(
        precision,
        max(measured["max_difference"], parity["max_difference"]),
        measured["mean_difference"] if len(answers.vectors) >= FEWEST_FOR_MEAN else None,
    )
    header = {
        "schema_version": SCHEMA_VERSION,
        "source": texts.source,
        "runtime": runtime,
        "graph_sha256": graph_sha256(directory, runtime),
        "tokenizer_unchecked": facts["preprocessing"]["needs_transformers"],
        "pad_token_id": token,
        **tolerances,
        "recorded_with": {**library_versions(runtime), "processor": processor_name()},
    }
    (directory / REFERENCE).write_text(_document(header, answers), encoding="utf-8")
    stated = {"file": REFERENCE, "source": texts.source, "texts": len(answers.vectors)}
    return stated | measured | tolerances


def _answers(vectors: list[Vector], directory: Path, runtime: str, pad_token_id: int) -> _Answers:
    """Run an artifact's graph on texts.

    Raises:
        UserError: the runtime does not run it, as may be with a graph that was proven with another.
    """
    batch = _places_of_batch(vectors)
    try:
        session = open_session(directory, runtime)
        together = run_graph(session, [vectors[place] for place in batch], pad_token_id)
        return _Answers(vectors, run_alone(session, vectors, pad_token_id), batch, together)
    except CheckError as error:
        raise UserError(f"export failed: {error}") from error


def tolerances_of(precision: GraphPrecision, largest: float, mean: float | None) -> dict[str, float]:
    """Return how far the logits of another host may be from the recorded ones, at most and on average.

    A logit by twice the largest difference from PyTorch's: two hosts that are both as near to PyTorch as that
    are no farther apart. At least by what processors differ in that precision. In int8 all logits on average
    by a share of their mean difference from PyTorch's.

    Args:
        largest: difference of a logit from PyTorch's, on the texts of the parity check and on those that are
            recorded.
        mean: difference of the logits of the recorded texts; None where these are too few for a mean.
    """
    tolerance = max(LEAST_TOLERANCES.get(precision, LEAST_TOLERANCE_OF_INT8), 2 * largest)
    if precision in LEAST_TOLERANCES or mean is None:
        return {"tolerance": tolerance, "mean_tolerance": tolerance}
    mean_tolerance = max(LEAST_MEAN_TOLERANCE_OF_INT8, MEAN_SHARE_OF_INT8 * mean)
    return {"tolerance": tolerance, "mean_tolerance": mean_tolerance}


def _encoded(classifier: Classifier, texts: ReferenceTexts, max_length: int) -> list[Vector]:
    """All texts, then all pairs, as the model's own tokenizer encodes them; none without a token."""
    tokenizer = classifier.tokenizer
    encoded = encode_texts(tokenizer, texts.texts, None, max_length)
    both: list[tuple[str, str | None]] = [*((text, None) for text in texts.texts), *texts.pairs]
    if texts.pairs:
        firsts, seconds = zip(*texts.pairs, strict=True)
        encoded += encode_texts(tokenizer, firsts, seconds, max_length)
    return [
        Vector(text, pair, list(ids), list(types))
        for (text, pair), (ids, types) in zip(both, encoded, strict=True)
        if ids
    ]


def _places_of_batch(vectors: Sequence[Vector]) -> list[int]:
    """Places of the texts that run in one batch: all that are short, or else the shortest."""
    lengths = [len(vector.tokens) for vector in vectors]
    longest = max(LONGEST_IN_BATCH, min(lengths))
    return [place for place, length in enumerate(lengths) if length <= longest]


def _differences_from_pytorch(classifier: Classifier, answers: _Answers) -> NDArray[np.float64]:
    """Absolute differences from PyTorch's of all logits, alone and in the batch: `(rows, labels)`."""
    predictor, token = TorchPredictor(classifier), int(classifier.tokenizer.pad_token_id)
    expected = np.concatenate(
        [predictor.logits(pad([(vector.tokens, vector.segments)], token)) for vector in answers.vectors]
    )
    rows = np.concatenate([answers.alone - expected, answers.together - expected[answers.batch]])
    return np.asarray(np.abs(rows), dtype=np.float64)


def _check(differences: NDArray[np.float64], tolerance: float | None) -> None:
    """Raise a `UserError` if recorded logits are not the model's.

    Args:
        tolerance: of the parity check; None for precisions without one.
    """
    if not np.isfinite(differences).all():
        raise UserError(
            "export failed: logits of a reference text are NaN or infinite; use another --precision"
        )
    if tolerance is not None and differences.max() > tolerance:
        raise UserError(
            f"export failed: logits of a reference text differ from PyTorch's by {differences.max():.2e}, "
            f"more than {tolerance:.0e}; use another --precision, or a larger --parity-tolerance"
        )


def _numbers(row: NDArray[np.float64] | None) -> list[float] | None:
    """The shortest decimals that float32 logits are read from again; those of fp16 are float32 too."""
    return None if row is None else [float(str(np.float32(value))) for value in row]


def _document(header: Mapping[str, Any], answers: _Answers) -> str:
    """JSON with a line for each text."""
    rows = dict(zip(answers.batch, answers.together, strict=True))
    entries = [
        asdict(vector) | {"logits": _numbers(answers.alone[place]), "batch_logits": _numbers(rows.get(place))}
        for place, vector in enumerate(answers.vectors)
    ]
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in header.items()]
    listed = ",\n".join(f"    {json.dumps(entry, ensure_ascii=False)}" for entry in entries)
    return "\n".join(["{", *lines, '  "vectors": [', listed, "  ]", "}", ""])
