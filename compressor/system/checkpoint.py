"""Finished parts of a long stage, kept on disk, so that a killed run can go on behind the last one."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compressor.errors import UserError
from compressor.system.claims import claim, has_leftovers
from compressor.system.context import Context
from compressor.system.files import (
    is_disk_full,
    place_of,
    read_json,
    read_tensors,
    sync_file,
    sync_folder,
    write_json,
    write_whole,
)
from compressor.system.jobs import Job, changes
from compressor.system.progress_folder import ProgressFolder, check_progress_folder, remove_progress_folder
from compressor.system.ranks import Ranks

JOB = "job.json"
# Of what job.json holds; what another version left is not gone on with.
FORMAT = 2
PARTS, LINES = ".safetensors", ".jsonl"
# Folders with results of stages within the stage.
STAGES = ".stages"
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

    def note(self, line: str) -> None:
        """Show one line on what is kept."""
        del line


class Checkpoint(NoCheckpoint):
    """Keeps each part as one safetensors file, which appears whole or not at all, and lines in text files.

    A part that is damaged, as by a power cut, is none: the log says so, and what asks for it makes it again.

    Args:
        folder: where; is made with the first part.
        job: everything that decides the result, ready for JSON; is kept beside the parts.
        log: shows one line.
        earlier: machines on which parts were made, other than this one.
        keeps: names of files that others write beside the parts.
    """

    def __init__(
        self,
        folder: Path,
        job: Mapping[str, Any] | None = None,
        log: Callable[[str], None] = lambda line: None,
        earlier: Sequence[Mapping[str, Any]] = (),
        keeps: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self._own = ProgressFolder(folder, [*FILES, *keeps])
        self._log = log
        self.earlier = [dict(machine) for machine in earlier]
        self._job = dict(job or {})

    @property
    def began_on(self) -> dict[str, Any]:
        """For the record of a result, parts of which were made on other machines; empty if none were."""
        return {"began_on": self.earlier} if self.earlier else {}

    def load(self, name: str, device: torch.device | str = "cpu") -> Part | None:
        from safetensors import SafetensorError

        path = self._path(name)
        self._own.check()
        if not path.is_file():
            return None
        try:
            tensors, metadata = read_tensors(path)
            facts = json.loads(metadata["facts"])
            if metadata["checksum"] != _checksum(tensors, metadata["facts"]):
                raise ValueError("its content is not what was written")
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            self.note(f"{path}: is damaged ({error}) and made again")
            return None
        return Part({key: tensor.to(device) for key, tensor in tensors.items()}, facts)

    def save(self, name: str, part: Part) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        path = self._path(name)
        unfinished = path.with_suffix(".unfinished")
        tensors = {key: value.contiguous() for key, value in part.tensors.items()}
        try:
            self.open()
            facts = json.dumps(part.facts, allow_nan=False)
            metadata = {"facts": facts, "checksum": _checksum(tensors, facts)}
            save_file(tensors, unfinished, metadata=metadata)
            sync_file(unfinished)
            unfinished.replace(path)
            sync_folder(self.folder)
        except (OSError, SafetensorError) as error:
            raise _unwritable(path, error) from error

    def note(self, line: str) -> None:
        self._log(line)

    def remove(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def lines(self, name: str) -> list[str]:
        path = self.folder / f"{name}{LINES}"
        if not path.is_file():
            return []
        try:
            # Not splitlines: JSON leaves the line separators of Unicode as they are.
            *written, rest = path.read_bytes().split(b"\n")
            whole = [line for line in written if _is_text(line)]
            if rest or len(whole) < len(written):
                # Half of a line, as of a run that was stopped while it wrote, or what a power cut left.
                unfinished = path.with_suffix(".unfinished")
                unfinished.write_bytes(b"".join(line + b"\n" for line in whole))
                unfinished.replace(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        if len(whole) < len(written):
            self.note(f"{path}: {len(written) - len(whole)} damaged lines; what they held is made again")
        return [line.decode() for line in whole]

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


def _checksum(tensors: Mapping[str, Tensor], facts: str) -> str:
    """A CRC-32 over a part: against damage, not against people."""
    found = zlib.crc32(facts.encode())
    for name in sorted(tensors):
        content = tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        found = zlib.crc32(content.numpy().data, zlib.crc32(name.encode(), found))
    return f"{found:08x}"


def _is_text(line: bytes) -> bool:
    """Whether it can be a line that was written: after a power cut there may be zeros."""
    try:
        return "\0" not in line.decode()
    except UnicodeDecodeError:
        return False


def _unwritable(path: Path, error: Exception) -> UserError:
    reason = "no space left on its disk" if is_disk_full(error) else f"cannot be written: {error}"
    return UserError(f"{path}: {reason}; what was finished before it is kept")


def checkpoint_folder(output: Path) -> Path:
    """Where the finished parts of a run into `output` are kept until it is whole."""
    return place_of(output).beside("progress")


def open_checkpoint(
    output: Path,
    job: Job,
    *,
    resume: bool,
    force: bool,
    log: Callable[[str], None] = lambda line: None,
) -> Checkpoint:
    """The checkpoint of a run into `output`: the one that a stopped run left, or a new one.

    What was left of an equal job is always gone on with.

    Args:
        resume: never throw away what another job left, also with `force`.
        force: throw away what another job left.
        log: shows one line, as on what is gone on with, or why it is thrown away.

    Raises:
        UserError: something of another job is there and is not to be thrown away, or no checkpoint.
    """
    folder = checkpoint_folder(output)
    new = Checkpoint(folder, _record(job, [job.machine]), log)
    if not folder.exists():
        return new
    check_progress_folder(folder)
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    kept = {name for name in names if name != JOB and not name.endswith(".unfinished")}
    if kept:
        machines, other = _compare(folder / JOB, job)
        if not other:
            return _gone_on(folder, job, machines, log)
        if resume or not force:
            raise UserError(
                f"{folder}: the partial results of an interrupted run are kept there, but {other}, so this "
                f"run cannot resume it; give the same command as before, or start again with --force"
                + (" and without --resume" if resume and force else "")
            )
        log(f"{folder}: what a stopped run left is thrown away: {other}")
    remove_progress_folder(folder)
    return new


def _record(job: Job, machines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What job.json holds."""
    return {"format": FORMAT, "decides": job.decides, "sources": job.sources, "machines": list(machines)}


def _compare(path: Path, job: Job) -> tuple[list[Any], str]:
    """The machines that a kept job was on, and in words what keeps `job` from going on with it."""
    try:
        found = read_json(path)
    except UserError as error:
        return [], f"its record is damaged ({error})"
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return [], "another version of compress left it"
    before, machines = found.get("decides"), found.get("machines")
    if not isinstance(before, dict) or not isinstance(machines, list):
        return [], f"its record is damaged ({path})"
    # As it is when it was written and read.
    now = json.loads(json.dumps(job.decides))
    return machines, "; ".join(changes(before, now, job.sources))


def _gone_on(
    folder: Path, job: Job, machines: Sequence[Mapping[str, Any]], log: Callable[[str], None]
) -> Checkpoint:
    """The checkpoint of an equal job, which has been on those machines."""
    here = json.loads(json.dumps(job.machine))
    earlier = [machine for machine in machines if machine != here]
    moved = changes(machines[-1], here) if machines else []
    where = f" ({'; '.join(moved)}: sums may differ in their last bits)" if moved else ""
    log(f"Going on with what a stopped run left in {folder}{where}")
    record = _record(job, [*earlier, here])
    try:
        write_whole(folder / JOB, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise _unwritable(folder / JOB, error) from error
    return Checkpoint(folder, record, log, earlier)


def open_shared_checkpoint(ranks: Ranks, job: Job, context: Context) -> Checkpoint:
    """Open the checkpoint of a stage in the first rank; the others join it there.

    Raises:
        UserError: as `open_checkpoint`, in the first rank.
    """
    output = context.output
    if ranks.is_first:
        checkpoint = open_checkpoint(
            output, job, resume=context.resume, force=context.force, log=context.progress.log
        )
    ranks.wait()
    return (
        checkpoint if ranks.is_first else Checkpoint(checkpoint_folder(output), _record(job, [job.machine]))
    )


def remove_leftovers(output: Path) -> None:
    """Remove what killed commands left beside a whole result: their lock, their scratch, and finished parts.

    Where nothing is left nothing is touched.

    Raises:
        UserError: another command works on the output.
    """
    folder = checkpoint_folder(output)
    if has_leftovers(output) or folder.exists():
        with claim(output, reuses=True):
            remove_progress_folder(folder)


def remove_checkpoint(checkpoint: Checkpoint) -> None:
    """Remove the finished parts once the result is whole."""
    remove_progress_folder(checkpoint.folder)
