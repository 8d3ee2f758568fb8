"""The perturb stage: how many of a model's right answers survive perturbations that were not made for it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from compressor.attacks.perturbations import changed_share, perturbed_texts
from compressor.attacks.results import PerturbRecord
from compressor.attacks.runner import check_classes, example_at
from compressor.data.texts import TextData, load_text_data, log_notes
from compressor.errors import UserError
from compressor.intervals import paired_difference, wilson_interval
from compressor.models.predictors import predict
from compressor.models.runtimes import load_predictor
from compressor.options import PerturbationName, PerturbConfig
from compressor.system.context import Context
from compressor.system.environment import describe_environment
from compressor.system.files import (
    atomic_directory,
    claims_output,
    read_json,
    read_json_lines,
    write_json,
    write_json_lines,
)

PERTURBATIONS_RECORD = "perturbations.json"
PERTURBED_TEXTS = "perturbed.jsonl"
CLEAN = "clean"
# Right on the clean text and on all its perturbed forms.
ALL = "all"


@claims_output
def perturb_directory(
    model: str,
    data_source: str,
    config: PerturbConfig,
    context: Context,
    against: Path | None = None,
) -> PerturbRecord:
    """Score texts and their perturbed forms; a classifier or artifact in, figures and texts out.

    Writes `perturbations.json`, whose content is returned, and `perturbed.jsonl`, one line a text.

    Args:
        against: what this stage wrote for another model, with which this one is compared.

    Raises:
        UserError: bad model, data, resources or output.
    """
    columns, run, progress = context.columns, context.run, context.progress
    predictor = load_predictor(model, run, columns.max_length)
    check_classes(model, predictor)
    data = load_text_data(data_source, columns, "test", label_names=predictor.label_names)
    log_notes(data, progress)
    predictor.check_pairs(data.pairs is not None)
    sample = data.sample(config.perturbed_examples, run.seed)
    start = time.monotonic()
    perturbed, resources = perturbed_texts(sample, config, run.seed, progress)
    labels = np.array(sample.class_labels)
    right = {}
    for kind, texts in _forms(sample, perturbed).items():
        logits = predict(predictor, texts, columns.max_length, progress=progress, description=f"{kind} texts")
        right[kind] = (logits.argmax(axis=1) == labels).tolist()
    right[ALL] = [all(answers) for answers in zip(*right.values(), strict=True)]
    record = {
        "perturbations": _figures(right),
        "changed": changed_share(sample, perturbed),
        "seconds": round(time.monotonic() - start, 2),
        "examples": len(sample),
        "model": model,
        "data": data.record(columns),
        "options": config.model_dump(),
        "seed": run.seed,
        "resources": resources,
        "environment": describe_environment(run),
    }
    lines = _lines(sample, perturbed, right)
    if against is not None:
        record["against"] = _compare(against, lines)
    with atomic_directory(context.output, force=context.force) as working:
        write_json(working / PERTURBATIONS_RECORD, record)
        write_json_lines(working / PERTURBED_TEXTS, lines)
    return PerturbRecord(**record, path=context.output)


def _forms(data: TextData, perturbed: Mapping[PerturbationName, TextData]) -> dict[str, TextData]:
    return {CLEAN: data} | {str(kind): texts for kind, texts in perturbed.items()}


def _figures(right: Mapping[str, list[bool]]) -> list[dict[str, Any]]:
    """Accuracy of each kind with its interval, and what it lost of that on the clean texts."""
    return [
        {
            "kind": kind,
            "accuracy": sum(own) / len(own),
            "interval": asdict(wilson_interval(sum(own), len(own))),
            "drop_from_clean": None if kind == CLEAN else asdict(paired_difference(right[CLEAN], own)),
        }
        for kind, own in right.items()
    ]


def _lines(
    data: TextData, perturbed: Mapping[PerturbationName, TextData], right: Mapping[str, list[bool]]
) -> list[dict[str, Any]]:
    """One entry a text: its forms, and which of them are classified rightly."""
    forms = _forms(data, perturbed)
    return [
        {
            "label": label,
            "texts": {kind: example_at(texts, index)[:2] for kind, texts in forms.items()},
            "right": {kind: own[index] for kind, own in right.items()},
        }
        for index, label in enumerate(data.class_labels)
    ]


def _compare(other: Path, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy of another model minus one's own, for each kind, on the same perturbed texts.

    Raises:
        UserError: nothing was perturbed there, or other texts were.
    """
    path = other / PERTURBED_TEXTS
    record = read_json(other / PERTURBATIONS_RECORD)
    try:
        rows = read_json_lines(path)
        theirs = [(row["label"], row["texts"]) for row in rows]
        model = record["model"]
        right = [{kind: bool(row["right"][kind]) for kind in lines[0]["right"]} for row in rows]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path}: is no record of perturbed texts; run compress perturb again: {error}"
        ) from error
    own = json.loads(json.dumps([(line["label"], line["texts"]) for line in lines]))
    if [list(entry) for entry in theirs] != own:
        raise UserError(f"{other}: other texts were perturbed; give both the same --data, options and --seed")
    drops = {}
    for kind in lines[0]["right"]:
        before = [answers[kind] for answers in right]
        after = [line["right"][kind] for line in lines]
        drops[kind] = asdict(paired_difference(before, after))
    return {"model": model, "accuracy_drop": drops}
