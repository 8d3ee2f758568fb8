"""Attacks in pieces and in several processes end as those in one piece."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compressor.checkpoint import checkpoint_folder
from compressor.console import SilentProgress
from compressor.errors import UserError
from compressor.recipe import AttackConfig, ColumnsConfig, RunConfig
from compressor.robustness import run as module
from compressor.robustness.attacker import Attacker
from compressor.robustness.records import read_examples
from compressor.robustness.run import attack_directory

EXAMPLES = 10
CONFIG = AttackConfig(attack="deepwordbug", attack_examples=EXAMPLES)


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def attack(small_classifier_dir, critic_quotes):
    def attack(output, config=CONFIG, seed=0, **options):
        return attack_directory(
            str(small_classifier_dir),
            str(critic_quotes / "test.tsv"),
            ColumnsConfig(max_length=48),
            config,
            RunConfig(device="cpu", seed=seed, threads=2),
            output,
            force=False,
            progress=SilentProgress(),
            **options,
        )

    return attack


@pytest.fixture(scope="module")
def whole(attack, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "out"
    return attack(output), read_examples(output)


def stop_after(monkeypatch, count):
    done, own = [], Attacker.attack

    def limited(self, index, *example):
        if len(done) == count:
            raise Stopped
        done.append(index)
        return own(self, index, *example)

    monkeypatch.setattr(Attacker, "attack", limited)
    return done


def timeless(examples):
    return [dataclasses.replace(example, seconds=0.0) for example in examples]


def same(record, other):
    return {**record, "path": None} == {**other, "path": None}


def test_an_attack_in_two_pieces_ends_as_one_in_one(attack, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Stopped):
            attack(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="go on with --resume"):
        attack(tmp_path / "out")
    done = stop_after(monkeypatch, EXAMPLES)
    record = attack(tmp_path / "out", resume=True)
    assert done == list(range(4, EXAMPLES))
    assert same(record, whole[0])
    assert timeless(read_examples(tmp_path / "out")) == timeless(whole[1])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_another_attack_does_not_go_on(attack, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Stopped):
            attack(tmp_path / "out")
    with pytest.raises(UserError, match="seed was 0 and is 1 now"):
        attack(tmp_path / "out", seed=1, resume=True)
    with pytest.raises(UserError, match=r"options\.query_budget was None and is 5 now"):
        attack(tmp_path / "out", CONFIG.model_copy(update={"query_budget": 5}), resume=True)


@pytest.mark.timeout(300)
def test_after_kill_9_nothing_that_was_done_is_done_again(
    attack, whole, small_classifier_dir, critic_quotes, tmp_path, monkeypatch
):
    output = tmp_path / "out"
    command = [sys.executable, "cli.py", "attack", str(small_classifier_dir)]
    options = {
        "--data": critic_quotes / "test.tsv",
        "--attack-examples": EXAMPLES,
        "--max-length": 48,
        "--device": "cpu",
        "--threads": 2,
        "--output": output,
    }
    for name, value in options.items():
        command += [name, str(value)]
    process = subprocess.Popen(
        command, cwd=Path(__file__).parents[3], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    log = checkpoint_folder(output) / "examples.jsonl"
    while process.poll() is None and not (log.is_file() and log.read_bytes().count(b"\n") >= 3):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = log.read_bytes().count(b"\n")
    assert finished >= 3
    done = stop_after(monkeypatch, EXAMPLES)
    attack(output, resume=True)
    assert done == list(range(finished, EXAMPLES))
    assert timeless(read_examples(output)) == timeless(whole[1])


def test_two_processes_find_what_one_finds(attack, whole, tmp_path):
    record = attack(tmp_path / "out", processes=2)
    assert same(record, whole[0])
    assert timeless(read_examples(tmp_path / "out")) == timeless(whole[1])


def test_processes_go_on_behind_what_one_has_done(attack, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 7)
        with pytest.raises(Stopped):
            attack(tmp_path / "out")
    monkeypatch.setattr(module, "attack_victim", None)
    attack(tmp_path / "out", processes=2, resume=True)
    assert timeless(read_examples(tmp_path / "out")) == timeless(whole[1])
