"""One interface for all pruning algorithms, and the stage that runs one on a directory.

An algorithm is a function `prune(classifier, data, config, seed, progress) -> PruningResult` that
prunes `classifier.model` in place. Adding one takes a module and an entry in `ALGORITHMS`.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from compressor.adaptive.solvers import UnsolvableError
from compressor.classifier import (
    Classifier,
    encoder_linears,
    encoder_weights,
    load_classifier,
    save_classifier,
    sparsity_of,
    weights_bytes,
    weights_fingerprint,
)
from compressor.console import Progress
from compressor.data import TextData, load_text_data
from compressor.environment import describe_environment, prepare
from compressor.errors import UserError
from compressor.output import atomic_directory, check_replaceable, write_json
from compressor.patterns import Pattern, parse_pattern
from compressor.recipe import AlgorithmName, ColumnsConfig, PruneConfig, RunConfig

PRUNING_RECORD = "pruning.json"


@dataclass(frozen=True)
class PruningJob:
    """What an algorithm is asked for.

    Attributes:
        pattern: the sparsity pattern of every encoder matrix.
        config: the prune section of the recipe.
        max_length: longest input in tokens.
        seed: of everything that is drawn.
    """

    pattern: Pattern
    config: PruneConfig
    max_length: int
    seed: int


@dataclass(frozen=True)
class LayerRecord:
    """What was done to one linear layer.

    Attributes:
        relative_error: reconstruction error relative to the output's energy, where it is measured.
        ridge: what was added to the Hessian's diagonal, where there is one.
    """

    name: str
    sparsity: float
    relative_error: float | None = None
    ridge: float | None = None


@dataclass(frozen=True)
class PruningResult:
    """Masks that the pruned weights keep to, and what is worth telling.

    Attributes:
        masks: for each encoder matrix a bool `(out, in)`, True where the weight may be non-zero.
        layers: one record a linear layer.
        details: facts of the algorithm's own, ready for JSON.
    """

    masks: dict[str, Tensor]
    layers: list[LayerRecord]
    details: dict[str, Any] = field(default_factory=dict)


Algorithm: TypeAlias = Callable[[Classifier, TextData, PruningJob, Progress], PruningResult]

ALGORITHMS: dict[AlgorithmName, str] = {
    "adaptive": "compressor.adaptive.prune:prune",
    "randomized": "compressor.randomized.prune:prune",
    "magnitude": "compressor.baselines:magnitude",
    "wanda": "compressor.baselines:wanda",
    "sparsegpt": "compressor.baselines:sparsegpt",
}


def algorithm(name: AlgorithmName) -> Algorithm:
    """The function behind a name."""
    module, function = ALGORITHMS[name].split(":")
    found: Algorithm = getattr(importlib.import_module(module), function)
    return found


def prune_classifier(
    classifier: Classifier, data: TextData, job: PruningJob, progress: Progress
) -> PruningResult:
    """Prune `classifier` in place and check the outcome.

    Raises:
        UserError: the pattern does not fit a layer.
        RuntimeError: the algorithm broke its promise: wrong count of zeros, or a weight that is
            not finite (a bug).
    """
    linears = encoder_linears(classifier.model)
    for name, linear in linears.items():
        job.pattern.check_shape(name, linear.weight)
    try:
        result = algorithm(job.config.algorithm)(classifier, data, job, progress)
    except UnsolvableError as error:
        raise UserError(f"{job.config.algorithm}: {error}; use more calibration texts") from error
    if set(result.masks) != set(linears):
        raise RuntimeError(f"{job.config.algorithm}: masks are missing for some layers")
    for name, linear in linears.items():
        mask = result.masks[name]
        if not job.pattern.is_met_by(mask):
            raise RuntimeError(f"{job.config.algorithm}: the mask of {name} does not meet {job.pattern}")
        if linear.weight[~mask].count_nonzero():
            raise RuntimeError(f"{job.config.algorithm}: {name} is not zero where its mask is")
        if not torch.isfinite(linear.weight).all():
            raise RuntimeError(f"{job.config.algorithm}: {name} holds NaN or infinity")
    return result


def prune_directory(
    model: str,
    calibration: str,
    columns: ColumnsConfig,
    config: PruneConfig,
    run: RunConfig,
    output: Path,
    *,
    force: bool,
    progress: Progress,
) -> dict[str, Any]:
    """The prune stage: a classifier and calibration texts in, a pruned classifier out.

    Writes the classifier and `pruning.json`, and returns the latter's content.

    Raises:
        UserError: bad model, data, pattern or output.
    """
    check_replaceable(output, force)
    pattern = parse_pattern(config.pattern, config.sparsity)
    device = prepare(run)
    classifier = load_classifier(model, device)
    for name, linear in encoder_linears(classifier.model).items():
        pattern.check_shape(name, linear.weight)
    data = load_text_data(
        calibration,
        columns,
        "calibration",
        label_names=classifier.label_names,
        needs_labels=config.algorithm == "randomized",
    )
    with atomic_directory(output, force=force, needed_bytes=2 * weights_bytes(classifier)) as working:
        start = time.monotonic()
        job = PruningJob(pattern, config, columns.max_length, run.seed)
        result = prune_classifier(classifier, data, job, progress)
        seconds = time.monotonic() - start
        save_classifier(classifier, working)
        record = {
            "algorithm": config.algorithm,
            "pattern": str(pattern),
            "sparsity": sparsity_of(encoder_weights(classifier.model)),
            "seconds": round(seconds, 2),
            "layers": [asdict(layer) for layer in result.layers],
            "details": result.details,
            "options": config.model_dump(),
            "seed": run.seed,
            "model": {"source": model, "sha256": weights_fingerprint(model)},
            "data": data.record(columns),
            "environment": describe_environment(run),
        }
        write_json(working / PRUNING_RECORD, record)
    return {**record, "path": str(output), "sha256": weights_fingerprint(str(output))}
