"""Runs an attack on all examples, in one process or several, and the stage that does so for a directory."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from compressor.checkpoint import NoCheckpoint, open_checkpoint, remove_checkpoint
from compressor.classifier import load_classifier, weights_fingerprint
from compressor.console import Progress, SilentProgress
from compressor.data import TextData, load_text_data
from compressor.environment import describe_environment, package_versions, prepare, thread_count
from compressor.errors import UserError
from compressor.output import atomic_directory, check_replaceable, check_space, sha256_of, write_json
from compressor.predictors import ARTIFACT_GRAPH, OnnxPredictor, Predictor, TorchPredictor
from compressor.recipe import AttackConfig, ColumnsConfig, RunConfig
from compressor.robustness.attacker import Attacker
from compressor.robustness.attacks import ONE_WORD_AFTER_THE_OTHER
from compressor.robustness.comparison import compare, load_attack
from compressor.robustness.page import EXAMPLES_PAGE, render_page
from compressor.robustness.records import (
    EXAMPLES_RECORD,
    ROBUSTNESS_RECORD,
    AttackedExample,
    successes,
    summarize,
    under_word_budgets,
)
from compressor.robustness.resources import (
    attack_resources,
    describe_sentence_encoder,
    sentence_encoder_directory,
)
from compressor.robustness.sentence_encoder import SentenceEncoder
from compressor.robustness.victims import Victim
from exporters.manifest import is_artifact, read_manifest

RECORD_BYTES = 10**6
FINISHED_EXAMPLES = "examples"


def attack_victim(
    victim: Victim,
    data: TextData,
    config: AttackConfig,
    seed: int,
    progress: Progress,
    name: str,
    checkpoint: NoCheckpoint | None = None,
) -> tuple[list[AttackedExample], dict[str, str]]:
    """Attack each example of `data`; return what became of them, and the resources that were used.

    Args:
        checkpoint: has the examples that are done already, and is given each that gets done.
    """
    attacker = Attacker(victim, config, seed, progress)
    log = _Log(data, checkpoint or NoCheckpoint())
    for index in progress.track(log.open, f"{config.attack} on {name}", status=log.status):
        log.add(index, attacker.attack(index, *example_at(data, index)))
    return log.examples(), attacker.resources


def attack_model(
    model: str,
    victim: Victim,
    data: TextData,
    config: AttackConfig,
    run: RunConfig,
    processes: int,
    progress: Progress,
    checkpoint: NoCheckpoint,
) -> tuple[list[AttackedExample], dict[str, str]]:
    """As `attack_victim`, on the model that `victim` was loaded from, in one process or several."""
    if processes == 1:
        return attack_victim(victim, data, config, run.seed, progress, Path(model).name, checkpoint)
    # Makes what is cached on disk, so that the processes need not each make it.
    resources = attack_resources(config, progress).description
    examples = attack_in_processes(
        model, victim.max_length, data, config, run, processes, progress, checkpoint
    )
    return examples, resources


class _Log:
    """The examples that are done, by their place in the data, kept in a checkpoint as well."""

    def __init__(self, data: TextData, checkpoint: NoCheckpoint) -> None:
        self._checkpoint = checkpoint
        entries = [json.loads(line) for line in checkpoint.lines(FINISHED_EXAMPLES)]
        self._done = {entry.pop("index"): AttackedExample(**entry) for entry in entries}
        self.open = [index for index in range(len(data)) if index not in self._done]

    def add(self, index: int, example: AttackedExample) -> None:
        self._done[index] = example
        entry = {"index": index, **asdict(example)}
        self._checkpoint.append(FINISHED_EXAMPLES, json.dumps(entry, ensure_ascii=False))

    def status(self) -> str:
        """Accuracy under attack so far."""
        if not self._done:
            return ""
        held = sum(example.outcome == "failed" for example in self._done.values())
        return f"under attack {held / len(self._done):.1%} of {len(self._done)}"

    def examples(self) -> list[AttackedExample]:
        """All of them in the order of the data."""
        return [self._done[index] for index in sorted(self._done)]


def attack_in_processes(
    model: str,
    max_length: int,
    data: TextData,
    config: AttackConfig,
    run: RunConfig,
    processes: int,
    progress: Progress,
    checkpoint: NoCheckpoint,
) -> list[AttackedExample]:
    """As `attack_victim`, each example in one of several processes; the outcomes are the same.

    Each process has a model of its own, and its share of the threads.
    """
    share = run.model_copy(update={"threads": max(1, thread_count(run) // processes)})
    log = _Log(data, checkpoint)
    with ProcessPoolExecutor(
        processes,
        # A forked process would inherit the threads' locks, and CUDA does not work in it.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(model, max_length, config, share),
    ) as pool:
        futures = {
            pool.submit(_attack_in_worker, index, *example_at(data, index)): index for index in log.open
        }
        name = f"{config.attack} on {Path(model).name} in {processes} processes"
        for future in progress.track(as_completed(futures), name, len(futures), log.status):
            log.add(futures[future], future.result())
    return log.examples()


_worker: Attacker


def _start_worker(model: str, max_length: int, config: AttackConfig, run: RunConfig) -> None:
    global _worker
    threading.Thread(target=_end_with_parent, daemon=True).start()
    victim = Victim(load_predictor(model, run), max_length)
    _worker = Attacker(victim, config, run.seed, SilentProgress())


def _end_with_parent() -> None:
    """A worker waits for work without end, also where its parent was killed and can give none."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _attack_in_worker(index: int, text: str, pair: str | None, label: int) -> AttackedExample:
    return _worker.attack(index, text, pair, label)


def example_at(data: TextData, index: int) -> tuple[str, str | None, int]:
    """Text, second text if there is one, and label."""
    return data.texts[index], data.pairs[index] if data.pairs else None, data.class_labels[index]


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
    processes: int = 1,
    resume: bool = False,
    force: bool,
    progress: Progress,
) -> dict[str, Any]:
    """The attack stage: a classifier or artifact and labelled texts in, figures and examples out.

    Writes `robustness.json`, whose content is returned, `examples.jsonl`, one line an example, and
    `examples.html`, a page to read them on.

    Finished examples are kept beside `output` until it is whole; with `resume` the run goes on behind them.

    Args:
        against: what this stage wrote for another model, with which this one is compared.
        processes: among which the examples are shared out.

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
    facts = {
        "model": model,
        "data": data.record(columns),
        "options": options,
        "seed": run.seed,
    }
    encoder = SentenceEncoder(sentence_encoder_directory(config))
    check_space(output, RECORD_BYTES)
    job = facts | {"weights": _weights_sha256(model), "packages": package_versions()}
    checkpoint = open_checkpoint(output, job, resume=resume, force=force)
    victim = Victim(predictor, columns.max_length)
    examples, resources = attack_model(model, victim, sample, config, run, processes, progress, checkpoint)
    examples = with_cosines(examples, encoder)
    record = {
        **asdict(summarize(examples, config.attack)),
        "successes": asdict(successes(examples)),
        **facts,
        "word_budgets": _word_budgets(examples, config),
        "resources": resources,
        "similarity": f"cosine of embeddings by {describe_sentence_encoder(config)}",
        "environment": describe_environment(run),
    }
    if other is not None:
        other.check("resources", resources)
        record["against"] = compare(other, examples, victim)
    with atomic_directory(output, force=force) as working:
        write_json(working / ROBUSTNESS_RECORD, record)
        lines = [json.dumps(asdict(example), ensure_ascii=False) for example in examples]
        (working / EXAMPLES_RECORD).write_text("\n".join(lines) + "\n", encoding="utf-8")
        page = render_page(record, examples, predictor.label_names)
        (working / EXAMPLES_PAGE).write_text(page, encoding="utf-8")
    remove_checkpoint(checkpoint)
    return {**record, "path": str(output)}


def with_cosines(examples: Sequence[AttackedExample], encoder: SentenceEncoder) -> list[AttackedExample]:
    """The examples, where the attack succeeded with the cosine of both texts' embeddings."""
    fooled = [example for example in examples if example.outcome == "succeeded"]
    if not fooled:
        return list(examples)
    before = encoder.encode([_joined(e.text, e.text_pair) for e in fooled])
    after = encoder.encode([_joined(e.perturbed, e.perturbed_pair) for e in fooled])
    cosines = iter((before * after).sum(dim=1).tolist())
    return [replace(e, cosine=round(next(cosines), 6)) if e.outcome == "succeeded" else e for e in examples]


def _joined(text: str, pair: str | None) -> str:
    return text if pair is None else f"{text} {pair}"


def _word_budgets(examples: list[AttackedExample], config: AttackConfig) -> list[dict[str, Any]]:
    """Those that can be read off this run exactly, ready for JSON."""
    if config.attack not in ONE_WORD_AFTER_THE_OTHER:
        return []
    limit = config.max_words_changed or 1.0
    shares = [share for share in config.word_budgets if share <= limit]
    return [asdict(budget) for budget in under_word_budgets(examples, shares)]


def _weights_sha256(model: str) -> str | None:
    """Of a classifier's weights or an artifact's graph; None for a hub id."""
    graph = Path(model) / ARTIFACT_GRAPH
    return sha256_of(graph) if graph.is_file() else weights_fingerprint(model)
