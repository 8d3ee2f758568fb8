"""What README and docs tell people to type does what they say: each line is run, in order, on stand-ins."""

import contextlib
import functools
import importlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import stand_ins
import typer
import typer.core
import typer.main
from documented import (
    BENCHMARKS,
    ENCODER,
    GUIDES,
    NOT_RUN,
    README,
    REFERENCE,
    ROOT,
    Line,
    inline_commands,
    lines_of,
)

import cli

PAGES = [README, *GUIDES]
TUTORIAL = ROOT / "docs" / "tutorial.md"
HOW_TO = ROOT / "docs" / "how-to"
STAGES = HOW_TO / "stages.md"
# Pages that continue from another one; all others start after `make quickstart`.
GOES_ON_FROM = {page: TUTORIAL for page in GUIDES if page.parent == HOW_TO} | {
    STAGES: None,
    HOW_TO / "exporting.md": STAGES,
}
# Of a model of microseconds a time is chance; its gates are tested in tests/compressor/validation.
TIMED_GATE = "latency_ratio"
FAILED_GATE = re.compile(r"(\w+)(?: at [^;]*?)? is -?[\d.]+(?: \([^)]*\))?, bound")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory):
    """The programs that lines of shell call, found first on the PATH."""
    folder = tmp_path_factory.mktemp("programs") / "bin"
    stand_ins.write_programs(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder), prepend=os.pathsep)
        yield


@pytest.fixture(scope="module")
def folder_after(tmp_path_factory: pytest.TempPathFactory, programs: None):
    """A function that runs a page in a folder of its own, once, and returns the folder."""
    encoder = tmp_path_factory.mktemp("encoder") / "model"
    stand_ins.write_encoder(encoder)
    with pytest.MonkeyPatch.context() as patch:
        stand_ins.put_in_place(patch, encoder)

        @functools.cache
        def after(page: Path | None) -> Path:
            folder = tmp_path_factory.mktemp("page") / "project"
            if page is None:
                folder.mkdir()
                (folder / "deploy").symlink_to(ROOT / "deploy")
                shutil.copytree(encoder, folder / "models" / "my-encoder")
                lines = [Line("compress quickstart --output runs/quickstart")]
            else:
                shutil.copytree(after(GOES_ON_FROM.get(page)), folder, symlinks=True)
                lines = [line for line in lines_of(page) if line.is_run]
            patch.chdir(folder)
            if page == ROOT / "docs" / "reference" / "recipes.md":
                fill_in_starter(folder)
            for line in lines:
                run(line, str(encoder))
            return folder

        yield after


def fill_in_starter(folder: Path) -> None:
    """Put what a person fills in where the starter recipe has its places."""
    shutil.copytree(folder / "runs" / "quickstart" / "dense", folder / "MODEL")
    for name, source in (("CALIBRATION.tsv", "train.tsv"), ("TEST.tsv", "test.tsv")):
        shutil.copy(folder / "runs" / "quickstart" / "data" / source, folder / name)


def run(line: Line, encoder: str) -> None:
    """Run a line in the current folder; it must exit with the code that the page says.

    A block of Python must end without an error.
    """
    if line.is_python:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(line.text, "a block of Python", "exec"), {"__name__": "__main__"})  # noqa: S102
        return
    if line.is_ours:
        printed, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
            code = cli.execute(line.arguments(encoder))
        error = errors.getvalue()
    else:
        done = subprocess.run(["bash", "-euc", line.text], capture_output=True, text=True, check=False)
        code, error = done.returncode, done.stderr
    if code == 1 and "gate failed: " in error:
        failed = FAILED_GATE.findall(error.split("gate failed: ")[1])
        assert failed, error
        code = int(any(gate != TIMED_GATE for gate in failed))
    assert code == line.code, f"{line.text}\nexit code {code}\n{error[-2000:]}"


@pytest.mark.slow
@pytest.mark.parametrize("page", [None, *PAGES], ids=lambda page: page.stem if page else "quickstart")
def test_a_page_runs_as_written(folder_after, page):
    folder_after(page)


def test_what_cannot_run_is_there_and_its_commands_parse():
    left_out = [line for page in PAGES for line in lines_of(page) if not line.is_run]
    for start in NOT_RUN:
        assert any(line.text.startswith(start) for line in left_out), f"no page has {start!r}"
    ours = [line for line in left_out if line.is_ours]
    assert ours
    for line in ours:
        silenced(typer.main.get_command(cli.app))(line.arguments(), standalone_mode=False)


def test_the_line_that_names_the_encoder_names_one(programs):
    found = subprocess.run(["bash", "-c", f'echo "{ENCODER}"'], capture_output=True, text=True, cwd=ROOT)
    assert (Path(found.stdout.strip()) / "config.json").is_file()


def test_every_recipe_has_a_how_to_that_runs_it():
    commands = {line.text for page in HOW_TO.glob("*.md") for line in lines_of(page)}
    for recipe in (ROOT / "deploy" / "recipes").glob("*.yaml"):
        assert any(text.startswith(f"compress run deploy/recipes/{recipe.name} ") for text in commands), (
            recipe
        )


def silenced(group: typer.core.TyperGroup) -> typer.core.TyperGroup:
    """The same commands and options, without what they do."""
    for command in group.commands.values():
        if isinstance(command, typer.core.TyperGroup):
            silenced(command)
        else:
            command.callback = without_effect(command.callback)
    return group


def without_effect(function: Callable[..., object]) -> Callable[..., None]:
    def nothing(**_: object) -> None:
        return None

    return functools.wraps(function)(nothing)


def test_a_command_that_is_none_would_be_found():
    with pytest.raises(typer.TyperException):
        silenced(typer.main.get_command(cli.app))(
            ["prune", "model", "--sparsty", "0.5"], standalone_mode=False
        )


@pytest.mark.parametrize("text", inline_commands(BENCHMARKS, "python -m benchmarks."))
def test_a_documented_benchmark_is_one(text):
    """It takes hours, so its options are parsed alone."""
    _, _, module, *arguments = shlex.split(text)
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(without_effect(importlib.import_module(module).main))
    app(arguments, standalone_mode=False)


def test_each_benchmark_is_documented():
    documented = {text.split()[2] for text in inline_commands(BENCHMARKS, "python -m benchmarks.")}
    scripts = {
        f"benchmarks.{path.stem}"
        for path in (ROOT / "benchmarks").glob("*.py")
        if "typer.run(main)" in path.read_text(encoding="utf-8")
    }
    assert documented == scripts


@pytest.mark.parametrize(
    "text", sorted({text for page in PAGES for text in inline_commands(page, "compress ")})
)
def test_a_command_within_a_sentence_has_the_options_that_it_names(text):
    words = shlex.split(text)
    commands = typer.main.get_command(cli.app).commands
    command = commands[words[1]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words[2:] if word.startswith("--")} <= known


def test_the_reference_is_made_from_the_command_line(tmp_path):
    """`make docs` writes it anew."""
    made = tmp_path / "cli.md"
    arguments = ["cli.py", "utils", "docs", "--name", "compress", "--output", str(made)]
    subprocess.run([sys.executable, "-m", "typer", *arguments], cwd=ROOT, check=True, capture_output=True)
    assert made.read_text(encoding="utf-8") == REFERENCE.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_of_a_page_that_is_not_in_the_site_lead_to_a_file_and_a_heading(page):
    targets = re.findall(r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)", (ROOT / page).read_text(encoding="utf-8"))
    assert targets
    for name, heading in targets:
        file = ROOT / (name or page)
        assert file.exists(), name
        if heading:
            titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in slugs, f"{name}#{heading}"
