"""A search in two processes: what one finds; errors arrive; a stopped one leaves no process behind."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import processes
import pytest
from project import ROOT
from small_searches import LOOSE, QUICK, context_of, job_of

from compressor.errors import UserError
from compressor.models.artifact_files import ARTIFACT_GRAPH
from compressor.models.latency_table import read_latency_table
from compressor.search import candidates as module
from compressor.search import makers
from compressor.search.candidates import candidates_folder
from compressor.search.makers import candidate_makers
from compressor.search.stage import search_directory
from compressor.system.console import SilentProgress
from compressor.system.files import read_marker

# Nothing of these searches depends on times: sizes decide.
CONFIG = QUICK.model_copy(update={"objective": "size"})


@pytest.fixture(scope="module")
def job(small_classifier_dir, texts, table_file):
    """A function: a search, in so many processes, with a file of a latency table."""

    def made(count=1, table=table_file, **options):
        update = {"latency_tables": [str(table)], "processes": count, **options}
        return job_of(small_classifier_dir, texts, CONFIG.model_copy(update=update), gates=LOOSE)

    return made


@pytest.fixture(scope="module")
def alone(job, tmp_path_factory):
    """What one process finds, and its folder."""
    folder = tmp_path_factory.mktemp("alone")
    return search_directory(job(), context_of(folder)), folder


def without_times(record):
    """All that was found but for times, and for what is computed from them."""
    candidates = [one.model_dump(exclude={"seconds", "latency", "speedup"}) for one in record.candidates]
    return candidates, record.chosen, record.front, record.verdict, record.reason, record.test_gates


def begin_with_the_dense_model(alone, folder):
    """Copy what one process made, but for the pruned candidates."""
    record, before = alone
    pruned = [name for one in record.candidates[1:] for name in (one.pruned, one.artifact, one.report)]
    found, copied = candidates_folder(before / "search"), candidates_folder(folder / "search")
    shutil.copytree(found, copied, ignore=shutil.ignore_patterns(*pruned))
    for summary in copied.glob("candidate-*.json"):
        if json.loads(summary.read_text())["target"] is not None:
            summary.unlink()


def made_in(folder):
    """The folders of what was made for candidates, by their names."""
    return {path.name: path for path in candidates_folder(folder / "search").iterdir() if path.is_dir()}


def graphs_of(record, folder):
    return [(made_in(folder)[one.artifact] / ARTIFACT_GRAPH).read_bytes() for one in record.candidates]


def test_two_processes_find_what_one_finds(job, alone, tmp_path, monkeypatch):
    expected, folder = alone
    begin_with_the_dense_model(alone, tmp_path)
    # All is pruned in the others.
    monkeypatch.setattr(module, "prune_directory", None)
    found = search_directory(job(2), context_of(tmp_path))
    assert [one.target is None for one in found.candidates] == [True, False, False]
    assert without_times(found) == without_times(expected)
    assert sorted(made_in(tmp_path)) == sorted(made_in(folder))
    assert graphs_of(found, tmp_path) == graphs_of(expected, folder)


def test_an_error_of_a_process_is_that_of_one(job, alone, table_file, tmp_path):
    table = read_latency_table(table_file)
    other = tmp_path / "other.json"
    other.write_text(table.model_copy(update={"layers": table.layers + 1}).model_dump_json())
    begin_with_the_dense_model(alone, tmp_path)
    messages = []
    for count in (1, 2):
        with pytest.raises(UserError) as error:
            search_directory(job(count, other), context_of(tmp_path))
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    assert "layers" in messages[0]


# without a model ---------------------------------------------------------------------------------


class Log(SilentProgress):
    def __init__(self):
        self.lines = []

    def log(self, message):
        self.lines.append(message)


def wanted(target):
    return SimpleNamespace(target=target, name=f"{target} times")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Of a search in two processes that do next to nothing."""
    monkeypatch.setattr(makers, "_start_worker", processes.begin)
    monkeypatch.setattr(makers, "_make_in_worker", processes.made_or_killed)
    job = SimpleNamespace(model="m", config=SimpleNamespace(processes=2))
    return SimpleNamespace(job=job, context=replace(context_of(tmp_path), progress=Log()))


def test_only_the_next_candidate_ends_the_search_with_its_error(store):
    with pytest.raises(UserError, match="no column 'text'"), candidate_makers(store) as found:
        found.make([wanted(4), wanted(7)])
        lines = store.context.progress.lines
        assert {"4 times: about 4", "4 times: made in 0:01"} < set(lines)
        assert [line for line in lines if "7 times: cannot be made ahead of its turn: file.csv" in line]
        found.make([wanted(7), wanted(4)])


@pytest.mark.parametrize("targets", [(13, 4), (4, 13)])
def test_a_killed_process_is_one_line(store, targets):
    with (
        pytest.raises(UserError, match=r"^m: a process that made a candidate was killed by signal 9 .*fewer"),
        candidate_makers(store) as found,
    ):
        found.make([wanted(target) for target in targets])


# stopped ----------------------------------------------------------------------------------------

SCRIPT = """
import pickle, sys
from pathlib import Path
from compressor.search.stage import search_directory
from compressor.system.signals import Stopped, stop_by_unwinding

if __name__ == "__main__":
    stop_by_unwinding()
    try:
        search_directory(*pickle.loads(Path(sys.argv[1]).read_bytes()))
    except Stopped as stopped:
        sys.exit(stopped.exit_code)
"""


def children_of(parent):
    return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def stopped(job, folder, number):
    """Start a search, and stop it with a signal when it prunes; return its exit code and processes."""
    (folder / "job").write_bytes(pickle.dumps((job, context_of(folder))))
    (folder / "script.py").write_text(SCRIPT)
    parent = subprocess.Popen(
        [sys.executable, str(folder / "script.py"), str(folder / "job")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    candidates = candidates_folder(folder / "search")
    while not list(candidates.glob("pruned-*.progress")):
        assert parent.poll() is None, parent.stderr.read()
        time.sleep(0.01)
    children = children_of(parent.pid)
    parent.send_signal(number)
    _, errors = parent.communicate(timeout=60)
    return parent.returncode, children, errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_search_leaves_no_process_and_half_a_folder_nowhere(job, alone, tmp_path, number):
    begin_with_the_dense_model(alone, tmp_path)
    code, children, errors = stopped(job(2), tmp_path, number)
    assert code == (143 if number == signal.SIGTERM else -number)
    assert len(children) >= 2
    deadline = time.monotonic() + 30
    while any(map(is_running, children)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(is_running, children))
    whole = {name: path for name, path in made_in(tmp_path).items() if name.split(".")[0] == name}
    assert all(read_marker(path).whole for path in whole.values())
    if number == signal.SIGTERM:
        # They were asked first, and could clean up, without a word.
        assert not [name for name in made_in(tmp_path) if name.startswith(".")]
        assert errors == ""
        return
    # Also one process goes on with what two have begun.
    found = search_directory(job(candidates=1), context_of(tmp_path))
    assert without_times(found)[0] == without_times(alone[0])[0][:2]
    assert not [name for name in made_in(tmp_path) if name.startswith(f".{found.candidates[1].pruned}")]
    assert not (candidates_folder(tmp_path / "search") / f"{found.candidates[1].pruned}.progress").exists()
