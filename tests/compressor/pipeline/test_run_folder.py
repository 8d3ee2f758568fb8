"""What a run's folder knows: which stages can be reused, why others cannot, what a stopped run left."""

import json
import shutil

import pytest

from compressor.errors import UserError
from compressor.pipeline.folder import RunFolder
from compressor.pipeline.keys import REPORTS, Stage
from compressor.system.checkpoint import Checkpoint
from compressor.system.files import atomic_directory

RECIPE = "model: m\n"


def chain(**options):
    """Three stages, one after the other; `options` are those of each by name."""
    stages = {}
    outputs = {"prune": ("pruned",), "export": ("artifact",), "validate": REPORTS}
    for name in outputs:
        after = tuple(stages)
        facts = {name: {"option": options.get(name, 0)}, "after": {key: stages[key].key for key in after}}
        stages[name] = Stage(name, outputs[name], after, facts)
    return list(stages.values())


def do(folder, stage, content="text"):
    """What the pipeline does about a stage."""
    folder.begin(stage)
    write(folder, stage, content)
    folder.finish(stage, 1.0, RECIPE)


def write(folder, stage, content="text"):
    for name in stage.outputs:
        path = folder.path / name
        if stage.outputs == REPORTS:
            path.write_text(content)
        else:
            with atomic_directory(path, force=True) as working:
                (working / "file").write_text(content)


@pytest.fixture
def finished(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.make(RECIPE)
    for stage in chain():
        do(folder, stage)
    return tmp_path / "run"


def reasons(path, stages):
    return {step.stage.name: step.reasons for step in RunFolder(path).plan(stages)}


def test_what_is_not_there_runs_and_what_is_done_is_reused(finished, tmp_path):
    assert reasons(finished, chain()) == {"prune": (), "export": (), "validate": ()}
    assert set(reasons(tmp_path / "other", chain()).values()) == {("not done yet",)}
    assert not (tmp_path / "other").exists()


def test_a_change_runs_a_stage_and_those_that_follow_it(finished):
    assert reasons(finished, chain(export=1)) == {
        "prune": (),
        "export": ("export.option changed from 0 to 1",),
        "validate": ("export runs",),
    }
    assert reasons(finished, chain(validate=1))["export"] == ()


@pytest.mark.parametrize("damage", ["changed", "more", "missing"])
def test_an_output_that_is_not_what_was_written_is_made_again(finished, damage):
    file = finished / "artifact" / "file"
    if damage == "changed":
        file.write_text("other")
    elif damage == "more":
        file.with_name("file2").write_text("other")
    else:
        shutil.rmtree(file.parent)
    says = "artifact is missing" if damage == "missing" else "artifact is not as it was written"
    assert reasons(finished, chain()) == {"prune": (), "export": (says,), "validate": ("export runs",)}


def test_a_report_of_other_stages_does_not_stay(finished):
    stages = chain(prune=1)
    do(RunFolder(finished), stages[0], "new")
    assert not any((finished / name).exists() for name in REPORTS)
    assert reasons(finished, stages)["prune"] == ()
    assert reasons(finished, stages)["export"] == ("not done yet",)


def test_a_stage_that_was_stopped_before_it_could_say_that_it_is_done_is_done(finished):
    stages = chain(prune=1)
    folder = RunFolder(finished)
    folder.begin(stages[0])
    assert reasons(finished, stages)["prune"] == ("prune.option changed from 0 to 1",)
    write(folder, stages[0], "new")
    assert reasons(finished, stages)["prune"] == ()
    assert reasons(finished, chain())["prune"] == ("prune.option changed from 1 to 0",)


def test_half_a_report_is_never_taken_for_one(finished):
    stages = chain(validate=1)
    folder = RunFolder(finished)
    folder.begin(stages[2])
    assert not any((finished / name).exists() for name in REPORTS)
    write(folder, stages[2], "half")
    assert reasons(finished, stages)["validate"] == ("validate.option changed from 0 to 1",)


def test_a_stage_that_an_earlier_version_began_is_read(finished):
    stages = chain(prune=1)
    RunFolder(finished).begin(stages[0])
    record = json.loads((finished / "stages.json").read_text())
    record["begun"]["circumstances"] = {"folder": "elsewhere"}
    (finished / "stages.json").write_text(json.dumps(record))
    assert reasons(finished, chain()) == {"prune": (), "export": (), "validate": ()}


def test_force_begins_anew(finished):
    folder = RunFolder(finished, force=True)
    assert all(step.runs for step in folder.plan(chain()))
    assert (finished / "report.json").exists()
    folder.make(RECIPE)
    assert {path.name for path in finished.iterdir()} == {"recipe.yaml", "stages.json", ".compress-output"}


@pytest.mark.parametrize("text", ["", "{}x", "[]", '{"stages": 3}', '{"stages": {"prune": {}}}'])
def test_a_broken_record_is_a_user_error_until_force(finished, text):
    (finished / "stages.json").write_text(text)
    with pytest.raises(UserError, match=r"stages\.json"):
        RunFolder(finished)
    assert RunFolder(finished, force=True).is_new


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="--force"):
        RunFolder(tmp_path)
    with pytest.raises(UserError, match=r"not replaced, since it has no \.compress-output"):
        RunFolder(tmp_path, force=True)


def test_a_folder_is_a_runs_by_its_marker_alone(finished):
    (finished / ".compress-output").unlink()
    with pytest.raises(UserError, match=r"has a stages\.json, but no \.compress-output of a run"):
        RunFolder(finished)
    with pytest.raises(UserError, match="not replaced, since it has no"):
        RunFolder(finished, force=True)
    assert (finished / "pruned" / "file").is_file()


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "pruned/notes.txt",
        "mine/result",
        "pruned.tar.gz",
        "attack/notes.txt",
        "dense.runs/x",
    ],
)
def test_what_somebody_put_into_a_runs_folder_is_not_replaced(finished, name):
    (finished / name).parent.mkdir(exist_ok=True)
    (finished / name).write_text("mine")
    with pytest.raises(UserError, match=f"compress did not write {name} in it"):
        RunFolder(finished, force=True)


def test_what_stages_leave_behind_is_the_runs(finished):
    with atomic_directory(finished / "dense.runs" / "run-1") as working:
        (working / "file").write_text("text")
    Checkpoint(finished / "pruned.progress", {}).open()
    (finished / "attack" / "dense.progress").mkdir(parents=True)
    (finished / ".pruned.compress-lock").write_text("")
    RunFolder(finished, force=True).make(RECIPE)
    assert {path.name for path in finished.iterdir()} == {"recipe.yaml", "stages.json", ".compress-output"}


def test_an_empty_run_goes_and_what_somebody_put_there_stays(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.make(RECIPE)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    folder.remove_if_empty()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]
    (tmp_path / "run" / "notes.txt").unlink()
    (tmp_path / "run").rmdir()
    folder = RunFolder(tmp_path / "run")
    folder.make(RECIPE)
    folder.remove_if_empty()
    assert not (tmp_path / "run").exists()


def test_a_run_does_not_write_over_the_record_of_another_one(tmp_path):
    first = RunFolder(tmp_path / "run")
    first.make(RECIPE)
    second = RunFolder(tmp_path / "run")
    do(first, chain()[0])
    with pytest.raises(UserError, match=r"stages\.json: another run wrote it while this one worked"):
        second.begin(chain()[0])
    assert reasons(tmp_path / "run", chain())["prune"] == ()
