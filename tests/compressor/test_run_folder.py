"""What a run's folder knows: which stages can be reused, why others cannot, what a stopped run left."""

import json

import pytest

from compressor.errors import UserError
from compressor.run_folder import RunFolder
from compressor.stages import REPORTS, Stage

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
            path.mkdir(exist_ok=True)
            (path / "file").write_text(content)


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
        file.unlink()
        file.parent.rmdir()
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
    assert {path.name for path in finished.iterdir()} == {"recipe.yaml", "stages.json"}


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
    with pytest.raises(UserError, match="holds none of the files that compress writes"):
        RunFolder(tmp_path, force=True)
