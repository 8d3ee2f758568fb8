"""Work in a process of its own, so that its memory is nobody else's."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")

_STATUS = Path("/proc/self/status")


class ProcessEndedError(Exception):
    """A process ended before it had a result.

    Attributes:
        code: its exit code, below 0 for a signal.
    """

    def __init__(self, code: int | None) -> None:
        super().__init__(f"the process ended with code {code}")
        self.code = code


def in_own_process(work: Callable[..., Result], *arguments: object) -> Result:
    """What `work(*arguments)` returns in a fresh process; all of it must be such that pickle takes it.

    Raises:
        ProcessEndedError: it raised, or was ended from outside, as happens where memory is short.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, work, arguments), daemon=True)
    process.start()
    # This process's copy; else the pipe would stay open when the other process ends.
    sender.close()
    try:
        result: Result = receiver.recv()
    except EOFError as error:
        process.join()
        raise ProcessEndedError(process.exitcode) from error
    process.join()
    return result


def _send(sender: Connection, work: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    sender.send(work(*arguments))


def peak_memory_bytes() -> int:
    """The most memory that this process has had resident."""
    if _STATUS.is_file():
        # Not getrusage: a process that was started by a large one begins with that one's peak there.
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
