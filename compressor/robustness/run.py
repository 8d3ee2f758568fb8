"""Runs an attack on all examples: in one process, in several, or in the ranks of torchrun."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from compressor.checkpoint import NoCheckpoint
from compressor.classifier import load_classifier
from compressor.console import Progress, SilentProgress
from compressor.data import TextData
from compressor.environment import prepare, thread_count
from compressor.errors import UserError
from compressor.labels import task_of
from compressor.options import AttackConfig, RunConfig
from compressor.predictors import OnnxPredictor, Predictor, TorchPredictor
from compressor.ranks import Ranks, join_ranks
from compressor.robustness.attacker import Attacker
from compressor.robustness.records import AttackedExample
from compressor.robustness.resources import attack_resources
from compressor.robustness.victims import Victim
from exporters.manifest import check_labels, is_artifact, read_artifact_manifest

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
    _attack_each(log.open, attacker, data, log, progress, f"{config.attack} on {name}")
    return log.examples(), attacker.resources


def _attack_each(
    indices: Sequence[int],
    attacker: Attacker,
    data: TextData,
    log: _Log,
    progress: Progress,
    description: str,
) -> None:
    for index in progress.track(indices, description, status=log.status):
        log.add(index, attacker.attack(index, *example_at(data, index)))


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
    """As `attack_victim`, on the model that `victim` was loaded from, in one process, several or ranks.

    Raises:
        UserError: processes and ranks were asked for at once.
    """
    ranks = join_ranks()
    if ranks.world > 1:
        if processes > 1:
            raise UserError(
                f"--processes {processes}: torchrun shares the examples out already; leave it out"
            )
        name = Path(model).name
        return attack_in_ranks(victim, data, config, run.seed, progress, name, checkpoint, ranks)
    if processes == 1:
        return attack_victim(victim, data, config, run.seed, progress, Path(model).name, checkpoint)
    # Makes what is cached on disk, so that the processes need not each make it.
    resources = attack_resources(config, victim.device, progress).description
    examples = attack_in_processes(
        model, victim.max_length, data, config, run, processes, progress, checkpoint
    )
    return examples, resources


class _Log:
    """The examples that are done, by their place in the data, kept in a checkpoint as well.

    Args:
        rank: each appends to lines of its own, and reads those of all.
    """

    def __init__(self, data: TextData, checkpoint: NoCheckpoint, rank: int = 0) -> None:
        self._checkpoint = checkpoint
        self._name = f"{FINISHED_EXAMPLES}-{rank}" if rank else FINISHED_EXAMPLES
        names = [name for name in checkpoint.line_names() if name.startswith(FINISHED_EXAMPLES)]
        entries = [json.loads(line) for name in names for line in checkpoint.lines(name)]
        self._done = {entry.pop("index"): AttackedExample(**entry) for entry in entries}
        self.open = [index for index in range(len(data)) if index not in self._done]

    def add(self, index: int, example: AttackedExample) -> None:
        self._done[index] = example
        entry = {"index": index, **asdict(example)}
        self._checkpoint.append(self._name, json.dumps(entry, ensure_ascii=False))

    def status(self) -> str:
        """Accuracy under attack so far."""
        if not self._done:
            return ""
        held = sum(example.holds_out() for example in self._done.values())
        return f"under attack {held / len(self._done):.1%} of {len(self._done)}"

    def examples(self) -> list[AttackedExample]:
        """All of them in the order of the data."""
        return [self._done[index] for index in sorted(self._done)]


def attack_in_ranks(
    victim: Victim,
    data: TextData,
    config: AttackConfig,
    seed: int,
    progress: Progress,
    name: str,
    checkpoint: NoCheckpoint,
    ranks: Ranks,
) -> tuple[list[AttackedExample], dict[str, str]]:
    """As `attack_victim`, each example in one of torchrun's ranks; all return the same.

    The ranks meet in the checkpoint, whose folder all of them see.
    """
    if ranks.is_first:
        # Makes what is cached on disk, and mends the line that a rank was stopped in.
        attack_resources(config, victim.device, progress)
        checkpoint.open()
        _Log(data, checkpoint)
    ranks.wait()
    log = _Log(data, checkpoint, ranks.rank)
    ranks.wait()
    attacker = Attacker(victim, config, seed, progress)
    own = log.open[ranks.rank :: ranks.world]
    description = f"{config.attack} on {name}, first of {ranks.world} ranks"
    _attack_each(own, attacker, data, log, progress, description)
    ranks.wait()
    return _Log(data, checkpoint).examples(), attacker.resources


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


def check_classes(model: str, predictor: Predictor) -> None:
    """Raise a `UserError` if there is no class that a changed text could be given instead of its own."""
    if task_of(predictor.label_names) == "regression":
        raise UserError(
            f"{model}: answers with a number (a regression) and not with classes, of which an attack or a "
            f"perturbation could turn one into another; it can be validated without: compress validate"
        )


def load_predictor(
    directory: str, run: RunConfig, lengths: Mapping[str, int | None] | None = None
) -> Predictor:
    """A predictor for a classifier (directory or hub id) or for an exported artifact (directory).

    Args:
        lengths: tokens of the inputs that it is to take, by the name of their option.

    Raises:
        UserError: neither of the two, or broken.
    """
    path = Path(directory)
    device = prepare(run)
    if is_artifact(path):
        manifest = read_artifact_manifest(path)
        predictor = OnnxPredictor(path, thread_count(run), device.type, lengths=lengths)
        check_labels(path, manifest, predictor.label_names)
        return predictor
    return TorchPredictor(load_classifier(directory, device, lengths=lengths))
