"""Where an output is, and whether what is there may be replaced."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from compressor.errors import UserError
from compressor.system.locks import is_held
from compressor.system.markers import INNER, LOCK, MARKER, contents, is_inner, read_marker

MOST_NAMED = 3
_MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Place:
    """Where an output is.

    Attributes:
        shown: as it was given.
        path: absolute; links above it are resolved, and it is none.
        is_written_into: it cannot be exchanged for another directory, since it is a mount point, or the
            working directory: files are moved into it one by one.
    """

    shown: Path
    path: Path
    is_written_into: bool

    @property
    def folder(self) -> Path:
        """Where what belongs to the output is kept: its lock, its progress, what is not whole yet."""
        return self.path if self.is_written_into else self.path.parent

    @property
    def name(self) -> str:
        """What the names of all that start with, but for the dots of hidden ones."""
        return INNER.removeprefix(".") if self.is_written_into else self.path.name

    def beside(self, suffix: str) -> Path:
        """What is kept of the output besides it: `NAME.SUFFIX` beside it, or hidden in it."""
        return self.folder / f"{INNER if self.is_written_into else self.path.name}.{suffix}"

    @property
    def lock(self) -> Path:
        return self.folder / f".{self.name}.{LOCK}"


def place_of(output: Path) -> Place:
    """Where an output is: `.` and `..` are followed, a link in the last place is not.

    Raises:
        UserError: the working directory is gone, or the path may not be looked at.
    """
    try:
        here = Path(os.path.realpath(Path.cwd()))
        if output.name in ("", ".."):
            path = Path(os.path.realpath(output))
        else:
            path = Path(os.path.realpath(output.parent)) / output.name
        into = path.is_dir() and not path.is_symlink() and (path == here or is_mount_point(path))
    except FileNotFoundError as error:
        raise UserError(f"{output}: the working directory does not exist any more") from error
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror}") from error
    return Place(output, path, into)


def is_mount_point(path: Path) -> bool:
    """Whether a directory is a mount point; also one that is mounted from the same disk."""
    if os.path.ismount(path):
        return True
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    mounted = (line.split(" ")[4] for line in lines if line.count(" ") > 4)
    return str(path) in (re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), point) for point in mounted)


def is_vacant(place: Place) -> bool:
    """Whether the output is missing, or a directory with nothing in it but what belongs to the claim."""
    try:
        return all(
            is_inner(path, place.path) or (place.is_written_into and path.name == "lost+found")
            for path in place.path.iterdir()
        )
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError as error:
        raise UserError(f"{place.shown}: cannot be read: {error.strerror}") from error


def check_replaceable(output: Path, force: bool, inputs: Iterable[Path] = ()) -> None:
    """Refuse an output that exists, unless `force` and all of it was written by `compress`.

    Args:
        inputs: what the command reads.

    Raises:
        UserError: `output` is a link or a file; it exists without `force`, is not a result of ours, has files
            of others in it, is in use, or holds an input or the working directory.
    """
    check_place(place_of(output), force, inputs)


def check_place(place: Place, force: bool, inputs: Iterable[Path] = ()) -> None:
    """Refuse a place as `check_replaceable` does."""
    output, path = place.shown, place.path
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise UserError(f"{output}: exists and is not a directory; choose another --output")
    if is_vacant(place):
        return
    for given in inputs:
        if Path(os.path.realpath(given)).is_relative_to(path):
            raise UserError(f"{output}: holds {given}, which the command reads; choose another --output")
    marker = read_marker(path)
    if not force:
        state = "exists" if marker is None or marker.whole else "exists, of a command that was killed"
        raise UserError(f"{output}: {state}; choose another --output, or replace it with --force")
    if marker is None:
        raise UserError(
            f"{output}: not replaced, since it has no {MARKER}, which is in all that compress writes "
            f"(its early versions wrote none); remove it yourself, or choose another --output"
        )
    _check_contents(place)
    here = Path(os.path.realpath(Path.cwd()))
    if here != path and here.is_relative_to(path):
        raise UserError(f"{output}: holds the working directory; start the command from another one")


def _check_contents(place: Place) -> None:
    """Raise a `UserError` if something in a marked output is not of compress, or in use."""
    try:
        found = contents(place.path)
    except OSError as error:
        raise UserError(f"{error.filename or place.shown}: cannot be read: {error.strerror}") from error
    foreign = [path.relative_to(place.path).as_posix() for path in found.foreign if not _is_lost(path, place)]
    if foreign:
        more = f" and {len(foreign) - MOST_NAMED} more" if len(foreign) > MOST_NAMED else ""
        raise UserError(
            f"{place.shown}: not replaced, since compress did not write "
            f"{', '.join(foreign[:MOST_NAMED])}{more} in it; move that elsewhere, or choose another --output"
        )
    for path in found.own:
        if path.name.endswith(f".{LOCK}") and path != place.lock and is_held(path):
            raise UserError(
                f"{place.shown}: another command is writing to it ({path}); wait until it has ended"
            )


def _is_lost(path: Path, place: Place) -> bool:
    return place.is_written_into and path == place.path / "lost+found"


def identity(path: Path) -> tuple[int, ...] | None:
    """What tells a directory, and the result in it, from another one at its path; None if there is none."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    try:
        marker = (path / MARKER).lstat()
    except OSError:
        return found.st_dev, found.st_ino
    return found.st_dev, found.st_ino, marker.st_ino, marker.st_mtime_ns
