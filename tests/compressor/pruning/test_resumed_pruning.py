"""Runs of a pruning stage that are stopped and go on: the same bits as a run in one piece."""

import signal
import subprocess
import sys
import time

import pytest
from project import ROOT
from stopping import StoppedError

import cli
from compressor.errors import UserError
from compressor.options import AdaptiveConfig, ColumnsConfig, PruneConfig, RunConfig
from compressor.pruning import interface as pruning
from compressor.pruning.interface import prune_directory
from compressor.system.checkpoint import Checkpoint, checkpoint_folder
from compressor.system.console import SilentProgress
from compressor.system.context import Context

PARTS = 8


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
        str(model),
        str(texts),
        PruneConfig(**options),
        Context(
            output=output,
            columns=ColumnsConfig(max_length=24),
            run=RunConfig(device="cpu", threads=2),
            force=force,
            progress=SilentProgress(),
            resume=resume,
        ),
    ).model_dump()


def stop_after(monkeypatch, parts):
    """Make the save of the part behind the first `parts` end the run."""
    save, saved = Checkpoint.save, []

    def limited(self, name, part):
        if len(saved) == parts:
            raise StoppedError
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
def test_a_run_in_two_pieces_gives_the_bits_of_one(small_classifier_dir, texts, tmp_path, monkeypatch, case):
    options = CASES[case]
    whole = stage(small_classifier_dir, texts, tmp_path / "whole", **options)
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(StoppedError):
            stage(small_classifier_dir, texts, tmp_path / "out", **options)
    assert len(finished_parts(tmp_path / "out")) == 5
    solved = []
    with monkeypatch.context() as patch:
        save = Checkpoint.save
        patch.setattr(Checkpoint, "save", lambda *args: (solved.append(args[1]), save(*args)))
        resumed = stage(small_classifier_dir, texts, tmp_path / "out", **options)
    # Only what was not finished is solved.
    assert len(solved) == PARTS - 5
    assert resumed["sha256"] == whole["sha256"]
    assert {**resumed, "path": None, "seconds": None} == {**whole, "path": None, "seconds": None}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_a_run_that_fails_while_it_writes_goes_on_without_solving(
    small_classifier_dir, texts, tmp_path, monkeypatch
):
    def fail(*args):
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(pruning, "save_classifier", fail)
        with pytest.raises(StoppedError):
            stage(small_classifier_dir, texts, tmp_path / "out")
    assert len(finished_parts(tmp_path / "out")) == PARTS
    monkeypatch.setattr(Checkpoint, "save", fail)
    stage(small_classifier_dir, texts, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_run_that_fails_before_its_first_part_leaves_nothing(
    small_classifier_dir, texts, tmp_path, monkeypatch
):
    stop_after(monkeypatch, 0)
    with pytest.raises(StoppedError):
        stage(small_classifier_dir, texts, tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_a_run_that_fails_before_its_first_part_leaves_no_folder_above_it(
    small_classifier_dir, texts, tmp_path, monkeypatch
):
    stop_after(monkeypatch, 0)
    with pytest.raises(StoppedError):
        stage(small_classifier_dir, texts, tmp_path / "new" / "out")
    assert not any(tmp_path.iterdir())


def test_an_output_that_cannot_be_made_is_a_user_error(small_classifier_dir, texts, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match="cannot be written"):
        stage(small_classifier_dir, texts, tmp_path / "file" / "out")


def test_a_full_disk_while_parts_are_kept_is_a_user_error(small_classifier_dir, texts, tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def full(*args, **kwargs):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(UserError, match="no space left"):
        stage(small_classifier_dir, texts, tmp_path / "out")


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
    small_classifier_dir, texts, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(cli, "QUIET", {})
    output, whole = tmp_path / "out", tmp_path / "whole"
    kill_after(3, output, arguments(small_classifier_dir, texts, output))
    kept = finished_parts(output)
    assert 3 <= len(kept) < PARTS
    assert not output.exists()

    capfd.readouterr()
    assert cli.execute(arguments(small_classifier_dir, texts, output, sparsity="0.7")) == 2
    refused = capfd.readouterr().err
    assert refused.startswith("error: ")
    assert refused.count("\n") == 1
    assert "prune.sparsity changed from 0.8 to 0.7" in refused
    assert "start again with --force" in refused
    assert finished_parts(output) == kept

    assert cli.execute(arguments(small_classifier_dir, texts, output)) == 0
    assert cli.execute(arguments(small_classifier_dir, texts, whole)) == 0
    resumed, expected = (folder / "model.safetensors" for folder in (output, whole))
    assert resumed.read_bytes() == expected.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_a_damaged_part_of_a_stopped_run_is_made_again(small_classifier_dir, texts, tmp_path, monkeypatch):
    whole = stage(small_classifier_dir, texts, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(StoppedError):
            stage(small_classifier_dir, texts, tmp_path / "out")
    broken = checkpoint_folder(tmp_path / "out") / finished_parts(tmp_path / "out")[1]
    broken.write_bytes(broken.read_bytes()[:200])
    assert stage(small_classifier_dir, texts, tmp_path / "out")["sha256"] == whole["sha256"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]
