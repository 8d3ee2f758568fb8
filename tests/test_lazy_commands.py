"""Commands that are imported when they are needed."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import cli

GROUPS = {"": cli.COMMANDS, "resources": cli.RESOURCES, "recipe": cli.RECIPES}
PLACES = [
    pytest.param(group, name, lazy, id=f"{group} {name}".strip())
    for group, commands in GROUPS.items()
    for name, lazy in commands.items()
]


@pytest.mark.parametrize(("group", "name", "lazy"), PLACES)
def test_a_command_is_what_its_summary_says(group, name, lazy):
    summary = (inspect.getdoc(lazy.function()) or "").split("\n\n")[0]
    assert lazy.summary == summary
    commands = typer.main.get_command(cli.app).commands
    command = commands[group].commands[name] if group else commands[name]
    assert command.name == name
    assert command.help.startswith(summary)
    assert command.rich_help_panel == lazy.panel


@pytest.mark.parametrize("arguments", [["--help"], [], ["recipe", "--help"], ["--version"]], ids=" ".join)
def test_help_imports_no_command(arguments):
    script = f"import cli, sys\ncli.execute({arguments})\nassert 'compressor.options' not in sys.modules\n"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(cli.__file__).parent, stdout=subprocess.PIPE, text=True
    )
    assert done.returncode == 0
    if "--version" not in arguments:
        assert "Usage: compress" in done.stdout


def test_help_lists_each_command_once_in_the_panel_of_its_purpose(capsys):
    assert cli.execute(["--help"]) == 0
    listed, panel = {}, None
    for words in map(str.split, capsys.readouterr().out.splitlines()):
        if words[:1] == ["╭─"]:
            panel = " ".join(words[1:-1])
        elif len(words) > 2 and words[1] in {**cli.COMMANDS, **GROUPS}:
            assert words[1] not in listed
            listed[words[1]] = panel
    panels = {name: lazy.panel for name, lazy in cli.COMMANDS.items()}
    assert listed == panels | {"resources": cli.TEST, "recipe": cli.START}
    assert [*dict.fromkeys(listed.values())] == [cli.START, cli.TRAIN, cli.TEST, cli.DEPLOY]


def test_an_unknown_command_is_named_with_one_that_is_close(capsys):
    assert cli.execute(["prun"]) == 2
    assert "prune" in capsys.readouterr().err
