"""What README and docs tell people to type is what the command line takes."""

import functools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import cli

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
REFERENCE = ROOT / "docs" / "cli.md"
STARTS = ("compress ", "python -m cli ", "torchrun ")


def commands_of(page: Path) -> list[list[str]]:
    """Arguments of each command of the program in a page's code blocks; lines that go on are joined."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = []
    for line in lines:
        if line.startswith(STARTS):
            words = shlex.split(line.split(" > ")[0], comments=True)
            found.append(words[words.index("cli") + 1 :] if "cli" in words else words[1:])
    return found


def silenced(app: typer.Typer) -> typer.Typer:
    """The same commands and options, without what they do."""
    copy = typer.Typer(pretty_exceptions_enable=False)
    for info in app.registered_commands:

        def nothing(**_: object) -> None:
            return None

        copy.command(info.name or info.callback.__name__)(functools.wraps(info.callback)(nothing))
    for group in app.registered_groups:
        copy.add_typer(silenced(group.typer_instance), name=group.name)
    return copy


COMMANDS = [
    pytest.param(arguments, id=f"{page.stem}: {' '.join(arguments)[:60]}")
    for page in PAGES
    if page != REFERENCE
    for arguments in commands_of(page)
]


def test_the_pages_have_commands():
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_documented_command_is_one(arguments):
    silenced(cli.app)(arguments, standalone_mode=False)


def test_a_command_that_is_none_would_be_found():
    with pytest.raises(typer.TyperException):
        silenced(cli.app)(["prune", "model", "--sparsty", "0.5"], standalone_mode=False)


def test_the_reference_is_made_from_the_command_line(tmp_path):
    """`make docs` writes it anew."""
    made = tmp_path / "cli.md"
    arguments = ["cli.py", "utils", "docs", "--name", "compress", "--output", str(made)]
    subprocess.run([sys.executable, "-m", "typer", *arguments], cwd=ROOT, check=True, capture_output=True)
    assert made.read_text(encoding="utf-8") == REFERENCE.read_text(encoding="utf-8")
