"""What every stage is given besides its inputs and its own options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compressor.options import ColumnsConfig, RunConfig
from compressor.system.console import Progress, terminal_progress


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where and how a stage works.

    Attributes:
        output: directory that it writes; must not exist unless `force`.
        columns: how files of texts are read.
        run: seed, device and threads.
        progress: shows what is being done.
        processes: among which attacked examples are shared out.
        resume: never throw away what a stopped run left.
        force: replace `output`, and what a stopped run of another job left.
    """

    output: Path
    columns: ColumnsConfig
    run: RunConfig
    progress: Progress
    processes: int = 1
    resume: bool = False
    force: bool = False


def terminal_context(
    output: Path,
    columns: ColumnsConfig,
    run: RunConfig,
    *,
    processes: int = 1,
    resume: bool = False,
    force: bool = False,
) -> Context:
    """Return the context of a command, whose progress is shown on the terminal."""
    return Context(
        output=output,
        columns=columns,
        run=run,
        progress=terminal_progress(),
        processes=processes,
        resume=resume,
        force=force,
    )
