"""Attacks in pieces and in several processes end as those in one piece."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from project import ROOT

from cli import execute
from compressor.attacks import runner as module
from compressor.attacks.attacker import Attacker
from compressor.attacks.records import read_examples
from compressor.attacks.stage import attack_directory
from compressor.errors import UserError
from compressor.options import AttackConfig, ColumnsConfig, RunConfig
from compressor.system.checkpoint import checkpoint_folder
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from compressor.system.ranks import Ranks

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
            config,
            Context(
                output=output,
                columns=ColumnsConfig(max_length=48),
                run=RunConfig(device="cpu", seed=seed, threads=2),
                progress=SilentProgress(),
                **options,
            ),
        ).model_dump()

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
    done = stop_after(monkeypatch, EXAMPLES)
    record = attack(tmp_path / "out")
    assert done == list(range(4, EXAMPLES))
    assert same(record, whole[0])
    assert timeless(read_examples(tmp_path / "out")) == timeless(whole[1])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_another_attack_does_not_go_on(attack, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Stopped):
            attack(tmp_path / "out")
    with pytest.raises(UserError, match=r"run\.seed changed from 0 to 1"):
        attack(tmp_path / "out", seed=1, resume=True)
    with pytest.raises(UserError, match=r"attack\.query_budget changed from None to 5"):
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
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        log = checkpoint_folder(output) / "examples.jsonl"
        while process.poll() is None and not (log.is_file() and log.read_bytes().count(b"\n") >= 3):
            time.sleep(0.005)
        children = children_of(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        return [json.loads(line)["index"] for line in log.read_text().split("\n")[:-1]], children

    return kill


@pytest.fixture
def ranks(small_classifier_dir, critic_quotes):
    """A function that starts the command under torchrun, in two ranks."""

    def start(output, *options):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += [
            "-m",
            "cli",
            "attack",
            str(small_classifier_dir),
            "--data",
            str(critic_quotes / "test.tsv"),
        ]
        command += ["--attack-examples", str(EXAMPLES), "--max-length", "48", "--device", "cpu"]
        command += ["--threads", "2", "--output", str(output), *options]
        return subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    return start


@pytest.mark.timeout(300)
def test_two_ranks_find_what_one_process_finds_and_one_of_them_tells(ranks, whole, tmp_path):
    process = ranks(tmp_path / "out", "--json")
    out, _ = process.communicate()
    assert process.returncode == 0
    assert same(json.loads(out), whole[0])
    assert timeless(read_examples(tmp_path / "out")) == timeless(whole[1])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.timeout(300)
def test_a_rank_that_dies_ends_the_run_and_one_process_goes_on(ranks, attack, whole, tmp_path, monkeypatch):
    process = ranks(tmp_path / "out")
    folder = checkpoint_folder(tmp_path / "out")
    while process.poll() is None and not done_in(folder):
        time.sleep(0.005)
    os.kill(children_of(process.pid)[-1], signal.SIGKILL)
    assert process.wait() != 0
    process.stdout.close()
    finished = done_in(folder)
    assert not (tmp_path / "out").exists()
    done = stop_after(monkeypatch, EXAMPLES)
    attack(tmp_path / "out", resume=True)
    assert done == [index for index in range(EXAMPLES) if index not in finished]
    assert timeless(read_examples(tmp_path / "out")) == timeless(whole[1])


def done_in(folder):
    lines = [line for path in folder.glob("examples*.jsonl") for line in path.read_text().split("\n")[:-1]]
    return {json.loads(line)["index"] for line in lines}


def test_ranks_and_processes_are_not_asked_for_at_once(attack, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "join_ranks", lambda: Ranks(0, 2))
    with pytest.raises(UserError, match="leave it out"):
        attack(tmp_path / "out", processes=2)


def test_other_commands_are_not_shared_out(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert execute(["doctor"]) == 2
    assert "compress attack and prune alone" in capsys.readouterr().err


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


def test_processes_go_on_behind_what_one_has_done(attack, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 7)
        with pytest.raises(Stopped):
            attack(tmp_path / "out")
    monkeypatch.setattr(module, "attack_victim", None)
    record = attack(tmp_path / "out", processes=2, resume=True)
    assert same(record, whole[0])
    assert timeless(read_examples(tmp_path / "out")) == timeless(whole[1])
