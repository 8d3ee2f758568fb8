"""Processes of their own: results and errors arrive whole, a killed one is named, none is left."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import as_completed
from pathlib import Path

import processes
import pytest
from project import ROOT

from compressor.system.processes import (
    ProcessEndedError,
    UnpicklableError,
    WorkerPool,
    how_it_ended,
    in_own_process,
)
from compressor.system.signals import Stopped


def test_the_result_comes_from_another_process():
    assert in_own_process(os.getpid) != os.getpid()


def test_a_process_that_ends_without_a_result_is_an_error_with_its_code():
    with pytest.raises(ProcessEndedError, match="code 3") as ended:
        in_own_process(os._exit, 3)
    assert ended.value.code == 3


def test_a_killed_process_is_named_by_its_signal():
    with pytest.raises(ProcessEndedError, match=r"killed by signal 9 \(SIGKILL; memory may be short\)"):
        in_own_process(processes.kill_self, signal.SIGKILL)
    assert how_it_ended(-signal.SIGSEGV) == "was killed by signal 11 (SIGSEGV)"
    assert how_it_ended(None) == "ended"


@pytest.mark.parametrize("kind", ["user", "several", "odd"])
def test_an_error_arrives_whole_with_its_traceback(kind):
    expected = processes.ERRORS.get(kind)
    with pytest.raises(type(expected) if expected else UnpicklableError) as caught:
        in_own_process(processes.fail, kind)
    assert str(caught.value) == (str(expected) if expected else "OddError: one and two")
    assert "in fail" in str(caught.value.__cause__)


def test_a_result_that_cannot_be_passed_on_is_an_error_and_no_silent_end():
    with pytest.raises(Exception, match="pickle"):
        in_own_process(eval, "lambda: 0")


def test_a_pool_shares_work_out_and_ends_with_its_block():
    with WorkerPool(2, processes.begin, ()) as pool:
        futures = [pool.submit(processes.square, value) for value in range(6)]
        assert sorted(future.result() for future in as_completed(futures)) == [0, 1, 4, 9, 16, 25]
    assert not any(worker.is_alive() for worker in pool._workers)


def test_a_killed_worker_is_named_by_its_signal():
    with (
        pytest.raises(ProcessEndedError) as ended,
        WorkerPool(2, processes.begin, ()) as pool,
    ):
        for future in [pool.submit(processes.square_unless_13, value) for value in (1, 13, 2)]:
            future.result()
    assert ended.value.code == -signal.SIGKILL


def test_an_error_in_a_worker_ends_the_others_at_once():
    start = time.monotonic()
    with pytest.raises(ValueError, match="because of it"), WorkerPool(2, processes.begin, ()) as pool:
        for _ in range(3):
            pool.submit(time.sleep, 60)
        raise ValueError("because of it")
    assert time.monotonic() - start < 30
    assert not any(worker.is_alive() for worker in pool._workers)


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import processes
from compressor.system.processes import WorkerPool, in_own_process
from compressor.system.signals import Stopped, stop_by_unwinding
if __name__ == "__main__":
    stop_by_unwinding()
    folder = Path(sys.argv[1])
    try:
        if sys.argv[2] == "own":
            in_own_process(processes.sleep_beside, folder, "own")
        else:
            with WorkerPool(2, processes.begin, ()) as pool:
                if sys.argv[2] == "beside idle":
                    busy = pool.submit_stoppable(processes.sleep_and_clean_slowly, folder, "0")
                    assert pool.submit_stoppable(processes.square, 3).result() == 9
                    busy.result()
                submit = pool.submit_stoppable if sys.argv[2] == "stoppable" else pool.submit
                futures = [submit(processes.sleep_beside, folder, str(i)) for i in range(5)]
                futures[0].result()
    except Stopped as stopped:
        sys.exit(stopped.exit_code)
"""


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that has ended and that nobody has waited for yet.
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.parametrize(("kind", "count"), [("own", 1), ("pool", 2), ("stoppable", 2), ("beside idle", 1)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_children_end_with_a_stopped_parent(kind, count, number, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(ROOT / "tests" / "support")))
    folder = tmp_path / "work"
    folder.mkdir()
    parent = subprocess.Popen(
        [sys.executable, str(script), str(folder), kind], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.05)
    children = [int(path.read_text()) for path in folder.iterdir()]
    assert len(children) == count
    parent.send_signal(number)
    assert parent.wait(timeout=60) == (143 if number == signal.SIGTERM else -number)
    while any(map(is_running, children)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(is_running, children))
    if kind != "pool" and number == signal.SIGTERM:
        # They were asked first, and could clean up.
        assert list(folder.iterdir()) == []


def test_stopped_has_the_exit_code_that_shells_give():
    assert [Stopped(number).exit_code for number in (signal.SIGINT, signal.SIGTERM)] == [130, 143]
