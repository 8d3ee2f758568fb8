"""Parts on disk, and what a stopped run finds of them."""

import json
from pathlib import Path

import pytest
import torch
from stopping import StoppedError

from compressor.checkpoint import (
    Checkpoint,
    NoCheckpoint,
    Part,
    checkpoint_folder,
    open_checkpoint,
    remove_checkpoint,
)
from compressor.errors import UserError
from compressor.output import read_json

JOB = {"seed": 0, "options": {"sparsity": 0.5, "algorithm": "adaptive"}}


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
        raise StoppedError

    monkeypatch.setattr("safetensors.torch.save_file", break_off)
    checkpoint = Checkpoint(tmp_path)
    with pytest.raises(StoppedError):
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
    if names:
        Checkpoint(folder, JOB).open()
    for name in names:
        (folder / name).write_text("{}")
    other = {**JOB, "seed": 1}
    checkpoint = open_checkpoint(tmp_path / "out", other, resume=False, force=False)
    checkpoint.save("00-a", Part({"x": torch.ones(1)}))
    assert json.loads((folder / "job.json").read_text()) == other
    assert sorted(path.name for path in folder.iterdir()) == [
        ".compress-output",
        "00-a.safetensors",
        "job.json",
    ]


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
