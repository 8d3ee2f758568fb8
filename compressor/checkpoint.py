"""Finished parts of a long stage, kept on disk, so that a killed run can go on behind the last one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compressor.differences import differences
from compressor.errors import UserError
from compressor.output import (
    is_disk_full,
    place_of,
    read_json,
    read_tensors,
    sync_file,
    sync_folder,
    write_json,
)
from compressor.progress_folder import ProgressFolder, check_progress_folder, remove_progress_folder
from compressor.ranks import Ranks

JOB = "job.json"
PARTS, LINES = ".safetensors", ".jsonl"
# All that may be in the folder; results in it have markers of their own.
FILES = (JOB, f"*{PARTS}", f"*{LINES}", "*.unfinished", "*/")


@dataclass(frozen=True)
class Part:
    """What one finished part left: tensors by name, and facts ready for JSON."""

    tensors: dict[str, Tensor]
    facts: Any = field(default_factory=dict)


class NoCheckpoint:
    """Keeps nothing: for tests and for use as a library."""

    def load(self, name: str, device: torch.device | str = "cpu") -> Part | None:
        """The part of that name, on `device`; None if it was not finished."""
        del name, device
        return None

    def save(self, name: str, part: Part) -> None:
        """Keep a finished part."""
        del name, part

    def remove(self, name: str) -> None:
        """Keep the part of that name no longer."""
        del name

    def lines(self, name: str) -> list[str]:
        """The lines that were appended under that name."""
        del name
        return []

    def append(self, name: str, line: str) -> None:
        """Keep one more line."""
        del name, line

    def line_names(self) -> list[str]:
        """The names under which lines were appended."""
        return []

    def open(self) -> None:
        """Make room for what is to be kept."""


class Checkpoint(NoCheckpoint):
    """Keeps each part as one safetensors file, which appears whole or not at all, and lines in text files.

    Args:
        folder: where; is made with the first part.
        job: everything that decides the result, ready for JSON; is kept beside the parts.
        keeps: names of files that others write beside the parts.
    """

    def __init__(self, folder: Path, job: Mapping[str, Any] | None = None, keeps: Sequence[str] = ()) -> None:
        self.folder = folder
        self._own = ProgressFolder(folder, [*FILES, *keeps])
        self._job = dict(job or {})

    def load(self, name: str, device: torch.device | str = "cpu") -> Part | None:
        from safetensors import SafetensorError

        path = self._path(name)
        self._own.check()
        if not path.is_file():
            return None
        try:
            tensors, metadata = read_tensors(path, device)
            return Part(tensors, json.loads(metadata["facts"]))
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise UserError(
                f"{path}: cannot be read: {error}; remove {self.folder} and start anew"
            ) from error

    def save(self, name: str, part: Part) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        path = self._path(name)
        unfinished = path.with_suffix(".unfinished")
        tensors = {key: value.contiguous() for key, value in part.tensors.items()}
        try:
            self.open()
            save_file(tensors, unfinished, metadata={"facts": json.dumps(part.facts, allow_nan=False)})
            sync_file(unfinished)
            unfinished.replace(path)
            sync_folder(self.folder)
        except (OSError, SafetensorError) as error:
            raise _unwritable(path, error) from error

    def remove(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def lines(self, name: str) -> list[str]:
        path = self.folder / f"{name}{LINES}"
        if not path.is_file():
            return []
        try:
            whole, _, rest = path.read_text(encoding="utf-8").rpartition("\n")
            if rest:
                # Half of a line: the run was stopped while it wrote.
                unfinished = path.with_suffix(".unfinished")
                unfinished.write_text(whole + "\n" if whole else "", encoding="utf-8")
                unfinished.replace(path)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path}: cannot be read: {error}; remove {self.folder} and start anew"
            ) from error
        # Not splitlines: JSON leaves the line separators of Unicode as they are.
        return whole.split("\n") if whole else []

    def append(self, name: str, line: str) -> None:
        path = self.folder / f"{name}{LINES}"
        try:
            self.open()
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unwritable(path, error) from error

    def line_names(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob(f"*{LINES}"))

    def open(self) -> None:
        """Make the folder, if it is not there."""
        if self._own.open():
            write_json(self.folder / JOB, self._job)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{PARTS}"


def _unwritable(path: Path, error: Exception) -> UserError:
    reason = "no space left on its disk" if is_disk_full(error) else f"cannot be written: {error}"
    return UserError(f"{path}: {reason}; what was finished before it is kept")


def checkpoint_folder(output: Path) -> Path:
    """Where the finished parts of a run into `output` are kept until it is whole."""
    return place_of(output).beside("progress")


def open_checkpoint(output: Path, job: Mapping[str, Any], *, resume: bool, force: bool) -> Checkpoint:
    """The checkpoint of a run into `output`: the one that a killed run left, or a new one.

    Args:
        job: everything that decides the result, ready for JSON; a run is resumed by its equal only.
        resume: go on with what is there.
        force: throw away what is there, if not `resume`.

    Raises:
        UserError: something is there and neither was asked for, or it belongs to another job.
    """
    folder = checkpoint_folder(output)
    if not folder.exists():
        return Checkpoint(folder, job)
    check_progress_folder(folder)
    names = {path.name for path in folder.iterdir()}
    if any(name.endswith((PARTS, LINES)) for name in names) and JOB in names:
        if not resume and not force:
            raise UserError(
                f"{folder}: holds the finished part of a run that was stopped; go on with --resume, "
                f"or start anew with --force"
            )
        if resume:
            _check_same(folder / JOB, read_json(folder / JOB), dict(job))
            return Checkpoint(folder, job)
    remove_progress_folder(folder)
    return Checkpoint(folder, job)


def open_shared_checkpoint(
    ranks: Ranks, output: Path, job: Mapping[str, Any], *, resume: bool, force: bool
) -> Checkpoint:
    """As `open_checkpoint`, which the first rank does; the others join it there.

    Raises:
        UserError: as `open_checkpoint`, in the first rank.
    """
    if ranks.is_first:
        checkpoint = open_checkpoint(output, job, resume=resume, force=force)
    ranks.wait()
    return checkpoint if ranks.is_first else Checkpoint(checkpoint_folder(output), job)


def _check_same(record: Path, kept: dict[str, Any], job: dict[str, Any]) -> None:
    """Raise a `UserError` that names the first thing in which the two jobs differ."""
    for key, before, now in differences(kept, json.loads(json.dumps(job))):
        raise UserError(
            f"{record}: {key} was {before!r} and is {now!r} now, so the run cannot go on; give the same "
            f"command, or start anew with --force instead of --resume"
        )


def remove_checkpoint(checkpoint: Checkpoint) -> None:
    """Remove the finished parts once the result is whole."""
    remove_progress_folder(checkpoint.folder)
