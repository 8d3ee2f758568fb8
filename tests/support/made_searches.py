"""Records of searches made by hand, for tests of their pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from made_reports import interval_of, judged

from compressor.search.record import (
    CandidateFigures,
    ModelFigures,
    ModelTimes,
    OutcomeFigures,
    SearchRecord,
    ShapeTimes,
    WidthFigures,
    front_of,
)
from compressor.validation.schema import IntervalFigures, MeanDifferenceFigures

DENSE_BYTES = 90_900_000
# Of the dense model in PyTorch, by batch size and length.
DENSE_MS = {(1, 32): 9.0, (8, 128): 120.0}
GATES = ["accuracy_drop <= 0.02", "accuracy_under_attack_drop <= 0.05", "latency_ratio <= 0.2"]
DENSE_ACCURACY = 0.902


def candidate(
    number: int, target: float | None, accuracy: float, speedup: float, size: float, **changes: Any
) -> CandidateFigures:
    """A candidate of a size in megabytes; it holds the gate on accuracy if it loses 2 points at most."""
    drop = DENSE_ACCURACY - accuracy
    gates = [
        judged("accuracy_drop", "<= 0.02", drop, "pass" if drop <= 0.02 else "fail"),
        judged("latency_ratio", "<= 0.2", 1 / speedup, "pass" if speedup >= 5 else "fail", place="8 x 128"),
    ]
    latency = [
        ShapeTimes(
            batch_size=batch,
            length=length,
            dense_ms=ms,
            artifact_ms=ms / speedup,
            predicted_ms=None if batch == 8 else 1.05 * ms / speedup,
        )
        for (batch, length), ms in DENSE_MS.items()
    ]
    fields: dict[str, Any] = {
        "number": number,
        "table": "tables/int8.json",
        "runtime": "onnxruntime",
        "precision": "int8",
        "target": target,
        "widths": []
        if target is None
        else [WidthFigures(heads=12 - layer, neurons=512) for layer in range(6)],
        "speedup": speedup,
        "latency": latency,
        "size_bytes": int(size * 1e6),
        "size_ratio": size * 1e6 / DENSE_BYTES,
        "accuracy": accuracy,
        "accuracy_interval": interval_of(accuracy, 1000),
        "task_score": accuracy,
        "task_score_interval": interval_of(accuracy, 1000),
        "accuracy_under_attack": None if drop > 0.02 else accuracy - 0.5,
        "accuracy_under_attack_interval": None if drop > 0.02 else interval_of(accuracy - 0.5, 200),
        "batch_disagreement": 0.0,
        "worst_batch_shift": 2e-7,
        "gates": gates,
        "unsure": [],
        "quality_holds": drop <= 0.02,
        "attacked": drop <= 0.02,
        "holds": all(result.status == "pass" for result in gates),
        "seconds": 61.4 + number,
        "pruned": None if target is None else f"pruned-{number}",
        "artifact": f"artifact-{number}",
        "report": f"report-{number}",
    }
    return CandidateFigures(**(fields | changes))


def difference_of(difference: float, examples: int) -> MeanDifferenceFigures:
    ends = IntervalFigures(low=difference - 0.01, high=difference + 0.01)
    return MeanDifferenceFigures(difference=difference, interval=ends, examples=examples)


def model_figures(
    score: float, speedup: float = 1.0, size: int = DENSE_BYTES, **changes: Any
) -> ModelFigures:
    times = [
        ModelTimes(batch_size=batch, length=length, ms=ms / speedup)
        for (batch, length), ms in DENSE_MS.items()
    ]
    fields: dict[str, Any] = {
        "accuracy": score,
        "accuracy_interval": interval_of(score, 2000),
        "task_score": score,
        "task_score_interval": interval_of(score, 2000),
        "accuracy_under_attack": score - 0.48,
        "accuracy_under_attack_interval": interval_of(score - 0.48, 200),
        "batch_disagreement": 0.0,
        "worst_batch_shift": 2e-7,
        "size_bytes": size,
        "latency": times,
    }
    return ModelFigures(**(fields | changes))


def candidates() -> list[CandidateFigures]:
    """The dense model, two that hold all gates, one beaten and two that are too small."""
    return [
        candidate(0, None, 0.901, 3.4, 23.1),
        candidate(1, 7.9, 0.893, 8.2, 15.7),
        candidate(2, 14.0, 0.862, 14.8, 11.4),
        candidate(3, 10.5, 0.885, 11.0, 13.2),
        candidate(4, 12.1, 0.874, 12.6, 12.1),
        candidate(5, 11.0, 0.883, 10.6, 13.6),
    ]


def make_search(**changes: Any) -> SearchRecord:
    """A search whose candidate 3 was chosen and holds the gates on the test texts."""
    found = changes.pop("candidates", None) or candidates()
    fields: dict[str, Any] = {
        "schema_version": 1,
        "objective": "latency",
        "gates": GATES,
        "task_metric": "accuracy",
        "attack_metric": "mean_accuracy_under_attack",
        "texts": {"calibration": "train.tsv", "selection": "dev.tsv", "test": "test.tsv"},
        "dense": {"source": "models/dense", "sha256": "ab" * 32},
        "dense_figures": model_figures(DENSE_ACCURACY),
        "candidates": found,
        "front": front_of(found, "latency"),
        "chosen": 3,
        "nearest": None,
        "verdict": "pass",
        "reason": "the fastest speed that holds the gates is known closely enough",
        "test_gates": [
            judged("accuracy_drop", "<= 0.02", 0.012, "pass", interval=interval_of(0.012, 2000)),
            judged("latency_ratio", "<= 0.2", 0.0912, "pass", place="8 x 128"),
        ],
        "test_figures": OutcomeFigures(
            dense=model_figures(0.9),
            artifact=model_figures(0.888, 11.1, 13_200_000),
            accuracy_drop=difference_of(0.012, 2000),
            accuracy_under_attack_drop=difference_of(0.012, 200),
            speedup=11.1,
        ),
        "environment": {"device": "cpu", "threads": 1, "packages": {"torch": "2.9.1"}},
        "path": Path("runs/search"),
    }
    return SearchRecord(**(fields | changes))


def make_refused(**changes: Any) -> SearchRecord:
    """A search in which nothing holds the gates; candidate 0 is nearest, short in latency."""
    fields: dict[str, Any] = {
        "candidates": [candidate(0, None, 0.901, 3.4, 23.1), candidate(1, 7.9, 0.851, 8.2, 15.7)],
        "chosen": None,
        "nearest": 0,
        "verdict": "fail",
        "reason": "no candidate holds all gates; latency_ratio stands in the way",
        "test_gates": [],
        "test_figures": None,
    }
    return make_search(**(fields | changes))


def make_regression(**changes: Any) -> SearchRecord:
    """A search for a model that answers with numbers: no accuracy and no attack."""
    none = dict.fromkeys(
        (
            "accuracy", "accuracy_interval", "accuracy_under_attack", "accuracy_under_attack_interval",
            "batch_disagreement",
        )
    )  # fmt: skip
    found = [one.model_copy(update=none | {"attacked": False}) for one in candidates()]
    outcome = OutcomeFigures(
        dense=model_figures(0.9, **none),
        artifact=model_figures(0.888, 11.1, 13_200_000, **none),
        accuracy_drop=None,
        accuracy_under_attack_drop=None,
        speedup=11.1,
    )
    fields = {
        "task_metric": "pearson",
        "dense_figures": model_figures(DENSE_ACCURACY, **none),
        "test_figures": outcome,
    }
    return make_search(candidates=found, **(fields | changes))
