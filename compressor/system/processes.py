"""Work in processes of its own: what it returns and raises arrives whole, and none outlives its parent."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from compressor.system.signals import Stopped, stop_at_once, stop_by_unwinding

Result = TypeVar("Result")

_STATUS = Path("/proc/self/status")
# How long a process may take to clean up once it is asked to stop.
SECONDS_TO_STOP = 10.0


class ProcessEndedError(Exception):
    """A process was ended before it had a result, as happens where memory is short.

    Attributes:
        code: its exit code, below 0 for a signal; None where it is not known.
    """

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = code

    def __str__(self) -> str:
        return f"the process {how_it_ended(self.code)}"


class UnpicklableError(Exception):
    """Stands for an error of another process that cannot be passed on itself; it has its type and text."""


def how_it_ended(code: int | None) -> str:
    """An exit code in words."""
    if code is None:
        return "ended"
    if code < 0:
        name = signal.Signals(-code).name if -code in list(signal.Signals) else "unknown"
        short = "; memory may be short" if name == "SIGKILL" else ""
        return f"was killed by signal {-code} ({name}{short})"
    return f"ended with code {code}"


def in_own_process(work: Callable[..., Result], *arguments: object) -> Result:
    """Return what `work(*arguments)` returns in a fresh process; all of it must be such that pickle takes it.

    What it raises is raised here, caused by its traceback there.

    Raises:
        ProcessEndedError: the process was ended from outside.
        UnpicklableError: it raised an error that pickle does not take.
    """
    with WorkerPool(1, stop_by_unwinding, ()) as pool:
        found: Result = pool.submit(_alone, work, arguments).result()
    return found


def _passing_on(work: Callable[..., Result], arguments: tuple[object, ...]) -> Result:
    """What `work` returns; what it raises is such that pickle takes it."""
    try:
        return work(*arguments)
    except Exception as error:
        passed_on = _passed_on(error)
        if passed_on is error:
            raise
        raise passed_on from error


def _alone(work: Callable[..., Result], arguments: tuple[object, ...]) -> Result:
    try:
        return _passing_on(work, arguments)
    except Stopped as stopped:
        # Pickle does not take a signal; the one who asked waits for no answer.
        sys.exit(stopped.exit_code)


def _stoppable(work: Callable[..., Result], arguments: tuple[object, ...]) -> Result:
    """As `_alone`, in one of several processes, which may be stopped when it waits for work as well."""
    try:
        # The pool itself asks all to stop when one has ended.
        stop_by_unwinding(once=True)
        try:
            return _passing_on(work, arguments)
        finally:
            stop_at_once()
    except Stopped as stopped:
        # To return would be to take what else waits, or to wait for it.
        os._exit(stopped.exit_code)


def _passed_on(error: Exception) -> Exception:
    """The error, if it is the same one on the other side; otherwise one with its type and text."""
    try:
        same = pickle.loads(pickle.dumps(error))  # noqa: S301 (of what was made a moment ago)
    except Exception:
        same = None
    if type(same) is type(error) and str(same) == str(error):
        return error
    return UnpicklableError(f"{type(error).__name__}: {error}")


def _begin_child() -> None:
    """Make this process end with its parent, and leave Ctrl-C, which all processes get, to that."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_with(parent: BaseProcess) -> None:
    """Also where the parent was killed and can end nobody."""
    parent.join()
    os._exit(1)


def _end(processes: Iterable[BaseProcess]) -> None:
    """Ask processes to stop, and kill those that take long."""
    asked = [process for process in processes if process.pid is not None]
    for process in asked:
        process.terminate()
    deadline = time.monotonic() + SECONDS_TO_STOP
    for process in asked:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.exitcode is None:
            process.kill()
            process.join()


class WorkerPool:
    """Fresh processes that share out work; to be used in a `with` statement.

    If its block ends with an exception, what waits is dropped and the processes are ended.

    Args:
        processes: how many.
        initializer, initargs: called once in each of them; must not raise, for the pool would be broken.

    Raises:
        ProcessEndedError: at the block's end, if a worker was ended from outside while it was waited for.
    """

    def __init__(
        self, processes: int, initializer: Callable[..., None], initargs: tuple[object, ...]
    ) -> None:
        self._others = set(multiprocessing.active_children())
        self._workers: set[BaseProcess] = set()
        self._pool = ProcessPoolExecutor(
            processes,
            # A forked process would inherit the threads' locks, and CUDA does not work in it.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin_worker,
            initargs=(initializer, initargs),
        )

    def submit(self, work: Callable[..., Result], *arguments: object) -> Future[Result]:
        """Have a worker do `work(*arguments)`; what it raises is raised by the future."""
        future = self._pool.submit(work, *arguments)
        # A worker is started when there is work and none is idle.
        self._workers |= set(multiprocessing.active_children()) - self._others
        return future

    def submit_stoppable(self, work: Callable[..., Result], *arguments: object) -> Future[Result]:
        """As `submit`, of work that unwinds if its process is asked to stop, so that it cleans up.

        An error that pickle does not take is passed on as an `UnpicklableError`.
        """
        return self.submit(_stoppable, work, arguments)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, BrokenProcessPool):
            self._pool.shutdown()
            raise ProcessEndedError(self._code_of_killed()) from error
        if error is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            _end(self._workers)
        else:
            self._pool.shutdown()

    def _code_of_killed(self) -> int | None:
        """The exit code of the worker that was ended first: the pool asked the others to stop."""
        codes = [worker.exitcode for worker in self._workers]
        telling = [code for code in codes if code not in (None, 0, -signal.SIGTERM)]
        return telling[0] if telling else next((code for code in codes if code), None)


def _begin_worker(initializer: Callable[..., None], initargs: tuple[object, ...]) -> None:
    _begin_child()
    initializer(*initargs)


def peak_memory_bytes() -> int:
    """The most memory that this process has had resident."""
    if _STATUS.is_file():
        # Not getrusage: a process that was started by a large one begins with that one's peak there.
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
