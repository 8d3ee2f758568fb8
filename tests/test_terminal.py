"""Exit codes, signals and standard streams: whatever happens, and whatever is printed where."""

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from project import ROOT
from rich.console import Group
from rich.table import Table
from rich.text import Text

import cli
import compressor.models.manifest
from compressor.commands.printing import print_result
from compressor.errors import GateFailed, UserError
from compressor.system.console import LineProgress
from compressor.system.signals import Stopped
from compressor.system.terminal import on_one_line, printable

LABELS = [
    "négatif",
    "😀 joy",
    "日本",
    "a\x1b[31mred\x1b[0m",
    "two\nlines",
    "\udce9 of a file name",
    "[bold]",
    "\u202eabc",
]


def run(command, *, env=None, **options):
    """A shell command, in which `compress` is this checkout's."""
    compress = f"{sys.executable} -m cli"
    return subprocess.run(
        ["bash", "-c", command.replace("compress ", f"{compress} ")],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        timeout=120,
        **{"capture_output": True, **options},
    )


@pytest.fixture
def raising(monkeypatch):
    """A function that makes `compress verify` raise something, and gives its exit code."""

    def execute_with(error, *options):
        def fail(_):
            raise error

        monkeypatch.setattr(compressor.models.manifest, "artifact_problems", fail)
        return cli.execute(["verify", "artifact", *options])

    return execute_with


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GateFailed("accuracy is 0.5"), 1),
        (UserError("a file: a value"), 2),
        (OSError(errno.ENOSPC, "No space left on device"), 2),
        (MemoryError(), 2),
        (ValueError("odd"), 70),
        (KeyError("odd"), 70),
        (OSError(errno.EACCES, "Permission denied", "somewhere"), 70),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 70),
        (EOFError(), 70),
        (SystemExit(1), 70),
        (RecursionError("deep"), 70),
        (KeyboardInterrupt(), 130),
        (Stopped(signal.SIGINT), 130),
        (Stopped(signal.SIGTERM), 143),
        (Stopped(signal.SIGHUP), 129),
    ],
    ids=repr,
)
def test_exit_codes_say_what_kind_of_end_it_was(raising, capsys, error, code):
    assert raising(error, "--json") == code
    out, err = capsys.readouterr()
    assert ("Traceback" in err) == (code == 70)
    last = err.splitlines()[-1]
    assert last.startswith({1: "gate failed: ", 2: "error: ", 70: "error: "}.get(code, "stopped by SIG")), err
    assert ("report it" in last) == (code == 70)
    if code != 1:
        assert json.loads(out)["error"] in last.removeprefix("error: ")


def test_a_bug_is_shown_with_its_cause(raising, capsys):
    error = ValueError("outer")
    error.__cause__ = KeyError("inner")
    assert raising(error) == 70
    assert re.search("KeyError: 'inner'.*ValueError: outer", capsys.readouterr().err, re.DOTALL)


@pytest.mark.parametrize(("setting", "shown"), [("1", True), ("0", False), ("", False)])
def test_on_demand_an_error_of_one_line_shows_where_it_comes_from(
    raising, capsys, monkeypatch, setting, shown
):
    monkeypatch.setenv("COMPRESS_DEBUG", setting)
    error = UserError("a line")
    error.__cause__ = KeyError("inner")
    assert raising(error) == 2
    err = capsys.readouterr().err
    assert ("KeyError: 'inner'" in err) == ("Traceback" in err) == shown
    assert err.endswith("error: a line\n")


def test_an_error_stays_on_one_line_whatever_a_path_holds(raising, capsys):
    assert raising(UserError("out\nof\x1b[2J \udce9/file: no such file")) == 2
    assert capsys.readouterr().err == "error: out\\nof\\x1b[2J \\udce9/file: no such file\n"


def test_an_error_with_a_very_long_name_keeps_its_beginning_and_its_end(raising, capsys):
    assert raising(UserError(f"data.csv: no column {'a' * 50_000}; give --text-column")) == 2
    line = capsys.readouterr().err
    assert len(line) < 2_000
    assert line.startswith("error: data.csv: no column aaa")
    assert line.endswith("aaa; give --text-column\n")


@pytest.mark.parametrize("arguments", [[], ["resources"], ["recipe"]])
def test_without_a_command_the_help_is_all_that_is_printed(arguments, capsys):
    assert cli.execute(arguments) == 2
    out, err = capsys.readouterr()
    assert "Usage" in out
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "near"),
    [(["prun"], "'prune'"), (["resources", "lst"], "'list'"), (["verify", "a", "--jsn"], "--json")],
)
def test_a_misspelt_command_or_option_has_a_suggestion(arguments, near, capsys):
    assert cli.execute(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert near in line


@given(st.text(st.characters(codec=None)))
def test_printable_text_has_nothing_that_steers_a_terminal(text):
    found = printable(text)
    assert all(c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") for c in found)
    assert not set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069") & set(found)
    assert printable(found) == found
    found.encode("utf-8")
    assert "\n" not in on_one_line(text)
    if text.isprintable():
        assert found == text


def test_composed_characters_stay_what_they_are():
    family = "👩\u200d👩\u200d👧 e\u0301 नि"
    assert printable(family) == family


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "utf-16", "shift_jis"])
@pytest.mark.parametrize("errors", ["strict", "backslashreplace"])
def test_results_are_printed_whatever_the_encoding(monkeypatch, encoding, errors):
    table = Table(*LABELS)
    table.add_row(*LABELS)
    table.add_row(*map(Text, LABELS))
    for as_json, value in (
        (True, {"labels": LABELS}),
        (False, table),
        (False, Group(table, Text("é"))),
        (False, "\n".join(LABELS)),
    ):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors)
        monkeypatch.setattr(sys, "stdout", stream)
        print_result(as_json, value, value)
        stream.flush()
        text = stream.buffer.getvalue().decode(encoding)
        assert "\x1b" not in text
        assert "\u202e" not in text or as_json
        if as_json:
            assert json.loads(text) == {"labels": LABELS}
        elif encoding == "utf-8":
            assert "[bold]" in text.replace("\n", "")


def test_progress_goes_on_where_nobody_reads_it(monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(sys, "stderr", Closed())
    assert list(LineProgress().track([1, 2], "work")) == [1, 2]
    LineProgress().log("a line")


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("compress recipe schema | head -c 1; exit ${PIPESTATUS[0]}", 0, ""),
        ("compress --help | true; exit ${PIPESTATUS[0]}", 0, ""),
        ("compress recipe schema >&-", 0, ""),
        ("compress recipe schema >&- 2>&- <&-", 0, ""),
        ("compress verify nowhere 2>&-", 2, ""),
        ("compress recipe schema > /dev/full", 2, "stdout: cannot be written: No space left on device"),
        ("compress verify nowhere --json 2> /dev/full", 2, ""),
        ("PYTHONIOENCODING=ascii compress verify '/née' --json", 2, "n\\xe9e"),
    ],
)
def test_standard_streams_of_every_kind(command, code, says):
    result = run(command, text=True)
    assert result.returncode == code, result.stderr
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr
    if "--json" in command:
        assert json.loads(result.stdout)["error"].endswith("no such artifact directory")


def test_a_file_name_that_is_no_text_is_an_error_and_no_crash(tmp_path):
    result = run(f"compress verify {tmp_path}/$'\\xe9\\n\\x1b' --json")
    assert result.returncode == 2
    assert result.stderr.decode().endswith("\\udce9\\n\\x1b: no such artifact directory\n")
    assert json.loads(result.stdout)["error"].endswith("no such artifact directory")


SLOW = """
import sys, time
from pathlib import Path
import cli, compressor.models.manifest
from compressor.system.files import atomic_directory

def slow(path):
    with atomic_directory(path / "out") as working:
        (working / "half").write_text("half")
        (path / "begun").touch()
        time.sleep(60)

compressor.models.manifest.artifact_problems = slow
cli.main()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_leaves_nothing_half_written(name, tmp_path):
    number = getattr(signal, name)
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, "verify", str(tmp_path)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        # The tests may have been started with it ignored.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    while not (tmp_path / "begun").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err == f"stopped by {name}: its output is as it was before; start it again\n"
    assert [path.name for path in tmp_path.iterdir()] == ["begun"]


def test_an_ignored_signal_stays_ignored(tmp_path):
    process = subprocess.Popen(
        ["nohup", sys.executable, "-c", SLOW, "verify", str(tmp_path)],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    while not (tmp_path / "begun").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.terminate()
    assert process.wait(timeout=60) == 143


def test_running_a_command_within_a_program_changes_none_of_its_handlers_and_streams(capsys):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    stream = sys.stdout
    assert cli.execute(["verify", "nowhere"]) == 2
    assert sys.stdout is stream
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    capsys.readouterr()


def test_verify_imports_nothing_heavy(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"a graph")
    compressor.models.manifest.write_manifest(tmp_path, {})
    script = (
        "import sys, cli\n"
        "assert cli.execute(['verify', sys.argv[1]]) == 0\n"
        "heavy = {'torch', 'transformers', 'onnx', 'numpy', 'scipy', 'datasets', 'textattack'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("error", [UserError("m: cannot be loaded"), KeyError("x"), SystemExit(1)], ids=repr)
def test_what_a_library_makes_of_a_stop_is_a_stop(raising, capsys, monkeypatch, error):
    monkeypatch.setattr(cli, "stop_asked", lambda: Stopped(signal.SIGTERM))
    assert raising(error) == 143
    assert capsys.readouterr().err.startswith("stopped by SIGTERM: ")


def test_a_signal_at_the_exit_of_a_program_stops_nothing_half_way():
    script = (
        "import atexit, os, signal, sys, cli\n"
        "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
        "atexit.register(lambda: print('done'))\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))\n"
        "sys.argv = ['compress', '--version']\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("done\n")
