"""A measurement in a process of its own, so that its peak memory is nobody else's."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


def peak_mb() -> float:
    """Most memory this process has had so far; unlike getrusage's, not inherited from its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _send(connection: Connection, measure: Callable[..., dict[str, Any]], arguments: dict[str, Any]) -> None:
    connection.send(measure(**arguments) | {"peak_mb": peak_mb()})


def measured_alone(measure: Callable[..., dict[str, Any]], arguments: dict[str, Any]) -> dict[str, Any]:
    """What `measure(**arguments)` finds in a new process, with the process's `peak_mb`.

    Raises:
        EOFError: the process died before it had a result.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, measure, arguments))
    process.start()
    # Otherwise a process that dies would be waited for without end.
    sender.close()
    figures: dict[str, Any] = receiver.recv()
    process.join()
    return figures
