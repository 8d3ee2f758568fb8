"""One interface for all pruning algorithms, and the stage that runs one on a directory.

An algorithm is a function `prune(classifier, data, job, progress) -> PruningResult` that
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
from torch import Tensor, nn

from compressor.data.texts import TextData, load_text_data, log_notes
from compressor.errors import UserError
from compressor.lexicon.word_vectors import WordVectors
from compressor.models.classifier import (
    Classifier,
    check_pairs,
    encoder_linears,
    encoder_weights,
    load_classifier,
    model_content,
    save_classifier,
    sparsity_of,
    weights_bytes,
    weights_fingerprint,
)
from compressor.models.reuse import decides
from compressor.models.structure import head_size
from compressor.options import AlgorithmName, ColumnsConfig, PruneConfig, RunConfig
from compressor.pruning.patterns import MaskPattern, Pattern, Structured, parse_pattern
from compressor.system.checkpoint import NoCheckpoint, open_shared_checkpoint, remove_checkpoint
from compressor.system.console import Progress
from compressor.system.environment import describe_environment, prepare
from compressor.system.files import atomic_directory, check_space, claims_output, read_json, write_json
from compressor.system.jobs import Job, describe_machine
from compressor.system.ranks import join_ranks, ranks_of_environment
from compressor.training import early_stopping
from compressor.training.checkpoint import DISK_SHARE
from compressor.training.loop import apply_masks
from compressor.training.word_substitution import substitution_vectors

PRUNING_RECORD = "pruning.json"


@dataclass(frozen=True)
class PruningJob:
    """What an algorithm is asked for.

    Attributes:
        config: the prune section of the recipe.
        max_length: longest input in tokens.
        seed: of everything that is drawn.
        checkpoint: where finished layers are kept.
        vectors: whose neighbours replace words in a distillation; None where they stay.
    """

    config: PruneConfig
    max_length: int
    seed: int
    checkpoint: NoCheckpoint = field(default_factory=NoCheckpoint)
    vectors: WordVectors | None = None

    @property
    def pattern(self) -> Pattern:
        """The sparsity pattern of every encoder matrix, as the config describes it.

        Raises:
            UserError: the config describes none.
        """
        return parse_pattern(self.config.pattern, self.config.sparsity, self.config.scope)

    @property
    def mask_pattern(self) -> MaskPattern:
        """The pattern, for an algorithm that can only zero weights.

        Raises:
            UserError: it is structured.
        """
        pattern = self.pattern
        if isinstance(pattern, Structured):
            raise UserError(
                f"pattern structured: algorithm {self.config.algorithm} cannot take heads and neurons out; "
                f"use --algorithm adaptive or magnitude, or another --pattern"
            )
        return pattern


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
        patterns: the pattern of each group of layers that have their zeros together; of layers that
            are not named, each has the job's.
    """

    masks: dict[str, Tensor]
    layers: list[LayerRecord]
    details: dict[str, Any] = field(default_factory=dict)
    patterns: dict[tuple[str, ...], MaskPattern] = field(default_factory=dict)


Algorithm: TypeAlias = Callable[[Classifier, TextData, PruningJob, Progress], PruningResult]

ALGORITHMS: dict[AlgorithmName, str] = {
    "adaptive": "compressor.pruning.adaptive.prune:prune",
    "randomized": "compressor.pruning.randomized.prune:prune",
    "magnitude": "compressor.pruning.baselines:magnitude",
    "wanda": "compressor.pruning.baselines:wanda",
    "sparsegpt": "compressor.pruning.baselines:sparsegpt",
}


def algorithm(name: AlgorithmName) -> Algorithm:
    """The function behind a name."""
    module, function = ALGORITHMS[name].split(":")
    found: Algorithm = getattr(importlib.import_module(module), function)
    return found


def check_pruning(config: PruneConfig) -> None:
    """Raise a `UserError` if options contradict each other."""
    share = config.adaptive.distillation_substituted_share
    if config.algorithm == "adaptive" and share and not config.distills:
        raise UserError(
            f"distillation_substituted_share: {share:g} of the words are to be replaced in a distillation, "
            f"and there is none; add --distillation-steps, such as 1000"
        )


def prune_classifier(
    classifier: Classifier, data: TextData, job: PruningJob, progress: Progress
) -> PruningResult:
    """Prune `classifier` in place and check the outcome.

    Raises:
        UserError: the pattern does not fit a layer.
        RuntimeError: the algorithm broke its promise: wrong count of zeros, or a weight that is
            not finite (a bug).
    """
    before = {name: linear.weight.shape for name, linear in encoder_linears(classifier.model).items()}
    pattern = job.pattern
    _check_shapes(classifier, pattern)
    result = algorithm(job.config.algorithm)(classifier, data, job, progress)
    linears = encoder_linears(classifier.model)
    for name, linear in linears.items():
        if not torch.isfinite(linear.weight).all():
            raise RuntimeError(f"{job.config.algorithm}: {name} holds NaN or infinity")
    if isinstance(pattern, Structured):
        _check_sizes(classifier, before, pattern)
    else:
        _check_masks(linears, result, pattern)
        # A product with a mask leaves negative zeros, which differ in a bit and do not pack.
        apply_masks(classifier.model, result.masks)
    return result


def _check_shapes(classifier: Classifier, pattern: Pattern) -> None:
    """Raise a `UserError` if the pattern does not fit an encoder matrix."""
    for name, weight in encoder_weights(classifier.model).items():
        pattern.check_shape(name, weight)


def _check_masks(linears: dict[str, nn.Linear], result: PruningResult, pattern: MaskPattern) -> None:
    """Raise a `RuntimeError` if a mask does not meet its pattern, or a weight its mask."""
    if set(result.masks) != set(linears):
        raise RuntimeError("masks are missing for some layers")
    grouped = {name for names in result.patterns for name in names}
    patterns = result.patterns | {(name,): pattern for name in linears if name not in grouped}
    for names, own in patterns.items():
        if not own.is_met_by(_stacked([result.masks[name] for name in names])):
            raise RuntimeError(f"the mask of {', '.join(names)} does not meet {own}")
    for name, linear in linears.items():
        if linear.weight[~result.masks[name]].count_nonzero():
            raise RuntimeError(f"{name} is not zero where its mask is")


def _stacked(masks: list[Tensor]) -> Tensor:
    """Masks of a group as one: row below row, or all in one row where they differ in width."""
    if len({mask.shape[1] for mask in masks}) == 1:
        return torch.cat(masks)
    return torch.cat([mask.flatten() for mask in masks])[None]


def _check_sizes(classifier: Classifier, before: dict[str, torch.Size], pattern: Structured) -> None:
    """Raise a `RuntimeError` if a layer has not lost its heads or neurons."""
    width = head_size(classifier.model)
    for name, linear in encoder_linears(classifier.model).items():
        if name.endswith("output.dense"):
            size = width if name.endswith("attention.output.dense") else 1
            whole = before[name][1] // size
            expected = (whole - pattern.removed_count(whole)) * size
            if linear.in_features != expected:
                raise RuntimeError(f"{name} has {linear.in_features} inputs and not {expected}")


@claims_output
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
    resume: bool = False,
) -> dict[str, Any]:
    """The prune stage: a classifier and calibration texts in, a pruned classifier out.

    Writes the classifier and `pruning.json`, and returns the latter's content. Finished layers are
    kept beside `output` until it is whole: a run that was stopped goes on after them if it is started again.

    Args:
        force: replace `output`, and what a stopped run of another job left.
        resume: never throw away what a stopped run left.

    Raises:
        UserError: bad model, data, pattern or output.
    """
    if ranks_of_environment().world > 1 and config.algorithm != "randomized":
        raise UserError(
            f"algorithm {config.algorithm}: has nothing that torchrun could share out; start it without, or "
            f"use --algorithm randomized"
        )
    check_pruning(config)
    # First of all: it says on which GPU a model is loaded.
    ranks = join_ranks()
    pattern = parse_pattern(config.pattern, config.sparsity, config.scope)
    device = prepare(run)
    classifier = load_classifier(model, device, lengths={"max_length": columns.max_length})
    _check_shapes(classifier, pattern)
    data = load_text_data(
        calibration,
        columns,
        "calibration",
        label_names=classifier.label_names,
        needs_labels=config.trains,
    )
    log_notes(data, progress, labels=config.trains)
    check_pairs(model, classifier.model.config, classifier.tokenizer, data.pairs is not None)
    replaces_words = config.distills and config.adaptive.distillation_substituted_share
    vectors = substitution_vectors(config.adaptive, progress) if replaces_words else None
    facts = {
        "options": config.model_dump(),
        "seed": run.seed,
        "model": {"source": model, "sha256": weights_fingerprint(model)},
        "data": data.record(columns),
        "substitution_vectors": vectors and vectors.description,
        "environment": describe_environment(run),
    }
    # The model, and beside it until it is whole its layers and a distillation's state and best weights.
    shares = 2 + (DISK_SHARE + early_stopping.DISK_SHARE if config.distills else 0)
    check_space(output, shares * weights_bytes(classifier))
    decisive = decides(
        "prune",
        run,
        {"prune": config},
        model={"content": model_content(model)},
        data={"calibration": {"content": data.fingerprint}, "max_length": columns.max_length},
    )
    asked = Job(decisive, {"model": model, "data.calibration": calibration}, describe_machine(run))
    checkpoint = open_shared_checkpoint(ranks, output, asked, resume=resume, force=force, log=progress.log)
    start = time.monotonic()
    job = PruningJob(config, columns.max_length, run.seed, checkpoint, vectors)
    result = prune_classifier(classifier, data, job, progress)
    if not ranks.is_first:
        ranks.wait()
        return _written(output)
    record = {
        "algorithm": config.algorithm,
        "pattern": str(pattern),
        "sparsity": sparsity_of(encoder_weights(classifier.model)),
        "seconds": round(time.monotonic() - start, 2),
        "layers": [asdict(layer) for layer in result.layers],
        "details": result.details,
        **facts,
        **checkpoint.began_on,
    }
    with atomic_directory(output, force=force) as working:
        save_classifier(classifier, working)
        write_json(working / PRUNING_RECORD, record)
    remove_checkpoint(checkpoint)
    ranks.wait()
    return _written(output)


def _written(output: Path) -> dict[str, Any]:
    """The record of a finished stage, with what is known of the result since."""
    record = read_json(output / PRUNING_RECORD)
    return {**record, "path": str(output), "sha256": weights_fingerprint(str(output))}
