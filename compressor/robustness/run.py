"""Runs an attack on a victim, example by example, and the stage that does so for a directory."""

from __future__ import annotations

import json
import random
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compressor.classifier import load_classifier
from compressor.console import Progress
from compressor.data import TextData, load_text_data
from compressor.environment import describe_environment, prepare, thread_count
from compressor.errors import UserError
from compressor.output import atomic_directory, check_replaceable, write_json
from compressor.predictors import OnnxPredictor, Predictor, TorchPredictor
from compressor.recipe import AttackConfig, ColumnsConfig, RunConfig
from compressor.robustness.attacks import build_attack, has_words
from compressor.robustness.comparison import compare, load_attack
from compressor.robustness.records import EXAMPLES_RECORD, ROBUSTNESS_RECORD, AttackedExample, summarize
from compressor.robustness.victims import Victim
from exporters.manifest import is_artifact, read_manifest

RECORD_BYTES = 10**6


def attack_victim(
    victim: Victim, data: TextData, config: AttackConfig, seed: int, progress: Progress, name: str
) -> tuple[list[AttackedExample], dict[str, str]]:
    """Attack each example of `data`; return what became of them, and the resources that were used.

    Each example has its own random state, drawn from the seed and its place, so that its outcome
    does not depend on the examples before it.
    """
    attack, resources = build_attack(config, victim, progress)
    labels = data.class_labels
    results = []
    for index in progress.track(range(len(data)), f"{config.attack} on {name}"):
        pair = None if data.pairs is None else data.pairs[index]
        # TextFooler leaves the first text of a pair alone if the two are named so.
        source = data.texts[index]
        text = source if pair is None else OrderedDict(premise=source, hypothesis=pair)
        start = time.monotonic()
        if not has_words(f"{source} {pair or ''}"):
            # Not every recipe bears a text without words.
            results.append(_held_out(victim, source, pair, labels[index]))
            continue
        with _random_state(seed, index):
            attack.clear_cache()
            result = attack.attack(text, labels[index])
        results.append(_record(result, source, pair, labels[index], time.monotonic() - start))
    return results, resources


def _held_out(victim: Victim, text: str, pair: str | None, label: int) -> AttackedExample:
    """The record of a text in which there is nothing to change: one query tells whether it is right."""
    start = time.monotonic()
    right = int(victim([text if pair is None else (text, pair)]).argmax()) == label
    outcome = "failed" if right else "skipped"
    return AttackedExample(text, pair, text, pair, label, outcome, 1, 0.0, round(time.monotonic() - start, 4))


@contextmanager
def _random_state(seed: int, index: int) -> Iterator[None]:
    """TextAttack draws from the global generators; set them, and put them back."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        value = int(np.random.SeedSequence((seed, index)).generate_state(1)[0])
        random.seed(value)
        np.random.seed(value)
        torch.manual_seed(value)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def _outcome(result: Any) -> str:
    kind = type(result).__name__
    if kind == "MaximizedAttackResult":
        # Input reduction: TextAttack goes as far as it gets, and leaves it open how far that must be.
        return "succeeded" if result.perturbed_result.attacked_text.num_words <= 1 else "failed"
    return {
        "SkippedAttackResult": "skipped",
        "SuccessfulAttackResult": "succeeded",
        "FailedAttackResult": "failed",
    }[kind]


def _record(result: Any, text: str, pair: str | None, label: int, seconds: float) -> AttackedExample:
    original, perturbed = result.original_result.attacked_text, result.perturbed_result.attacked_text
    outcome = _outcome(result)
    # What input reduction took away is told even where more than one word is left.
    told = outcome == "succeeded" or type(result).__name__ == "MaximizedAttackResult"
    texts = list(perturbed._text_input.values())
    return AttackedExample(
        text=text,
        text_pair=pair,
        perturbed=texts[0] if told else text,
        perturbed_pair=pair if pair is None or not told else texts[1],
        label=label,
        outcome=outcome,
        queries=int(result.num_queries),
        words_changed=_share_changed(original.words, perturbed.words) if told else 0.0,
        seconds=round(seconds, 4),
    )


def _share_changed(before: Sequence[str], after: Sequence[str]) -> float:
    """Share of the words that are gone or others; a space put into one does not count for those behind it."""
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    kept = sum(block.size for block in matcher.get_matching_blocks())
    return 1 - kept / len(before)


def load_predictor(directory: str, run: RunConfig) -> Predictor:
    """A predictor for a classifier (directory or hub id) or for an exported artifact (directory).

    Raises:
        UserError: neither of the two, or broken.
    """
    path = Path(directory)
    device = prepare(run)
    if is_artifact(path):
        read_manifest(path)
        return OnnxPredictor(path, thread_count(run), device.type)
    return TorchPredictor(load_classifier(directory, device))


def attack_directory(
    model: str,
    data_source: str,
    columns: ColumnsConfig,
    config: AttackConfig,
    run: RunConfig,
    output: Path,
    *,
    against: Path | None = None,
    force: bool,
    progress: Progress,
) -> dict[str, Any]:
    """The attack stage: a classifier or artifact and labelled texts in, figures and examples out.

    Writes `robustness.json`, whose content is returned, and `examples.jsonl`, one line an example.

    Args:
        against: what this stage wrote for another model, with which this one is compared.

    Raises:
        UserError: bad model, data, resources or output.
    """
    check_replaceable(output, force)
    predictor = load_predictor(model, run)
    if len(predictor.label_names) < 2:
        raise UserError(f"{model}: has fewer than two classes; there is nothing to attack")
    data = load_text_data(data_source, columns, "test", label_names=predictor.label_names)
    sample = data.sample(config.attack_examples, run.seed)
    options = config.model_dump()
    other = None if against is None else load_attack(against, options, run.seed, sample)
    with atomic_directory(output, force=force, needed_bytes=RECORD_BYTES) as working:
        victim = Victim(predictor, columns.max_length)
        examples, resources = attack_victim(victim, sample, config, run.seed, progress, Path(model).name)
        record = {
            **asdict(summarize(examples, config.attack)),
            "model": model,
            "data": data.record(columns),
            "options": options,
            "resources": resources,
            "seed": run.seed,
            "environment": describe_environment(run),
        }
        if other is not None:
            other.check("resources", resources)
            record["against"] = compare(other, examples, victim)
        write_json(working / ROBUSTNESS_RECORD, record)
        lines = [json.dumps(asdict(example), ensure_ascii=False) for example in examples]
        (working / EXAMPLES_RECORD).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {**record, "path": str(output)}
