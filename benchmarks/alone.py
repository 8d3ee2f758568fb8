"""A measurement in a process of its own, with that process's peak memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compressor.system.processes import in_own_process, peak_memory_bytes


def peak_mb() -> float:
    """Most memory this process has had so far, in MiB."""
    return peak_memory_bytes() / 2**20


def measured_alone(measure: Callable[..., dict[str, Any]], arguments: dict[str, Any]) -> dict[str, Any]:
    """What `measure(**arguments)` finds in a new process, with the process's `peak_mb`.

    Raises:
        ProcessEndedError: the process died before it had a result.
    """
    return in_own_process(_with_peak, measure, arguments)


def _with_peak(measure: Callable[..., dict[str, Any]], arguments: dict[str, Any]) -> dict[str, Any]:
    return measure(**arguments) | {"peak_mb": peak_mb()}
