"""Attacks in pieces and in several processes end as those in one piece."""

import dataclasses
import json
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


@pytest.fixture
def killed(small_classifier_dir, critic_quotes, tmp_path):
    """A function that starts the command, kills it after three examples, and tells how many were done."""

    def kill(output, processes):
        command = [sys.executable, "cli.py", "attack", str(small_classifier_dir)]
        options = {
            "--data": critic_quotes / "test.tsv",
            "--attack-examples": EXAMPLES,
            "--max-length": 48,
            "--device": "cpu",
            "--threads": 2,
            "--processes": processes,
            "--output": output,
        }
        for name, value in options.items():
            command += [name, str(value)]
        process = subprocess.Popen(
            command, cwd=Path(__file__).parents[3], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        log = checkpoint_folder(output) / "examples.jsonl"
        while process.poll() is None and not (log.is_file() and log.read_bytes().count(b"\n") >= 3):
            time.sleep(0.005)
        children = children_of(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        return [json.loads(line)["index"] for line in log.read_text().split("\n")[:-1]], children

    return kill


def children_of(parent):
    children = Path(f"/proc/{parent}/task/{parent}/children")
    return [int(child) for child in children.read_text().split()]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("processes", [1, 2])
def test_after_kill_9_nothing_that_was_done_is_done_again(
    attack, whole, killed, tmp_path, monkeypatch, processes
):
    finished, children = killed(tmp_path / "out", processes)
    assert len(finished) >= 3
    done = stop_after(monkeypatch, EXAMPLES)
    attack(tmp_path / "out", resume=True)
    assert done == [index for index in range(EXAMPLES) if index not in finished]
    assert timeless(read_examples(tmp_path / "out")) == timeless(whole[1])
    # Workers do not outlive who gave them work.
    assert len(children) >= (2 if processes == 2 else 0)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and any(Path(f"/proc/{child}").exists() for child in children):
        time.sleep(0.05)
    assert not any(Path(f"/proc/{child}").exists() for child in children)


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
