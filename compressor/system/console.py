"""Progress for people: bars on a terminal, plain lines elsewhere; always on stderr, never on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Protocol, TypeAlias, TypeVar

from compressor.system.ranks import ranks_of_environment
from compressor.system.terminal import printable, write_error

Item = TypeVar("Item")

LINE_INTERVAL_SECONDS = 10.0


# What is known so far, told while work goes on.
Status: TypeAlias = Callable[[], str]


def no_status() -> str:
    """Nothing to tell."""
    return ""


class Progress(Protocol):
    """What a stage may say while it works. Stages never print."""

    def track(
        self, items: Iterable[Item], description: str, total: int | None = None, status: Status = no_status
    ) -> Iterator[Item]:
        """Yield `items`, showing `description`, the share that is done, the time left and the `status`."""

    def log(self, message: str) -> None:
        """Show one line of lasting interest."""


def _length(items: Iterable[object], total: int | None) -> int | None:
    if total is not None:
        return total
    return len(items) if isinstance(items, Collection) else None


def format_seconds(seconds: float) -> str:
    """`75.2` -> `1:15`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class SilentProgress:
    """Says nothing: for tests and for use as a library."""

    def track(
        self, items: Iterable[Item], description: str, total: int | None = None, status: Status = no_status
    ) -> Iterator[Item]:
        del description, total, status
        yield from items

    def log(self, message: str) -> None:
        del message


class LineProgress:
    """Plain log lines on stderr, for CI logs and pipes: one at most every few seconds."""

    def track(
        self, items: Iterable[Item], description: str, total: int | None = None, status: Status = no_status
    ) -> Iterator[Item]:
        count = _length(items, total)
        start = last = time.monotonic()
        for done, item in enumerate(items):
            now = time.monotonic()
            if done and now - last >= LINE_INTERVAL_SECONDS:
                last = now
                left = f", {format_seconds((now - start) / done * (count - done))} left" if count else ""
                found = f", {text}" if (text := status()) else ""
                self.log(f"{description}: {done}/{count or '?'}{left}{found}")
            yield item
        elapsed = time.monotonic() - start
        if elapsed >= LINE_INTERVAL_SECONDS:
            self.log(f"{description}: done in {format_seconds(elapsed)}")

    def log(self, message: str) -> None:
        write_error(printable(message))


class BarProgress:
    """Rich progress bars on stderr, for terminals."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)

    def track(
        self, items: Iterable[Item], description: str, total: int | None = None, status: Status = no_status
    ) -> Iterator[Item]:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import (
            Progress as RichProgress,
        )

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("elapsed"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}", markup=False),
        )
        start = time.monotonic()
        with RichProgress(*columns, console=self._console, transient=True) as bars:
            task = bars.add_task(printable(description), total=_length(items, total), status=status())
            for item in items:
                yield item
                bars.update(task, advance=1, status=status())
        elapsed = time.monotonic() - start
        if elapsed >= 2.0:
            self.log(f"{description}: done in {format_seconds(elapsed)}")

    def log(self, message: str) -> None:
        self._console.print(printable(message), markup=False, highlight=False)


def terminal_progress() -> Progress:
    """Bars where both standard streams are terminals, plain lines otherwise; of several ranks one tells."""
    if not ranks_of_environment().is_first:
        return SilentProgress()
    if sys.stderr.isatty() and sys.stdout.isatty():
        return BarProgress()
    return LineProgress()
