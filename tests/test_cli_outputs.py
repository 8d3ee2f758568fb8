"""Each command with an output claims it before any work; all of them are tried, also those to come."""

import inspect
from pathlib import Path

import pytest
from typer.main import get_command

from cli import app, execute
from compressor.system.claims import _CLAIMS, claim
from compressor.system.files import atomic_directory


def _commands(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        elif any("--output" in parameter.opts for parameter in command.params):
            yield " ".join((*path, name)), command


COMMANDS = dict(_commands(get_command(app)))


def line(command: str, folder: Path, output: Path, *more: str) -> list[str]:
    """A command line whose inputs are all missing."""
    arguments = []
    for parameter in COMMANDS[command].params:
        if parameter.param_type_name == "argument":
            arguments.append(str(folder / "recipe.yaml") if command == "run" else str(folder / "missing"))
        elif parameter.required and "--output" not in parameter.opts:
            arguments += [parameter.opts[0], str(folder / "missing.tsv")]
    return [*command.split(), *arguments, "--output", str(output), *more]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        f"model: {tmp_path}/missing\ndata: {{calibration: {tmp_path}/c.tsv, test: {tmp_path}/t.tsv}}\n"
    )
    return tmp_path


def test_there_are_commands_with_outputs():
    assert {"finetune", "prune", "export", "run", "quickstart", "doctor", "triton"} <= set(COMMANDS)


@pytest.mark.parametrize("force", [(), ("--force",)], ids=["", "force"])
@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_in_use_is_refused_before_any_work(folder, capfd, command, force):
    output = folder / "out"
    with claim(output):
        token = _CLAIMS.set(())
        code = execute(line(command, folder, output, *force))
        _CLAIMS.reset(token)
    message = capfd.readouterr().err.strip().splitlines()[-1]
    assert (code, message.startswith(f"error: {output}: another command is writing to it (process ")) == (
        2,
        True,
    )
    assert [path.name for path in folder.iterdir()] == ["recipe.yaml"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_project_with_files_of_our_names_is_refused_before_any_work(folder, capfd, command):
    project = folder / "project"
    project.mkdir()
    for name in ("manifest.json", "recipe.yaml", "report.json", "stages.json", "index.html"):
        (project / name).write_text('{"stages": {}}')
    for force in ((), ("--force",)):
        assert execute(line(command, folder, project, *force)) == 2
        message = capfd.readouterr().err.strip().splitlines()[-1]
        assert message.startswith(f"error: {project}: "), message
    assert len(list(project.iterdir())) == 5


def test_the_model_that_is_pruned_is_not_replaced(folder, capfd):
    with atomic_directory(folder / "m") as working:
        (working / "config.json").write_text("{}")
    for output in (folder / "m", folder / "m" / ".." / "m"):
        code = execute(["prune", str(folder / "m"), "--calibration", "x", "--output", str(output), "--force"])
        assert code == 2
        assert "which the command reads" in capfd.readouterr().err
    assert (folder / "m" / "config.json").is_file()


def test_validate_names_its_output_after_the_directory_that_a_dot_stands_for(folder, monkeypatch, capfd):
    (folder / "artifact").mkdir()
    (folder / "artifact-validation").write_text("mine")
    monkeypatch.chdir(folder / "artifact")
    assert execute(["validate", "dense", ".", "--data", "x"]) == 2
    assert "artifact-validation: exists" in capfd.readouterr().err


def test_stages_have_no_other_way_to_an_output():
    from compressor.attacks import perturb_stage as perturb
    from compressor.attacks import stage as attack_stage
    from compressor.inspection import stage as inspection
    from compressor.pruning import interface as pruning
    from compressor.training import finetune_stage as finetuning
    from compressor.training import soup_stage as souping
    from compressor.validation import stage as run
    from exporters import packed
    from exporters import stage as artifact
    from exporters import vocabulary_stage as vocabulary
    from exporters.triton import repository as triton

    modules = [
        finetuning,
        inspection,
        pruning,
        souping,
        attack_stage,
        perturb,
        run,
        artifact,
        packed,
        triton,
        vocabulary,
    ]
    for module in modules:
        for name, function in vars(module).items():
            if not inspect.isfunction(function) or function.__module__ != module.__name__:
                continue
            if {"output", "force"} <= set(inspect.signature(function).parameters):
                assert hasattr(function, "__wrapped__"), f"{module.__name__}.{name}"
