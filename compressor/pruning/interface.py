"""Define the interface of pruning algorithms, and the stage that runs one on a directory.

An algorithm is an `Algorithm`, whose `prune` prunes `classifier.model` in place and which says what the rest
must know of it; or a function that scores weights, see `compressor.pruning.scores`. Built in are those of
`ALGORITHMS`; packages register others as entry points in the group `compress.algorithms`.
"""

from __future__ import annotations

import importlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from compressor.data.texts import TextData, load_text_data, log_notes
from compressor.errors import UserError
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
from compressor.models.latency_table import Widths
from compressor.models.reuse import decides
from compressor.models.structure import head_size
from compressor.options import (
    ALGORITHM_REGISTRY,
    AlgorithmName,
    PruneConfig,
    Section,
    package_of,
)
from compressor.pruning.patterns import MaskPattern, Pattern, Structured, parse_pattern
from compressor.pruning.record import LayerRecord, PruneRecord
from compressor.system.checkpoint import NoCheckpoint, open_shared_checkpoint, remove_checkpoint
from compressor.system.console import Progress
from compressor.system.context import Context
from compressor.system.environment import describe_environment, prepare
from compressor.system.files import (
    atomic_directory,
    check_space,
    claims_output,
    name_of_facts,
    read_json,
    write_json,
)
from compressor.system.jobs import Job, describe_machine
from compressor.system.ranks import join_ranks, ranks_of_environment
from compressor.training.loop import apply_masks
from compressor.training.mixture import SubstitutionWords

PRUNING_RECORD = "pruning.json"
Made = TypeVar("Made")


class SharedWork:
    """Keeps in memory what prunings of one model with the same texts have in common, to make it once."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._made)

    def of(self, kind: str, facts: Mapping[str, Any], make: Callable[[], Made]) -> Made:
        """Return what was made of a kind with the same facts, ready for JSON; make it if nothing was."""
        key = name_of_facts(kind, facts)
        if key not in self._made:
            self._made[key] = make()
        found: Made = self._made[key]
        return found


@dataclass(frozen=True)
class PruningJob:
    """Input of an algorithm besides model and texts.

    Attributes:
        config: the prune section of the recipe.
        max_length: longest input in tokens.
        seed: of everything that is drawn.
        checkpoint: where finished layers are kept.
        words: that stand for others in a distillation; None where words stay.
        shared: what other prunings of the same model with the same texts can use as well.
    """

    config: PruneConfig
    max_length: int
    seed: int
    checkpoint: NoCheckpoint = field(default_factory=NoCheckpoint)
    words: SubstitutionWords | None = None
    shared: SharedWork = field(default_factory=SharedWork)

    @property
    def pattern(self) -> Pattern:
        """The sparsity pattern of every encoder matrix, as the config describes it.

        Raises:
            UserError: the config describes none.
        """
        return pattern_of(self.config)

    @property
    def mask_pattern(self) -> MaskPattern:
        """Return the pattern, for an algorithm that can only set weights to zero.

        Raises:
            UserError: it is structured.
        """
        pattern = self.pattern
        if isinstance(pattern, Structured):
            able = [name for name in ALGORITHMS if algorithm_named(name).takes_structured]
            raise UserError(
                f"pattern structured: algorithm {self.config.algorithm} cannot remove heads and neurons; "
                f"use --algorithm {' or '.join(able)}, or another --pattern"
            )
        return pattern


@dataclass(frozen=True)
class PruningResult:
    """Masks of the pruned weights, and facts for the record.

    Attributes:
        masks: for each encoder matrix a bool `(out, in)`, True where the weight may be non-zero.
        layers: one record a linear layer.
        details: facts of the algorithm's own, ready for JSON.
        patterns: the pattern of each group of layers that have their zeros together; of layers that
            are not named, each has the job's.
        widths: what each encoder layer keeps, where they were chosen one by one.
    """

    masks: dict[str, Tensor]
    layers: list[LayerRecord]
    details: dict[str, Any] = field(default_factory=dict)
    patterns: dict[tuple[str, ...], MaskPattern] = field(default_factory=dict)
    widths: list[Widths] | None = None


class Algorithm(ABC):
    """A pruning algorithm, and what the rest must know of it before it runs.

    Attributes:
        options: section of what the recipe has under `algorithm_options`; algorithms that are built in have
            sections of their own in `PruneConfig` instead.
        needs_labels: whether the calibration texts must have labels.
        takes_structured: whether it can take heads and neurons out, and not zero weights alone.
        shares_work: whether the ranks of torchrun can share out its work.
    """

    options: type[Section] = Section
    needs_labels: bool = False
    takes_structured: bool = False
    shares_work: bool = False

    @abstractmethod
    def prune(
        self, classifier: Classifier, data: TextData, job: PruningJob, progress: Progress
    ) -> PruningResult:
        """Prune `classifier.model` in place."""

    def check(self, config: PruneConfig) -> None:
        """Raise a `UserError` if options contradict each other."""
        del config

    def disk_bytes(self, weights: int, config: PruneConfig) -> int:
        """Return the bytes that it keeps beside the output until that is whole: those of finished layers.

        Args:
            weights: bytes of the model's weights.
        """
        return weights

    def substitution_words(self, config: PruneConfig, progress: Progress) -> SubstitutionWords | None:
        """Load the words that stand for others in a training; None where words stay.

        Raises:
            UserError: their files are missing or broken.
        """
        return None


ALGORITHMS: dict[str, str] = {
    "adaptive": "compressor.pruning.adaptive.prune:ADAPTIVE",
    "randomized": "compressor.pruning.randomized.prune:RANDOMIZED",
    "magnitude": "compressor.pruning.baselines:MAGNITUDE",
    "wanda": "compressor.pruning.baselines:WANDA",
    "sparsegpt": "compressor.pruning.baselines:SPARSEGPT",
}
# What makes an algorithm of a function that scores weights.
SCORING = "compressor.pruning.scores:InputScores"


def algorithm_named(name: AlgorithmName) -> Algorithm:
    """Return the algorithm of a name, built in or registered by a package.

    Raises:
        UserError: no such name, or what a package registered under it is no algorithm.
    """
    entry = ALGORITHM_REGISTRY.entry_point(name)
    found = _at(ALGORITHMS[name]) if entry is None else ALGORITHM_REGISTRY.load(name)
    if isinstance(found, Algorithm):
        return found
    if isinstance(found, type) or not callable(found):
        owner = "compress" if entry is None else f"{entry.value} of {package_of(entry)}"
        raise UserError(
            f"algorithm: {name!r}, {owner}, is no object of a subclass of "
            f"compressor.pruning.interface.Algorithm, and no function that scores weights"
        )
    scored: Algorithm = _at(SCORING)(found)
    return scored


def _at(place: str) -> Any:
    """The object at `module:name`."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def pattern_of(config: PruneConfig) -> Pattern:
    """Return the sparsity pattern that options describe.

    Raises:
        UserError: they describe none.
    """
    if config.adaptive.has_latency_goal:
        return Structured(None)
    return parse_pattern(config.pattern, config.sparsity, config.scope)


def check_pruning(config: PruneConfig) -> None:
    """Raise a `UserError` if options contradict each other."""
    algorithm_named(config.algorithm).check(config)


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
    result = algorithm_named(job.config.algorithm).prune(classifier, data, job, progress)
    linears = encoder_linears(classifier.model)
    for name, linear in linears.items():
        if not torch.isfinite(linear.weight).all():
            raise RuntimeError(f"{job.config.algorithm}: {name} holds NaN or infinity")
    if isinstance(pattern, Structured):
        _check_sizes(classifier, result.widths or uniform_widths(before, classifier, pattern))
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


def uniform_widths(
    shapes: Mapping[str, torch.Size], classifier: Classifier, pattern: Structured
) -> list[Widths]:
    """Return what each encoder layer keeps under a structured pattern with a sparsity.

    Args:
        shapes: of the dense model's encoder matrices, by name.
    """
    names, size = classifier.layout.linears, head_size(classifier.model)
    found = []
    for index in range(len(classifier.layout.blocks(classifier.model))):
        prefix = classifier.layout.block_prefix(index)
        heads = shapes[prefix + names.attention_output][1] // size
        neurons = shapes[prefix + names.neurons_out][1]
        found.append(Widths(heads - pattern.removed_count(heads), neurons - pattern.removed_count(neurons)))
    return found


def _check_sizes(classifier: Classifier, widths: Sequence[Widths]) -> None:
    """Raise a `RuntimeError` if a layer has not the heads and neurons that it should have.

    Of a block that goes as a whole one head or neuron stays, without effect.
    """
    names, linears = classifier.layout.linears, encoder_linears(classifier.model)
    sizes = {names.attention_output: head_size(classifier.model), names.neurons_out: 1}
    for index, layer in enumerate(widths):
        for (own, size), kept in zip(sizes.items(), layer, strict=True):
            name = classifier.layout.block_prefix(index) + own
            expected = max(1, kept) * size
            if linears[name].in_features != expected:
                raise RuntimeError(f"{name} has {linears[name].in_features} inputs and not {expected}")
            if not kept and linears[name].weight.count_nonzero():
                raise RuntimeError(f"{name} is to have no effect, and has weights that are not zero")


@claims_output
def prune_directory(
    model: str,
    calibration: str,
    config: PruneConfig,
    context: Context,
    shared: SharedWork | None = None,
) -> PruneRecord:
    """Run the prune stage: a classifier and calibration texts in, a pruned classifier out.

    Writes the classifier and `pruning.json`, whose content is returned. Finished layers are kept
    beside the output until it is whole: a run that was stopped goes on after them if it is started again.

    Args:
        shared: by prunings of the same model with the same texts.

    Raises:
        UserError: bad model, data, pattern or output.
    """
    columns, run, output = context.columns, context.run, context.output
    algorithm = _runnable_algorithm(config)
    # First of all: it says on which GPU a model is loaded.
    ranks = join_ranks()
    pattern = pattern_of(config)
    classifier = load_classifier(model, prepare(run), lengths={"max_length": columns.max_length})
    _check_shapes(classifier, pattern)
    data = _calibration_texts(calibration, classifier, algorithm, context)
    words = algorithm.substitution_words(config, context.progress)
    facts = {
        "options": config.model_dump(),
        "seed": run.seed,
        "model": {"source": model, "sha256": weights_fingerprint(model)},
        "data": data.record(columns),
        **(words or SubstitutionWords()).record(),
        "environment": describe_environment(run),
    }
    weights = weights_bytes(classifier)
    check_space(output, weights + algorithm.disk_bytes(weights, config))
    decisive = decides(
        "prune",
        run,
        {"prune": config},
        model={"content": model_content(model)},
        data={"calibration": {"content": data.fingerprint}, "max_length": columns.max_length},
    )
    asked = Job(decisive, {"model": model, "data.calibration": calibration}, describe_machine(run))
    checkpoint = open_shared_checkpoint(ranks, asked, context)
    start = time.monotonic()
    job = PruningJob(
        config, columns.max_length, run.seed, checkpoint, words, SharedWork() if shared is None else shared
    )
    result = prune_classifier(classifier, data, job, context.progress)
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
    with atomic_directory(output, force=context.force) as working:
        save_classifier(classifier, working)
        write_json(working / PRUNING_RECORD, record)
    remove_checkpoint(checkpoint)
    ranks.wait()
    return _written(output)


def _runnable_algorithm(config: PruneConfig) -> Algorithm:
    """Return the algorithm of the options.

    Raises:
        UserError: options that contradict each other, or ranks for an algorithm that takes none.
    """
    algorithm = algorithm_named(config.algorithm)
    if ranks_of_environment().world > 1 and not algorithm.shares_work:
        able = [name for name in ALGORITHMS if algorithm_named(name).shares_work]
        raise UserError(
            f"algorithm {config.algorithm}: has nothing that torchrun could share out; start it without, or "
            f"use --algorithm {' or '.join(able)}"
        )
    algorithm.check(config)
    return algorithm


def _calibration_texts(
    source: str, classifier: Classifier, algorithm: Algorithm, context: Context
) -> TextData:
    """Load the texts to prune with, and check that they fit the model.

    Raises:
        UserError: they cannot be read, or do not fit.
    """
    needs_labels = algorithm.needs_labels
    names = classifier.label_names
    data = load_text_data(
        source, context.columns, "calibration", label_names=names, needs_labels=needs_labels
    )
    log_notes(data, context.progress, labels=needs_labels)
    check_pairs(classifier.source, classifier.model.config, classifier.tokenizer, data.pairs is not None)
    return data


def _written(output: Path) -> PruneRecord:
    """Return the record of a finished stage, with what is known of the result since."""
    record = read_json(output / PRUNING_RECORD)
    return PruneRecord(**record, path=output, sha256=weights_fingerprint(str(output)))
