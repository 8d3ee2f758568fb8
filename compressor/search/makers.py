"""Makes candidates in processes of their own, before the search comes to them.

A candidate lies in folders that are named after all that decides it. So it is the same one whoever made it,
and the search finds it there. What the search never comes to, since it went another way, changes no outcome.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from compressor.errors import UserError, first_line
from compressor.search.candidates import CandidateStore, SearchJob, Wanted
from compressor.system.cache import VARIABLE, cache_directory
from compressor.system.console import SilentProgress, format_seconds
from compressor.system.context import Context
from compressor.system.environment import thread_count
from compressor.system.processes import ProcessEndedError, WorkerPool, how_it_ended


class Made(NamedTuple):
    """What a worker tells of a candidate that it made.

    Attributes:
        seconds: that it took.
        lines: that were logged.
    """

    seconds: float
    lines: list[str]


@dataclass(frozen=True)
class Makers:
    """Processes that make candidates; none where there is only one, which is the search's own.

    They live as long as the search, since each keeps what prunings of the same model have in common.
    """

    store: CandidateStore
    pool: WorkerPool | None

    @property
    def count(self) -> int:
        """Return how many candidates are made at once."""
        return self.store.job.config.processes

    def make(self, wanted: Sequence[Wanted]) -> None:
        """Make candidates at the same time, and return when no process works any more.

        Whatever is measured next is measured on an idle machine.

        Args:
            wanted: the first one is the next of the search, which may never come to the others.

        Raises:
            UserError: the first one cannot be made. Another one is made again if its turn comes, and fails
                then.
        """
        if self.pool is None or not wanted:
            return
        progress = self.store.context.progress
        futures = {self.pool.submit_stoppable(_make_in_worker, one): one for one in wanted}
        name = f"Making {', '.join(f'{one.target:.3g}x' for one in wanted)}"
        for future in progress.track(as_completed(futures), name, len(futures)):
            one, error = futures[future], future.exception()
            if error is None:
                found = future.result()
                for line in [*found.lines, f"made in {format_seconds(found.seconds)}"]:
                    progress.log(f"{one.name}: {line}")
            elif one is wanted[0] or isinstance(error, BrokenProcessPool):
                raise error
            else:
                progress.log(f"{one.name}: cannot be made ahead of its turn: {first_line(error)}")


@contextmanager
def candidate_makers(store: CandidateStore) -> Iterator[Makers]:
    """Yield what makes candidates, in as many processes as the search's options say; they end with the block.

    Raises:
        UserError: a process was killed.
    """
    job, context = store.job, store.context
    processes = job.config.processes
    if processes == 1:
        yield Makers(store, None)
        return
    share = context.run.model_copy(update={"threads": max(1, thread_count(context.run) // processes)})
    given = replace(context, run=share, progress=SilentProgress())
    try:
        with WorkerPool(processes, _start_worker, (job, given, str(cache_directory()))) as pool:
            yield Makers(store, pool)
    except ProcessEndedError as error:
        raise UserError(
            f"{job.model}: a process that made a candidate {how_it_ended(error.code)}; what is finished is "
            f"kept: start the search again, with fewer --processes if memory is short"
        ) from error


@dataclass(frozen=True)
class _Notes(SilentProgress):
    """Keeps the lines that are logged."""

    lines: list[str] = field(default_factory=list)

    def log(self, message: str) -> None:
        self.lines.append(message)


_store: CandidateStore
_notes: _Notes


def _start_worker(job: SearchJob, context: Context, cache: str) -> None:
    """Note what this process is for; what goes wrong is told by the first candidate."""
    global _store, _notes
    # Also where the parent's is a temporary folder.
    os.environ[VARIABLE] = cache
    _notes = _Notes()
    _store = CandidateStore(job, replace(context, progress=_notes))


def _make_in_worker(wanted: Wanted) -> Made:
    began = time.monotonic()
    _notes.lines.clear()
    _store.make(wanted)
    return Made(time.monotonic() - began, list(_notes.lines))
