"""Parts on disk, and runs that are killed and go on: the same bits as a run in one piece."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import cli
from compressor import pruning
from compressor.checkpoint import (
    Checkpoint,
    NoCheckpoint,
    Part,
    checkpoint_folder,
    open_checkpoint,
    remove_checkpoint,
)
from compressor.console import SilentProgress
from compressor.errors import UserError
from compressor.options import AdaptiveConfig, ColumnsConfig, PruneConfig, RunConfig
from compressor.output import read_json
from compressor.pruning import prune_directory

ROOT = Path(__file__).parent.parent.parent
JOB = {"seed": 0, "options": {"sparsity": 0.5, "algorithm": "adaptive"}}
PARTS = 8


class Stopped(Exception):
    """Stands for whatever ends a run."""


def is_empty(checkpoint):
    return not any(checkpoint.folder.glob("*.safetensors"))


# parts ------------------------------------------------------------------------------------------


def test_a_part_comes_back_bit_by_bit(tmp_path):
    checkpoint = Checkpoint(tmp_path / "parts")
    tensors = {
        "single": torch.randn(3, 5),
        "double": torch.randn(4, dtype=torch.float64),
        "mask": torch.rand(3, 5) > 0.5,
        "view": torch.randn(5, 3).T,
    }
    facts = {"records": [{"name": "a", "error": 1e-300, "ridge": None}], "removed": [1, 2]}
    checkpoint.save("00-a", Part(tensors, facts))
    part = Checkpoint(tmp_path / "parts").load("00-a")
    assert part.facts == facts
    assert set(part.tensors) == set(tensors)
    for name, tensor in tensors.items():
        assert part.tensors[name].dtype == tensor.dtype
        assert torch.equal(part.tensors[name], tensor)


def test_a_part_that_is_missing_is_none(tmp_path):
    checkpoint = Checkpoint(tmp_path)
    assert is_empty(checkpoint)
    assert checkpoint.load("00-a") is None
    checkpoint.save("00-a", Part({"x": torch.ones(1)}))
    assert not is_empty(checkpoint)
    assert checkpoint.load("00-b") is None


def test_a_part_that_is_half_written_does_not_count(tmp_path, monkeypatch):
    def break_off(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise Stopped

    monkeypatch.setattr("safetensors.torch.save_file", break_off)
    checkpoint = Checkpoint(tmp_path)
    with pytest.raises(Stopped):
        checkpoint.save("00-a", Part({"x": torch.ones(1)}))
    assert is_empty(checkpoint)
    assert checkpoint.load("00-a") is None


@pytest.mark.parametrize("content", [b"", b"broken", b"\xff" * 64, "cut", "no facts"], ids=repr)
def test_a_broken_part_is_a_user_error(tmp_path, content):
    from safetensors.torch import save_file

    checkpoint = Checkpoint(tmp_path)
    path = tmp_path / "00-a.safetensors"
    checkpoint.save("00-a", Part({"x": torch.ones(100)}))
    if content == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif content == "no facts":
        save_file({"x": torch.ones(1)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"00-a\.safetensors: cannot be read: .*; remove .* and start anew"):
        checkpoint.load("00-a")


def test_lines_are_kept_in_their_order_with_their_odd_characters(tmp_path):
    checkpoint = Checkpoint(tmp_path / "out", JOB)
    assert checkpoint.lines("a") == []
    lines = ["one\u2028two", "", "thr\u00e9e\x85"]
    for line in lines:
        checkpoint.append("a", line)
    assert Checkpoint(tmp_path / "out").lines("a") == lines
    assert read_json(tmp_path / "out" / "job.json") == JOB


@pytest.mark.parametrize("whole", [["one", "two"], []])
def test_half_of_a_line_is_dropped_and_the_next_one_is_whole(tmp_path, whole):
    checkpoint = Checkpoint(tmp_path)
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f"{line}\n" for line in whole) + "hal", encoding="utf-8")
    assert checkpoint.lines("a") == whole
    checkpoint.append("a", "next")
    assert checkpoint.lines("a") == [*whole, "next"]


def test_no_checkpoint_keeps_nothing():
    checkpoint = NoCheckpoint()
    checkpoint.save("a", Part({"x": torch.ones(1)}))
    assert checkpoint.load("a") is None


# opening ----------------------------------------------------------------------------------------


def stopped_run(output, job=JOB):
    """What a run leaves that is stopped behind its first part."""
    checkpoint = open_checkpoint(output, job, resume=False, force=False)
    checkpoint.save("00-a", Part({"x": torch.ones(1)}))
    return checkpoint.folder


def test_what_a_stopped_run_left_is_gone_on_with(tmp_path):
    stopped_run(tmp_path / "out")
    checkpoint = open_checkpoint(tmp_path / "out", JOB, resume=True, force=False)
    assert checkpoint.load("00-a") is not None


def test_without_being_asked_nothing_is_taken_or_thrown_away(tmp_path):
    folder = stopped_run(tmp_path / "out")
    with pytest.raises(UserError, match="go on with --resume, or start anew with --force"):
        open_checkpoint(tmp_path / "out", JOB, resume=False, force=False)
    assert not is_empty(Checkpoint(folder))


def test_force_starts_anew(tmp_path):
    stopped_run(tmp_path / "out")
    assert is_empty(open_checkpoint(tmp_path / "out", JOB, resume=False, force=True))


def test_resume_wins_over_force(tmp_path):
    stopped_run(tmp_path / "out")
    assert not is_empty(open_checkpoint(tmp_path / "out", JOB, resume=True, force=True))


def test_resume_without_anything_there_just_starts(tmp_path):
    assert is_empty(open_checkpoint(tmp_path / "out", JOB, resume=True, force=False))


@pytest.mark.parametrize(
    ("now", "says"),
    [
        ({**JOB, "seed": 1}, "seed was 0 and is 1 now"),
        (
            {**JOB, "options": {"sparsity": 0.6, "algorithm": "adaptive"}},
            "options.sparsity was 0.5 and is 0.6",
        ),
        ({"seed": 0, "options": {"sparsity": 0.5}}, "options.algorithm was 'adaptive' and is None"),
        ({**JOB, "data": {"source": "a"}}, "data.source was None and is 'a'"),
    ],
)
def test_another_job_is_not_gone_on_with(tmp_path, now, says):
    stopped_run(tmp_path / "out")
    with pytest.raises(UserError) as caught:
        open_checkpoint(tmp_path / "out", now, resume=True, force=False)
    assert says in str(caught.value)
    assert "--force" in str(caught.value)


def test_equal_jobs_are_equal_behind_json(tmp_path):
    job = {"rate": 1e-17, "names": ("a", "b"), 3: {"x": None}}
    stopped_run(tmp_path / "out", job)
    assert not is_empty(open_checkpoint(tmp_path / "out", job, resume=True, force=False))


@pytest.mark.parametrize("names", [[], ["job.json"], ["job.json", "00-a.unfinished"]])
def test_a_run_that_was_stopped_before_its_first_part_does_not_stand_in_the_way(tmp_path, names):
    folder = checkpoint_folder(tmp_path / "out")
    folder.mkdir()
    for name in names:
        (folder / name).write_text("{}")
    other = {**JOB, "seed": 1}
    checkpoint = open_checkpoint(tmp_path / "out", other, resume=False, force=False)
    checkpoint.save("00-a", Part({"x": torch.ones(1)}))
    assert json.loads((folder / "job.json").read_text()) == other
    assert sorted(path.name for path in folder.iterdir()) == ["00-a.safetensors", "job.json"]


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_somebody_else_is_left_alone(tmp_path, force):
    folder = checkpoint_folder(tmp_path / "out")
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and is no checkpoint"):
        open_checkpoint(tmp_path / "out", JOB, resume=False, force=force)
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("parts", [0, 1])
def test_a_whole_run_leaves_nothing(tmp_path, parts):
    checkpoint = open_checkpoint(tmp_path / "out", JOB, resume=False, force=False)
    assert not any(tmp_path.iterdir())
    for part in range(parts):
        checkpoint.save(f"{part}", Part({"x": torch.ones(1)}))
    assert checkpoint.folder.exists() is (parts > 0)
    remove_checkpoint(checkpoint)
    assert not any(tmp_path.iterdir())


# runs that are stopped --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts(critic_quotes, tmp_path_factory):
    lines = (critic_quotes / "small.tsv").read_text(encoding="utf-8").splitlines()
    path = tmp_path_factory.mktemp("texts") / "few.tsv"
    path.write_text("\n".join(lines[:17]) + "\n", encoding="utf-8")
    return path


def stage(model, texts, output, *, resume=False, force=False, **options):
    # Wanda is the quickest of those that keep parts.
    options = {"algorithm": "wanda", "sparsity": 0.8, **options}
    return prune_directory(
        str(model), str(texts), ColumnsConfig(max_length=24), PruneConfig(**options),
        RunConfig(device="cpu", threads=2), output,
        force=force, progress=SilentProgress(), resume=resume,
    )  # fmt: skip


def stop_after(monkeypatch, parts):
    """Make the save of the part behind the first `parts` end the run."""
    save, saved = Checkpoint.save, []

    def limited(self, name, part):
        if len(saved) == parts:
            raise Stopped
        saved.append(name)
        save(self, name, part)

    monkeypatch.setattr(Checkpoint, "save", limited)


def finished_parts(output):
    return sorted(path.name for path in checkpoint_folder(output).glob("*.safetensors"))


CASES = {
    "adaptive": {"algorithm": "adaptive", "adaptive": AdaptiveConfig(solver="greedy")},
    "structured": {"algorithm": "adaptive", "pattern": "structured"},
    "wanda": {},
    "sparsegpt": {"algorithm": "sparsegpt", "pattern": "2:4", "sparsity": None},
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_in_two_pieces_gives_the_bits_of_one(narrow_classifier_dir, texts, tmp_path, monkeypatch, case):
    options = CASES[case]
    whole = stage(narrow_classifier_dir, texts, tmp_path / "whole", **options)
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(Stopped):
            stage(narrow_classifier_dir, texts, tmp_path / "out", **options)
    assert len(finished_parts(tmp_path / "out")) == 5
    solved = []
    with monkeypatch.context() as patch:
        save = Checkpoint.save
        patch.setattr(Checkpoint, "save", lambda *args: (solved.append(args[1]), save(*args)))
        resumed = stage(narrow_classifier_dir, texts, tmp_path / "out", resume=True, **options)
    # Only what was not finished is solved.
    assert len(solved) == PARTS - 5
    assert resumed["sha256"] == whole["sha256"]
    assert {**resumed, "path": None, "seconds": None} == {**whole, "path": None, "seconds": None}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_a_run_that_fails_while_it_writes_goes_on_without_solving(
    narrow_classifier_dir, texts, tmp_path, monkeypatch
):
    def fail(*args):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(pruning, "save_classifier", fail)
        with pytest.raises(Stopped):
            stage(narrow_classifier_dir, texts, tmp_path / "out")
    assert len(finished_parts(tmp_path / "out")) == PARTS
    monkeypatch.setattr(Checkpoint, "save", fail)
    stage(narrow_classifier_dir, texts, tmp_path / "out", resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_run_that_fails_before_its_first_part_leaves_nothing(
    narrow_classifier_dir, texts, tmp_path, monkeypatch
):
    stop_after(monkeypatch, 0)
    with pytest.raises(Stopped):
        stage(narrow_classifier_dir, texts, tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_a_run_that_fails_before_its_first_part_leaves_no_folder_above_it(
    narrow_classifier_dir, texts, tmp_path, monkeypatch
):
    stop_after(monkeypatch, 0)
    with pytest.raises(Stopped):
        stage(narrow_classifier_dir, texts, tmp_path / "new" / "out")
    assert not any(tmp_path.iterdir())


def test_an_output_that_cannot_be_made_is_a_user_error(narrow_classifier_dir, texts, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match="cannot be written"):
        stage(narrow_classifier_dir, texts, tmp_path / "file" / "out")


def test_a_full_disk_while_parts_are_kept_is_a_user_error(
    narrow_classifier_dir, texts, tmp_path, monkeypatch
):
    from safetensors import SafetensorError

    def full(*args, **kwargs):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(UserError, match="no space left"):
        stage(narrow_classifier_dir, texts, tmp_path / "out")


# the command line -------------------------------------------------------------------------------


def arguments(model, texts, output, *more, sparsity="0.8"):
    return [
        "prune", str(model), "--calibration", str(texts), "--max-length", "24", "--sparsity", sparsity,
        "--iterations", "5", "--threads", "2", "--device", "cpu", "--output", str(output), *more,
    ]  # fmt: skip


def kill_after(parts, output, words):
    """Run a command and kill it as soon as that many parts are finished."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while len(finished_parts(output)) < parts:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL


def test_a_killed_run_goes_on_to_the_bits_of_an_uninterrupted_one(
    narrow_classifier_dir, texts, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(cli, "QUIET", {})
    output, whole = tmp_path / "out", tmp_path / "whole"
    kill_after(3, output, arguments(narrow_classifier_dir, texts, output))
    kept = finished_parts(output)
    assert 3 <= len(kept) < PARTS
    assert not output.exists()

    capfd.readouterr()
    assert cli.execute(arguments(narrow_classifier_dir, texts, output)) == 2
    refused = capfd.readouterr().err
    assert refused.startswith("error: ")
    assert refused.count("\n") == 1
    assert "go on with --resume, or start anew with --force" in refused

    assert cli.execute(arguments(narrow_classifier_dir, texts, output, "--resume", sparsity="0.7")) == 2
    assert "options.sparsity was 0.8 and is 0.7 now" in capfd.readouterr().err
    assert finished_parts(output) == kept

    assert cli.execute(arguments(narrow_classifier_dir, texts, output, "--resume")) == 0
    assert cli.execute(arguments(narrow_classifier_dir, texts, whole)) == 0
    resumed, expected = (folder / "model.safetensors" for folder in (output, whole))
    assert resumed.read_bytes() == expected.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_a_broken_part_of_a_stopped_run_is_a_user_error(narrow_classifier_dir, texts, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Stopped):
            stage(narrow_classifier_dir, texts, tmp_path / "out")
    broken = checkpoint_folder(tmp_path / "out") / finished_parts(tmp_path / "out")[1]
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot be read"):
        stage(narrow_classifier_dir, texts, tmp_path / "out", resume=True)
    stage(narrow_classifier_dir, texts, tmp_path / "out", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
