"""Runs an attack on all examples: in one process, in several, or in the ranks of torchrun."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict
from pathlib import Path

from compressor.attacks.attacker import Attacker
from compressor.attacks.records import AttackedExample, read_example
from compressor.attacks.resources import attack_resources
from compressor.attacks.victims import Victim
from compressor.data.labels import task_of
from compressor.data.texts import TextData
from compressor.errors import UserError
from compressor.models.predictors import Predictor
from compressor.models.runtimes import load_predictor
from compressor.options import AttackConfig, RunConfig
from compressor.system.cache import VARIABLE, cache_directory
from compressor.system.checkpoint import NoCheckpoint
from compressor.system.console import Progress, SilentProgress
from compressor.system.context import Context
from compressor.system.environment import thread_count
from compressor.system.processes import ProcessEndedError, WorkerPool, how_it_ended
from compressor.system.ranks import join_ranks

FINISHED_EXAMPLES = "examples"


def attack_victim(
    victim: Victim,
    data: TextData,
    config: AttackConfig,
    seed: int,
    progress: Progress,
    checkpoint: NoCheckpoint | None = None,
) -> tuple[list[AttackedExample], dict[str, str]]:
    """Attack each example of `data`; return what became of them, and the resources that were used.

    Args:
        checkpoint: has the examples that are done already, and is given each that gets done.
    """
    attacker = Attacker(victim, config, seed, progress)
    log = _Log(data, checkpoint or NoCheckpoint())
    _attack_each(log.open, attacker, data, log, progress, f"{config.attack} on {victim.name}")
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
    context: Context,
    checkpoint: NoCheckpoint,
) -> tuple[list[AttackedExample], dict[str, str]]:
    """As `attack_victim`, on the model that `victim` was loaded from, in one process, several or ranks.

    Raises:
        UserError: processes and ranks were asked for at once.
    """
    if join_ranks().world > 1:
        if context.processes > 1:
            raise UserError(
                f"--processes {context.processes}: torchrun shares the examples out already; leave it out"
            )
        return attack_in_ranks(victim, data, config, context, checkpoint)
    if context.processes == 1:
        return attack_victim(victim, data, config, context.run.seed, context.progress, checkpoint)
    # Makes what is cached on disk, so that the processes need not each make it.
    resources = attack_resources(config, victim.device, context.progress).description
    return attack_in_processes(model, data, config, context, checkpoint), resources


class _Log:
    """The examples that are done, by their place in the data, kept in a checkpoint as well.

    Args:
        rank: each appends to lines of its own, and reads those of all.
    """

    def __init__(self, data: TextData, checkpoint: NoCheckpoint, rank: int = 0) -> None:
        self._checkpoint = checkpoint
        self._name = f"{FINISHED_EXAMPLES}-{rank}" if rank else FINISHED_EXAMPLES
        names = [name for name in checkpoint.line_names() if name.startswith(FINISHED_EXAMPLES)]
        lines = [line for name in names for line in checkpoint.lines(name)]
        found = [entry for line in lines if (entry := _finished(line)) is not None]
        if len(found) < len(lines):
            checkpoint.note(f"{len(lines) - len(found)} kept examples are damaged and attacked again")
        self._done = dict(found)
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


def _finished(line: str) -> tuple[int, AttackedExample] | None:
    """Place and outcome of an example that is kept as a line; None of a damaged one."""
    try:
        entry = json.loads(line)
        return entry.pop("index"), read_example(entry)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def attack_in_ranks(
    victim: Victim,
    data: TextData,
    config: AttackConfig,
    context: Context,
    checkpoint: NoCheckpoint,
) -> tuple[list[AttackedExample], dict[str, str]]:
    """As `attack_victim`, each example in one of torchrun's ranks; all return the same.

    The ranks meet in the checkpoint, whose folder all of them see.
    """
    ranks, progress = join_ranks(), context.progress
    if ranks.is_first:
        # Makes what is cached on disk, and mends the line that a rank was stopped in.
        attack_resources(config, victim.device, progress)
        checkpoint.open()
        _Log(data, checkpoint)
    ranks.wait()
    log = _Log(data, checkpoint, ranks.rank)
    ranks.wait()
    attacker = Attacker(victim, config, context.run.seed, progress)
    own = log.open[ranks.rank :: ranks.world]
    description = f"{config.attack} on {victim.name}, first of {ranks.world} ranks"
    _attack_each(own, attacker, data, log, progress, description)
    ranks.wait()
    return _Log(data, checkpoint).examples(), attacker.resources


def attack_in_processes(
    model: str,
    data: TextData,
    config: AttackConfig,
    context: Context,
    checkpoint: NoCheckpoint,
) -> list[AttackedExample]:
    """As `attack_victim`, each example in one of several processes; the outcomes are the same.

    Each process has a model of its own, and its share of the threads.

    Raises:
        UserError: as in one process; or a process was killed.
    """
    run, processes = context.run, context.processes
    share = run.model_copy(update={"threads": max(1, thread_count(run) // processes)})
    log = _Log(data, checkpoint)
    initargs = (model, context.columns.max_length, config, share, str(cache_directory()))
    try:
        with WorkerPool(processes, _start_worker, initargs) as pool:
            futures = {
                pool.submit(_attack_in_worker, index, *example_at(data, index)): index for index in log.open
            }
            name = f"{config.attack} on {Path(model).name} in {processes} processes"
            try:
                for future in context.progress.track(as_completed(futures), name, len(futures), log.status):
                    log.add(futures.pop(future), future.result())
            except BaseException:
                # What others have finished by now would have to be done again.
                for future, index in futures.items():
                    if future.done() and not future.cancelled() and future.exception() is None:
                        log.add(index, future.result())
                raise
    except ProcessEndedError as error:
        raise UserError(
            f"{model}: an attacking process {how_it_ended(error.code)}; examples that are finished are kept: "
            f"start it again, with fewer --processes if memory is short"
        ) from error
    return log.examples()


_begin: Callable[[], Attacker]
_worker: Attacker | None = None


def _start_worker(model: str, max_length: int, config: AttackConfig, run: RunConfig, cache: str) -> None:
    """Note what this process is for; what goes wrong in making it is told by the first example."""
    global _begin, _worker
    # Also where the parent's is a temporary folder.
    os.environ[VARIABLE] = cache

    def begin() -> Attacker:
        victim = Victim(load_predictor(model, run, max_length), max_length)
        return Attacker(victim, config, run.seed, SilentProgress())

    _begin, _worker = begin, None


def _attack_in_worker(index: int, text: str, pair: str | None, label: int) -> AttackedExample:
    global _worker
    _worker = _worker or _begin()
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
