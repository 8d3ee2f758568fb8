"""Where a model is from, in digests: which weights are zero, the options and texts it was made with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from compressor.errors import UserError, first_line
from compressor.models.classifier import weights_fingerprint
from compressor.pruning.interface import PRUNING_RECORD
from compressor.system.files import read_json
from compressor.training.finetune_stage import TRAINING_RECORD


def masks_sha256(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of which weights are zero; the values of the others do not matter.

    Of each matrix, in the order of the names, the line `NAME (ROWS, COLUMNS)` and one bit a weight
    go in: row by row, set where the weight is not zero, the first one in the highest bit of a byte.

    Args:
        weights: a matrix of any floating dtype for each name.
    """
    found = hashlib.sha256()
    for name in sorted(weights):
        weight = weights[name]
        found.update(f"{name} {tuple(weight.shape)}\n".encode())
        found.update(np.packbits((weight != 0).cpu().numpy()).data)
    return found.hexdigest()


def options_sha256(options: Mapping[str, Any]) -> str:
    """SHA-256 of options as JSON with sorted keys and without spaces, in UTF-8."""
    text = json.dumps(options, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def stage_record(model: str) -> dict[str, Any] | None:
    """What the stage that wrote a model directory recorded, or None for a directory of others.

    Raises:
        UserError: it cannot be read, or is no such record.
    """
    for name in (PRUNING_RECORD, TRAINING_RECORD):
        if (Path(model) / name).is_file():
            path = Path(model) / name
            record = read_json(path)
            try:
                recorded_lineage(record)
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"{path}: is no record of compress: {type(error).__name__}: {first_line(error)}; restore "
                    f"it, or remove it"
                ) from error
            found: dict[str, Any] = record
            return found
    return None


def model_lineage(model: str, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Where a model's weights are from: hashes, and what the stage that made them recorded.

    Args:
        model: directory, or hub id.
        weights: the encoder's matrices `(out, in)` as the model has them, by layer name.
    """
    lineage = {"weights_sha256": weights_fingerprint(model), "masks_sha256": masks_sha256(weights)}
    record = stage_record(model)
    return lineage if record is None else lineage | recorded_lineage(record)


def recorded_lineage(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage's record tells of its model, ready for JSON; what only pruning knows is None otherwise."""
    is_pruned = "algorithm" in record
    data = record["data"]
    return {
        # The runs of a soup record the fingerprint alone.
        "data_fingerprint": data if isinstance(data, str) else data["fingerprint"],
        "dense_sha256": record["model"]["sha256"] if is_pruned else None,
        "pruning": record["options"] if is_pruned else None,
        "options_sha256": options_sha256(record["options"]),
        "seed": record["seed"],
    }
