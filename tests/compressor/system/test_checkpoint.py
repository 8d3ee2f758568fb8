"""Parts on disk, and what a stopped run finds of them."""

import json
from pathlib import Path

import pytest
import torch
from stopping import StoppedError

from compressor.errors import UserError
from compressor.system.checkpoint import (
    Checkpoint,
    NoCheckpoint,
    Part,
    checkpoint_folder,
    open_checkpoint,
    remove_checkpoint,
    remove_leftovers,
)
from compressor.system.claims import atomic_directory, claim
from compressor.system.files import read_json
from compressor.system.jobs import Job
from compressor.system.places import place_of
from compressor.system.progress_folder import ProgressFolder

DECIDES = {"seed": 0, "options": {"sparsity": 0.5, "algorithm": "adaptive"}}
MACHINE = {"platform": "Linux-1", "cores": 4, "threads": 4}
JOB = Job(DECIDES, {"data.train": "texts.tsv"}, MACHINE)


def job(**decides):
    return Job({**DECIDES, **decides}, JOB.sources, MACHINE)


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


@pytest.mark.parametrize(
    "content", [b"", b"broken", b"\xff" * 64, b"\0" * 600, "cut", "no facts", "one byte"], ids=repr
)
def test_a_damaged_part_is_none_and_the_log_says_so(tmp_path, content):
    from safetensors.torch import save_file

    heard = []
    checkpoint = Checkpoint(tmp_path, log=heard.append)
    path = tmp_path / "00-a.safetensors"
    checkpoint.save("00-a", Part({"x": torch.ones(100), "y": torch.tensor(True)}, {"steps": 3}))
    whole = path.read_bytes()
    if content == "cut":
        path.write_bytes(whole[:-10])
    elif content == "no facts":
        save_file({"x": torch.ones(1)}, path)
    elif content == "one byte":
        path.write_bytes(whole[:-10] + b"\x01" + whole[-9:])
    else:
        path.write_bytes(content)
    assert checkpoint.load("00-a") is None
    assert len(heard) == 1
    assert "00-a.safetensors: is damaged" in heard[0]
    path.write_bytes(whole)
    assert checkpoint.load("00-a").facts == {"steps": 3}


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"\0" * 512])
def test_lines_that_a_power_cut_damaged_are_dropped(tmp_path, damage):
    heard = []
    (tmp_path / "a.jsonl").write_bytes(b"one\n" + damage + b"\ntwo\n")
    checkpoint = Checkpoint(tmp_path, log=heard.append)
    assert checkpoint.lines("a") == ["one", "two"]
    assert len(heard) == 1
    assert checkpoint.lines("a") == ["one", "two"]
    assert len(heard) == 1


def test_lines_are_kept_in_their_order_with_their_odd_characters(tmp_path):
    checkpoint = Checkpoint(tmp_path / "out", DECIDES)
    assert checkpoint.lines("a") == []
    lines = ["one\u2028two", "", "thr\u00e9e\x85"]
    for line in lines:
        checkpoint.append("a", line)
    assert Checkpoint(tmp_path / "out").lines("a") == lines
    assert read_json(tmp_path / "out" / "job.json") == DECIDES


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


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("force", [False, True])
def test_what_a_stopped_run_left_is_gone_on_with(tmp_path, resume, force):
    stopped_run(tmp_path / "out")
    heard = []
    checkpoint = open_checkpoint(tmp_path / "out", JOB, resume=resume, force=force, log=heard.append)
    assert checkpoint.load("00-a") is not None
    assert checkpoint.began_on == {}
    assert heard == [f"Going on with what a stopped run left in {checkpoint.folder}"]


def test_resume_without_anything_there_just_starts(tmp_path):
    assert is_empty(open_checkpoint(tmp_path / "out", JOB, resume=True, force=False))


@pytest.mark.parametrize("change", [{"platform": "Linux-2"}, {"cores": 2, "threads": 2}, {"gpu": "other"}])
def test_a_run_goes_on_on_another_machine_and_its_record_says_so(tmp_path, change):
    stopped_run(tmp_path / "out")
    heard = []
    there = Job(DECIDES, {"data.train": "elsewhere.tsv"}, {**MACHINE, **change})
    checkpoint = open_checkpoint(tmp_path / "out", there, resume=False, force=False, log=heard.append)
    assert checkpoint.load("00-a") is not None
    assert checkpoint.began_on == {"began_on": [MACHINE]}
    assert next(iter(change)) in heard[0]
    # And back again.
    again = open_checkpoint(tmp_path / "out", JOB, resume=False, force=False)
    assert again.began_on == {"began_on": [there.machine]}


OTHERS = [
    (job(seed=1), "seed changed from 0 to 1"),
    (job(options={"sparsity": 0.6, "algorithm": "adaptive"}), "options.sparsity changed from 0.5 to 0.6"),
    (job(options={"sparsity": 0.5}), "options.algorithm changed from 'adaptive' to None"),
    (job(data={"train": {"content": "ab"}}), "the content of data.train (texts.tsv) changed"),
    (job(resources={"attack.wordnet": {"content": "ab"}}), "the content of attack.wordnet changed"),
    (job(code="ab"), "the code of compress changed"),
    (job(packages={"torch": "2"}), "torch changed from None to '2'"),
    (job(a=1, b=1, c=1, d=1), "c changed from None to 1; 1 more"),
]


@pytest.mark.parametrize(("now", "says"), OTHERS)
@pytest.mark.parametrize("resume", [False, True])
def test_another_job_does_not_go_on_and_throws_nothing_away(tmp_path, now, says, resume):
    folder = stopped_run(tmp_path / "out")
    with pytest.raises(UserError) as caught:
        open_checkpoint(tmp_path / "out", now, resume=resume, force=resume)
    assert says in str(caught.value)
    assert "--force" in str(caught.value)
    assert not is_empty(Checkpoint(folder))


@pytest.mark.parametrize(("now", "says"), OTHERS)
def test_force_starts_another_job_anew_and_says_why(tmp_path, now, says):
    stopped_run(tmp_path / "out")
    heard = []
    assert is_empty(open_checkpoint(tmp_path / "out", now, resume=False, force=True, log=heard.append))
    assert len(heard) == 1
    assert says in heard[0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "its record is damaged"),
        (b"{", "its record is damaged"),
        (b"\0\0", "its record is damaged"),
        (b'{"seed": 0}', "another version of compress"),
        (b"[]", "another version of compress"),
        (b'{"format": 1, "decides": {}}', "another version of compress"),
        (b'{"format": 2}', "its record is damaged"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_no_dead_end(tmp_path, content, says):
    folder = stopped_run(tmp_path / "out")
    (folder / "job.json").write_bytes(content)
    with pytest.raises(UserError, match=f"{says}.*start again with --force"):
        open_checkpoint(tmp_path / "out", JOB, resume=False, force=False)
    assert is_empty(open_checkpoint(tmp_path / "out", JOB, resume=False, force=True))


def test_equal_jobs_are_equal_behind_json(tmp_path):
    own = Job({"rate": 1e-17, "names": ("a", "b"), 3: {"x": None}}, {}, {"cores": (1, 2)})
    stopped_run(tmp_path / "out", own)
    checkpoint = open_checkpoint(tmp_path / "out", own, resume=True, force=False)
    assert not is_empty(checkpoint)
    assert checkpoint.began_on == {}


@pytest.mark.parametrize("names", [[], ["job.json"], ["job.json", "00-a.unfinished"]])
def test_a_run_that_was_stopped_before_its_first_part_does_not_stand_in_the_way(tmp_path, names):
    folder = checkpoint_folder(tmp_path / "out")
    folder.mkdir()
    if names:
        Checkpoint(folder, {}).open()
    for name in names:
        (folder / name).write_text("{}")
    checkpoint = open_checkpoint(tmp_path / "out", job(seed=1), resume=False, force=False)
    checkpoint.save("00-a", Part({"x": torch.ones(1)}))
    assert json.loads((folder / "job.json").read_text())["decides"]["seed"] == 1
    assert sorted(path.name for path in folder.iterdir()) == [
        ".compress-output",
        "00-a.safetensors",
        "job.json",
    ]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("record", [False, True])
def test_a_folder_of_somebody_else_is_left_alone(tmp_path, force, record):
    folder = checkpoint_folder(tmp_path / "out")
    folder.mkdir()
    if record:
        (folder / "job.json").write_text("{}")
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


def test_what_is_left_beside_a_whole_result_goes_and_what_is_not_ours_stays(tmp_path):
    output = tmp_path / "out"
    with atomic_directory(output) as working:
        (working / "a.txt").write_text("a")
    ProgressFolder(checkpoint_folder(output), ("*.json",)).open()
    (checkpoint_folder(output) / "job.json").write_text("{}")
    place_of(output).lock.write_text('{"written_by": "compress 0.1.0"}')
    (tmp_path / "notes.progress").mkdir()
    remove_leftovers(output)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "notes.progress"}
    assert (output / "a.txt").read_text() == "a"


def test_where_nothing_is_left_nothing_is_touched(tmp_path):
    output = tmp_path / "out"
    with atomic_directory(output) as working:
        (working / "a.txt").write_text("a")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path, output)}
    remove_leftovers(output)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path, output)} == before


def test_a_folder_that_grows_is_cleaned_of_files_that_did_not_become_whole(tmp_path):
    output = tmp_path / "run"
    with atomic_directory(output, kind="run", grows=("recipe.yaml", "dense/")) as working:
        (working / "recipe.yaml").write_text("a")
    ours = output / ".recipe.yaml.0123abcd.partial"
    others = [output / ".notes.txt.0123abcd.partial", output / ".recipe.yaml.partial"]
    for path in (ours, *others):
        path.write_text("half")
    with claim(output, reuses=True):
        pass
    assert not ours.exists()
    assert all(path.exists() for path in others)
