"""Prune layer by layer: each pruned layer reproduces the dense model's output from drifted inputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compressor.data.texts import TextData
from compressor.errors import UserError
from compressor.models.batching import Encoded, encode
from compressor.models.classifier import Classifier, encoder_linears, encoder_weights
from compressor.models.latency_table import Widths, read_latency_table
from compressor.models.structure import head_size, set_neuron_count
from compressor.options import PruneConfig
from compressor.pruning.adaptive.allocation import allocate, by_layer, uniform_patterns
from compressor.pruning.adaptive.distillation import (
    BATCH_SIZE,
    Distillation,
    Perturbed,
    distill,
    fastest_rate,
    readable,
)
from compressor.pruning.adaptive.distillation import TOKENS as DISTILLATION_TOKENS
from compressor.pruning.adaptive.group_solvers import SparseSolver, StructuredSolver, resolve_heads
from compressor.pruning.adaptive.widths import allocate_widths
from compressor.pruning.interface import Algorithm, PruningJob, PruningResult, uniform_widths
from compressor.pruning.layerwise import GroupSolver, calibration_texts, prune_layerwise
from compressor.pruning.patterns import MaskPattern, Structured, Unstructured
from compressor.system.checkpoint import Part
from compressor.system.console import Progress
from compressor.training import early_stopping
from compressor.training.checkpoint import DISK_SHARE
from compressor.training.mixture import SubstitutionWords, load_substitution_words, mixture_of
from compressor.training.teacher import HiddenStates, ask_teacher, can_be_kept
from compressor.training.word_substitution import check_substitution, substitution_kind

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Texts that judge: an eighth of those that are used, or as many as a dozen steps of a distillation see.
HELD_OUT, HELD_OUT_SHARE = 512, 8
# Part of the checkpoint with the learning rate that was chosen; share of the steps of each short run.
RACE, RACE_SHARE = "distillation-race", 5


@torch.no_grad()
def prune(classifier: Classifier, data: TextData, job: PruningJob, progress: Progress) -> PruningResult:
    """Prune layer by layer (Li et al., EMNLP 2023, algorithms 1 and 2); no training.

    For each linear layer in the order in which data flows: adaptive Hessian from the inputs that
    the pruned part feeds it (4.3.2), the adapted dense weight (4.3.3, eq. 5) and its bias, and the
    elimination. Pooler and classifier are re-solved for their drifted inputs at the end.
    """
    options, pattern = job.config.adaptive, job.pattern
    if options.allocation == "error" and not isinstance(pattern, Unstructured):
        raise UserError(
            f"allocation error: pattern {pattern} has the same sparsity everywhere; "
            f"use --allocation uniform, or --pattern unstructured"
        )
    data, held_out = hold_out(data, job)
    details: dict[str, object] = {}
    patterns: dict[tuple[str, ...], MaskPattern] = {}
    widths: list[Widths] | None = None
    solver: GroupSolver
    if isinstance(pattern, Structured):
        widths, found_details = _layer_widths(classifier, data, held_out, job, pattern, progress)
        details |= found_details
        solver = StructuredSolver(options, widths, head_size(classifier.model), job.seed)
    else:
        patterns = _group_patterns(classifier, data, job, progress)
        details["sparsities"] = {names[0]: own.sparsity for names, own in patterns.items()}
        solver = SparseSolver(options, patterns, job.seed)
    dense = copy.deepcopy(classifier.model)
    found = prune_layerwise(
        classifier, data, job, solver, progress, dense=dense, drifted=options.adaptive_hessian
    )
    if isinstance(pattern, Structured):
        set_neuron_count(classifier.model)
    if options.resolve_heads:
        resolve_heads(classifier, found.walk, options.damping)
    if options.distillation_steps:
        fixed = found.masks | _masks_of_nothing(classifier, widths or [])
        details |= _distill(classifier, dense, data, held_out, job, fixed, progress)
    details["calibration_examples"] = found.examples
    return PruningResult(found.masks, found.records, details, patterns, widths)


def hold_out(data: TextData, job: PruningJob) -> tuple[TextData, TextData]:
    """Set texts aside that judge widths and a distillation; layers are solved with the others alone.

    On texts that it was solved with, a layer is far nearer to the dense model than on new ones; judged by
    them, no training would seem to bring it nearer. Where nothing is judged, none are set aside.

    Raises:
        UserError: no other texts would be left.
    """
    options = job.config.adaptive
    if options.latency_table is None and not options.distillation_steps:
        return data, data.select([])
    used = min(len(data), max(job.config.calibration_examples, options.distillation_examples))
    return data.hold_out(max(1, min(HELD_OUT, used // HELD_OUT_SHARE)), job.seed)


def _layer_widths(
    classifier: Classifier,
    data: TextData,
    held_out: TextData,
    job: PruningJob,
    pattern: Structured,
    progress: Progress,
) -> tuple[list[Widths], dict[str, object]]:
    """Return what each encoder layer keeps, by the job's sparsity or latency, and facts for the record."""
    options = job.config.adaptive
    if options.latency_table is None:
        shapes = {name: weight.shape for name, weight in encoder_weights(classifier.model).items()}
        return uniform_widths(shapes, classifier, pattern), {}
    table = read_latency_table(Path(options.latency_table))
    found = allocate_widths(classifier, data, held_out, job, table, progress)
    progress.log(
        f"Widths for {found.speedup:.3g} times dense PyTorch, as predicted (heads-neurons by layer): "
        + ", ".join(f"{own.heads}-{own.neurons}" for own in found.widths)
    )
    return found.widths, found.details()


def _masks_of_nothing(classifier: Classifier, widths: Sequence[Widths]) -> dict[str, Tensor]:
    """Masks that keep blocks without effect so: all False, of the output layers of those that are gone."""
    names, linears = classifier.layout.linears, encoder_linears(classifier.model)
    found = {}
    for index, own in enumerate(widths):
        for name, kept in zip((names.attention_output, names.neurons_out), own, strict=True):
            if not kept:
                whole = classifier.layout.block_prefix(index) + name
                found[whole] = torch.zeros_like(linears[whole].weight, dtype=torch.bool)
    return found


def _distill(
    classifier: Classifier,
    dense: PreTrainedModel,
    data: TextData,
    held_out: TextData,
    job: PruningJob,
    masks: Mapping[str, Tensor],
    progress: Progress,
) -> dict[str, object]:
    """Distill the pruned model in place, and return the facts for the record."""
    options, tokenizer = job.config.adaptive, classifier.tokenizer
    examples = options.distillation_examples or job.config.calibration_examples
    tokens = max(DISTILLATION_TOKENS, options.calibration_tokens)
    shown = data.sample(examples, job.seed)
    # The dense model answers any part of a text, and what many steps see again they learn by heart.
    texts = calibration_texts(classifier, shown, job, len(shown), tokens, whole=True)
    run = partial(
        distill, classifier, dense, texts, masks,
        held_out=encode(tokenizer, held_out, job.max_length), seed=job.seed,
        perturbed=_perturbed(classifier, texts, held_out, job),
        answers=_answers(classifier, dense, texts, job, progress),
    )  # fmt: skip
    rate, race = _rate(classifier, run, job, progress)
    found = run(
        steps=options.distillation_steps,
        learning_rate=rate,
        checkpoint=job.checkpoint,
        track=lambda steps: progress.track(steps, "Distilling the whole model"),
    )
    if found.kept_step == 0:
        progress.log(
            "Distillation: no evaluation was better than the start on held-out texts, so its weights are "
            "kept; try a lower --distillation-rate, or more texts"
        )
    else:
        progress.log(
            f"Distillation: divergence on {found.held_out_examples} held-out texts from "
            f"{found.divergence_before:.4g} to {found.divergence:.4g}, after step {found.kept_step}"
        )
        if found.perturbed_divergence is not None:
            progress.log(
                f"Robust distillation: divergence on perturbed copies of them from "
                f"{found.perturbed_divergence_before:.4g} to {found.perturbed_divergence:.4g}"
            )
    return {"distillation_examples": len(shown), "distillation": asdict(found), **race}


def _perturbed(
    classifier: Classifier, texts: Sequence[Encoded], held_out: TextData, job: PruningJob
) -> Perturbed | None:
    """What a robust distillation perturbs; None where it is none."""
    options, tokenizer = job.config.adaptive, classifier.tokenizer
    if job.words is None:
        return None
    mixture = mixture_of(options, job.words).replacements
    share, seed = options.distillation_substituted_share, job.seed
    make = substitution_kind(options)
    training, judging = (
        make(tokenizer, data, job.max_length, mixture, share, seed)
        for data in (readable(texts, tokenizer), held_out)
    )
    return Perturbed(training, judging, options.clean_divergence_tolerance)


def _answers(
    classifier: Classifier,
    dense: PreTrainedModel,
    texts: Sequence[Encoded],
    job: PruningJob,
    progress: Progress,
) -> tuple[Tensor, HiddenStates] | None:
    """The dense model's answers to all texts; None where not all are seen, or there is no room for them."""
    if job.config.adaptive.distillation_steps * BATCH_SIZE < len(texts) or not can_be_kept(texts, dense):
        return None
    padding = int(classifier.tokenizer.pad_token_id)
    track = partial(progress.track, description="Answers of the dense model")
    facts = {"texts": [ids for ids, _ in texts]}
    return job.shared.of("answers", facts, lambda: ask_teacher(dense, texts, padding, track))


def _rate(
    classifier: Classifier, run: Callable[..., Distillation], job: PruningJob, progress: Progress
) -> tuple[float, dict[str, object]]:
    """Return the learning rate of the distillation, and what a race between several said, for the record.

    Args:
        run: distills the model in place.
    """
    options = job.config.adaptive
    if options.distillation_rates is None:
        return options.distillation_rate, {}
    part = job.checkpoint.load(RACE)
    if part is None:
        steps = -(-options.distillation_steps // RACE_SHARE)
        progress.log(f"Trying learning rates for {steps} steps each: {options.distillation_rates}")
        short = partial(run, steps=steps)
        rate, divergences = fastest_rate(
            classifier.model, options.distillation_rates, lambda rate: short(learning_rate=rate)
        )
        part = Part({}, {"rate": rate, "divergences": divergences})
        job.checkpoint.save(RACE, part)
    progress.log(f"Learning rate {part.facts['rate']:g}: its short run ends with the lowest loss")
    return part.facts["rate"], {"distillation_race": part.facts}


def _group_patterns(
    classifier: Classifier, data: TextData, job: PruningJob, progress: Progress
) -> dict[tuple[str, ...], MaskPattern]:
    """Return the pattern of each group of layers with a common input."""
    pattern = job.pattern
    if isinstance(pattern, Unstructured) and job.config.adaptive.allocation == "error":
        return allocate(classifier, data, job, by_layer(pattern), progress)
    return uniform_patterns(classifier, job.mask_pattern)


class _Adaptive(Algorithm):
    """Adaptive pruning, and what the stage must know of it."""

    takes_structured = True

    def prune(
        self, classifier: Classifier, data: TextData, job: PruningJob, progress: Progress
    ) -> PruningResult:
        return prune(classifier, data, job, progress)

    def check(self, config: PruneConfig) -> None:
        check_substitution(config.adaptive)

    def disk_bytes(self, weights: int, config: PruneConfig) -> int:
        # Finished layers, and a distillation's state and best weights.
        distillation = DISK_SHARE + early_stopping.DISK_SHARE if config.adaptive.distillation_steps else 0
        return (1 + distillation) * weights

    def substitution_words(self, config: PruneConfig, progress: Progress) -> SubstitutionWords | None:
        return load_substitution_words(config.adaptive, progress) if config.adaptive.robust else None


ADAPTIVE = _Adaptive()
