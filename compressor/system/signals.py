"""Signals that ask a command to stop: it unwinds, so that whatever cleans up after itself does."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

AGAIN_SECONDS = 0.02


class Stopped(BaseException):
    """A signal asked to stop. No `Exception`, so that nothing takes it for a failure of its own.

    Attributes:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """As shells give it: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.number


def stop_by_unwinding(*, once: bool = False) -> None:
    """Turn the first stopping signal into `Stopped` in the main thread; a second one kills.

    A signal that is ignored, as under nohup, stays ignored. For a program that has its signals for itself:
    where Python does not let an exception out, as of a `__del__`, the signal comes again.

    Args:
        once: a second one is ignored, where several may send one, and kill what takes long by other means.
    """
    _Waiting.asked, _Waiting.after = None, signal.SIG_IGN if once else signal.SIG_DFL
    for number in STOPPING:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            signal.signal(number, _stop)
    sys.unraisablehook = _unraisable


def stop_at_once() -> None:
    """Undo `stop_by_unwinding`, where nothing is left to unwind: the first stopping signal kills."""
    for number in STOPPING:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            signal.signal(number, signal.SIG_DFL)


def stop_asked() -> Stopped | None:
    """What the first stopping signal raised, or was to raise; None if none came."""
    return None if _Waiting.asked is None else Stopped(_Waiting.asked)


def ignore_stopping() -> None:
    """Let a program whose work is done end: what runs at its exit is short, and is not stopped half-way."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def _unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Send a swallowed stop again, a moment later, when the code that swallowed it has ended."""
    if not isinstance(unraisable.exc_value, Stopped):
        sys.__unraisablehook__(unraisable)
        return
    number = unraisable.exc_value.number
    signal.signal(number, _stop)
    again = threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Within it the first stopping signal waits: for what must be done once it has begun, and is short."""
    _Waiting.depth += 1
    try:
        yield
    finally:
        _Waiting.depth -= 1
        if not _Waiting.depth and _Waiting.number is not None:
            number, _Waiting.number = _Waiting.number, None
            raise Stopped(number)


class _Waiting:
    """Blocks that a signal waits for, the signal that does, the one that came first, what those after it do.

    Handlers run in the main thread alone.
    """

    depth = 0
    number: int | None = None
    asked: int | None = None
    after: signal.Handlers = signal.SIG_DFL


def _stop(number: int, frame: FrameType | None) -> None:
    del frame
    for other in STOPPING:
        if signal.getsignal(other) is _stop:
            signal.signal(other, _Waiting.after)
    _Waiting.asked = number
    if _Waiting.depth:
        _Waiting.number = number
        return
    raise Stopped(number)
