"""Runs an attack on a victim, example by example, and the stage that does so for a directory."""

from __future__ import annotations

import json
import random
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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
from compressor.robustness.attacks import build_attack
from compressor.robustness.victims import Victim
from exporters.manifest import is_artifact, read_manifest

ROBUSTNESS_RECORD = "robustness.json"
EXAMPLES_RECORD = "examples.jsonl"
RECORD_BYTES = 10**6


@dataclass(frozen=True)
class AttackedExample:
    """What an attack did to one example.

    Attributes:
        outcome: "skipped" (the model was wrong before), "succeeded" or "failed".
        queries: texts that the attack had scored.
        words_changed: share of the words of the attacked text that differ.
    """

    text: str
    text_pair: str | None
    perturbed: str
    perturbed_pair: str | None
    label: int
    outcome: str
    queries: int
    words_changed: float
    seconds: float


@dataclass(frozen=True)
class Robustness:
    """Summary of an attack; shares are 0 to 1.

    Attributes:
        accuracy: on the attacked examples, before the attack.
        accuracy_under_attack: share of all examples that stay right.
        attack_success_rate: successes among the examples that were right; None if there were none.
        queries_per_example: mean over the examples that were attacked; None if there were none.
    """

    attack: str
    accuracy: float
    accuracy_under_attack: float
    attack_success_rate: float | None
    queries_per_example: float | None
    examples: int


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
        with _random_state(seed, index):
            attack.clear_cache()
            result = attack.attack(text, labels[index])
        results.append(_record(result, source, pair, labels[index], time.monotonic() - start))
    return results, resources


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


def _record(result: Any, text: str, pair: str | None, label: int, seconds: float) -> AttackedExample:
    original, perturbed = result.original_result.attacked_text, result.perturbed_result.attacked_text
    outcome = {
        "SkippedAttackResult": "skipped",
        "SuccessfulAttackResult": "succeeded",
        "FailedAttackResult": "failed",
    }[type(result).__name__]
    succeeded = outcome == "succeeded"
    texts = list(perturbed._text_input.values())
    changed = len(original.all_words_diff(perturbed)) / max(1, len(original.words)) if succeeded else 0.0
    return AttackedExample(
        text=text,
        text_pair=pair,
        perturbed=texts[0] if succeeded else text,
        perturbed_pair=pair if pair is None or not succeeded else texts[1],
        label=label,
        outcome=outcome,
        queries=int(result.num_queries),
        words_changed=changed,
        seconds=round(seconds, 4),
    )


def summarize(examples: list[AttackedExample], attack: str) -> Robustness:
    """The figures of an attack.

    Raises:
        ValueError: no examples.
    """
    if not examples:
        raise ValueError("no examples were attacked")
    attempted = [example for example in examples if example.outcome != "skipped"]
    succeeded = sum(example.outcome == "succeeded" for example in attempted)
    count = len(examples)
    return Robustness(
        attack=attack,
        accuracy=len(attempted) / count,
        accuracy_under_attack=(len(attempted) - succeeded) / count,
        attack_success_rate=succeeded / len(attempted) if attempted else None,
        queries_per_example=sum(e.queries for e in attempted) / len(attempted) if attempted else None,
        examples=count,
    )


def read_examples(directory: Path) -> list[AttackedExample]:
    """The attacked examples that `attack_directory` wrote into `directory`.

    Raises:
        UserError: there are none, or they are broken.
    """
    path = directory / EXAMPLES_RECORD
    try:
        # Not splitlines: JSON leaves the line separators of Unicode as they are.
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
        return [AttackedExample(**json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{path}: is no record of attacked examples; run compress attack again: {error}"
        ) from error


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
    force: bool,
    progress: Progress,
) -> dict[str, Any]:
    """The attack stage: a classifier or artifact and labelled texts in, figures and examples out.

    Writes `robustness.json`, whose content is returned, and `examples.jsonl`, one line an example.

    Raises:
        UserError: bad model, data, resources or output.
    """
    check_replaceable(output, force)
    predictor = load_predictor(model, run)
    if len(predictor.label_names) < 2:
        raise UserError(f"{model}: has fewer than two classes; there is nothing to attack")
    data = load_text_data(data_source, columns, "test", label_names=predictor.label_names)
    sample = data.sample(config.attack_examples, run.seed)
    with atomic_directory(output, force=force, needed_bytes=RECORD_BYTES) as working:
        victim = Victim(predictor, columns.max_length)
        examples, resources = attack_victim(victim, sample, config, run.seed, progress, Path(model).name)
        record = {
            **asdict(summarize(examples, config.attack)),
            "model": model,
            "data": data.record(columns),
            "options": config.model_dump(),
            "resources": resources,
            "seed": run.seed,
            "environment": describe_environment(run),
        }
        write_json(working / ROBUSTNESS_RECORD, record)
        lines = [json.dumps(asdict(example), ensure_ascii=False) for example in examples]
        (working / EXAMPLES_RECORD).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {**record, "path": str(output)}
