"""A progress folder is that of one run, and holds nothing of others when it goes."""

import pytest
import torch

from compressor.errors import UserError
from compressor.system.checkpoint import (
    Checkpoint,
    Part,
    checkpoint_folder,
    open_checkpoint,
    remove_checkpoint,
)
from compressor.system.jobs import Job

PART = Part({"x": torch.ones(1)})


def test_a_run_does_not_go_on_in_the_folder_of_another_one(tmp_path):
    first = Checkpoint(tmp_path / "out.progress", {"seed": 0})
    first.save("00-a", PART)
    remove_checkpoint(first)
    second = Checkpoint(tmp_path / "out.progress", {"seed": 1})
    second.save("00-a", PART)
    for use in (
        lambda: first.load("00-a"),
        lambda: first.save("01-b", PART),
        lambda: first.append("a", "line"),
    ):
        with pytest.raises(UserError, match="another one was started there; this one cannot continue"):
            use()
    assert second.load("00-a") is not None


def test_a_run_whose_folder_was_removed_does_not_go_on(tmp_path):
    first = Checkpoint(tmp_path / "out.progress", {})
    first.save("00-a", PART)
    remove_checkpoint(first)
    with pytest.raises(UserError, match="was removed while this command worked"):
        first.save("01-b", PART)


def test_another_process_of_the_run_joins_its_folder(tmp_path):
    first = Checkpoint(tmp_path / "out.progress", {})
    first.open()
    second = Checkpoint(tmp_path / "out.progress", {})
    second.append("lines-1", "one")
    first.append("lines", "two")
    assert first.line_names() == ["lines", "lines-1"]


def test_a_folder_that_only_looks_like_a_progress_folder_is_left_alone(tmp_path):
    folder = checkpoint_folder(tmp_path / "out")
    folder.mkdir()
    for name in ("job.json", "model.safetensors"):
        (folder / name).write_text("{}")
    for how in ({"resume": False, "force": True}, {"resume": True, "force": True}):
        with pytest.raises(UserError, match="exists and is no checkpoint"):
            open_checkpoint(tmp_path / "out", Job({}), **how)
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("name", ["notes.txt", "sub/notes.txt"])
def test_what_somebody_puts_into_a_progress_folder_stays(tmp_path, name):
    checkpoint = open_checkpoint(tmp_path / "out", Job({}), resume=False, force=False)
    checkpoint.save("00-a", PART)
    (checkpoint.folder / name).parent.mkdir(exist_ok=True)
    (checkpoint.folder / name).write_text("mine")
    with pytest.raises(UserError, match=r"is no checkpoint \(it holds .*notes\.txt"):
        open_checkpoint(tmp_path / "out", Job({}), resume=False, force=True)
    remove_checkpoint(checkpoint)
    assert [p.relative_to(checkpoint.folder).as_posix() for p in checkpoint.folder.rglob("*.*")] == [name]
