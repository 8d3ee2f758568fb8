"""What `compress` wrote: each of its directories says so in a file, and lists what is in it.

A directory is known by this file and never by the names of others, which any project may have. What the
file does not list is somebody else's: a directory that holds such a file is not replaced, and nothing
removes it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from compressor.system.durable import write_whole
from compressor.system.locks import WRITTEN_BY, is_lock
from compressor.version import __version__

MARKER = ".compress-output"
FORMAT = 1
RESULT, SCRATCH = "result", "scratch"
# What belongs to an output and is kept in it, where it cannot be kept beside it.
INNER = ".compress"
LOCK, PROGRESS, RUNS = "compress-lock", "progress", "runs"
PARTIAL, OLD = "partial", "old"
_SCRATCH_NAME = re.compile(r"\.(?P<name>.*)\.[0-9a-f]{8}\.(?P<suffix>partial|old)", re.DOTALL)


@dataclass(frozen=True)
class Marker:
    """What a directory says of itself.

    Attributes:
        kind: of directory, such as a result.
        files: what is in it: paths relative to it, with `/`.
        grows: patterns of what is added later, in which `*` stands for any characters: names of files in the
            directory, and, with `/` at the end, paths of directories that have markers of their own.
        whole: False while its files are exchanged for others.
        run: of a progress folder, by chance: tells it from one that another run made at the same place.
    """

    kind: str
    files: tuple[str, ...]
    grows: tuple[str, ...] = ()
    whole: bool = True
    run: str = ""

    def lists(self, path: str) -> bool:
        """Whether a file is listed, by its path relative to the directory."""
        added = "/" not in path and any(fnmatchcase(path, pattern) for pattern in self.grows)
        return added or path in self.files

    def lists_directory(self, path: str) -> bool:
        """Whether a directory with a marker of its own is listed, likewise."""
        added = any(fnmatchcase(f"{path}/", pattern) for pattern in self.grows)
        return added or f"{path}/{MARKER}" in self.files


def write_marker(directory: Path, marker: Marker) -> None:
    """Write a directory's marker, of a directory that is flushed to the disk later or need not be.

    Raises:
        OSError: it cannot be written.
    """
    (directory / MARKER).write_text(_text(marker), encoding="utf-8")


def replace_marker(directory: Path, marker: Marker) -> None:
    """Write a directory's marker in place of the one that is there; it is whole after a power cut, too.

    Raises:
        OSError: it cannot be written.
    """
    write_whole(directory / MARKER, _text(marker))


def _text(marker: Marker) -> str:
    facts = {
        "written_by": f"{WRITTEN_BY} {__version__}",
        "format": FORMAT,
        "kind": marker.kind,
        "whole": marker.whole,
        "files": sorted(marker.files),
        "grows": list(marker.grows),
        **({"run": marker.run} if marker.run else {}),
    }
    # Escaped: the name of a file need not be valid UTF-8.
    return json.dumps(facts, indent=2) + "\n"


def read_marker(directory: Path) -> Marker | None:
    """A directory's marker; None if it has none, or one that `compress` did not write."""
    path = directory / MARKER
    try:
        if path.is_symlink():
            return None
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return _checked(facts) if isinstance(facts, dict) else None


def _checked(facts: dict[str, Any]) -> Marker | None:
    lists = [facts.get("files"), facts.get("grows")]
    if (
        facts.get("format") != FORMAT
        or not str(facts.get("written_by", "")).startswith(f"{WRITTEN_BY} ")
        or not isinstance(facts.get("kind"), str)
        or not isinstance(facts.get("whole"), bool)
        or not all(isinstance(names, list) and all(isinstance(n, str) for n in names) for names in lists)
        or not all(_is_below(name) for name in facts["files"])
    ):
        return None
    run = str(facts.get("run", ""))
    return Marker(facts["kind"], tuple(facts["files"]), tuple(facts["grows"]), facts["whole"], run)


def _is_below(name: str) -> bool:
    """Whether a listed path cannot lead out of its directory."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts


def files_below(directory: Path) -> list[str]:
    """All files below a directory but its own marker, relative to it with `/`; links are not followed."""
    return sorted(
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if (path.is_symlink() or not path.is_dir()) and path != directory / MARKER
    )


def scratch_of(path: Path) -> tuple[str, str] | None:
    """The name that a hidden file or directory was made for, and its kind (`partial` or `old`); or None."""
    found = _SCRATCH_NAME.fullmatch(path.name)
    return (found["name"], found["suffix"]) if found else None


def is_scratch(path: Path) -> bool:
    """Whether a directory is one that a command works in, or worked in until it was killed."""
    if scratch_of(path) is None or path.is_symlink() or not path.is_dir():
        return False
    # Killed before it could write the marker.
    return read_marker(path) is not None or not any(path.iterdir())


@dataclass(frozen=True)
class Contents:
    """Files below a directory, of `compress` and of others; of a directory of others the directory alone."""

    own: list[Path]
    foreign: list[Path]


@dataclass(frozen=True)
class _Scope:
    """A directory with its marker, whose list may hold what is below it."""

    directory: Path
    marker: Marker

    def lists(self, path: Path) -> bool:
        return self.marker.lists(path.relative_to(self.directory).as_posix())

    def lists_directory(self, path: Path) -> bool:
        return self.marker.lists_directory(path.relative_to(self.directory).as_posix())

    def lists_scratch_of(self, name: str, path: Path) -> bool:
        return self.lists(path.with_name(name))


def contents(directory: Path) -> Contents:
    """Which files below a directory `compress` wrote, by its marker and by those below it.

    A directory below it is its own if the marker lists it; the marker of that one lists what is in it.
    Directories without files are of no one. Links are somebody else's, and not followed.

    Raises:
        OSError: a directory cannot be read.
    """
    found = Contents([], [])
    marker = read_marker(directory)
    if marker is None:
        found.foreign.append(directory)
    else:
        _sort(directory, (_Scope(directory, marker),), found)
    return found


def _sort(folder: Path, scopes: tuple[_Scope, ...], found: Contents) -> None:
    """Add the files below `folder` to `found`."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_dir():
            (found.own if _is_own_file(path, scopes) else found.foreign).append(path)
            continue
        marker = read_marker(path)
        if marker is None:
            _sort(path, scopes, found)
        elif is_scratch(path):
            found.own.extend(path / name for name in [*files_below(path), MARKER])
        elif is_inner(path, scopes[-1].directory) or any(scope.lists_directory(path) for scope in scopes):
            _sort(path, (*scopes, _Scope(path, marker)), found)
        else:
            found.foreign.append(path)


def _is_own_file(path: Path, scopes: Sequence[_Scope]) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    if any(path == scope.directory / MARKER or scope.lists(path) for scope in scopes):
        return True
    if path.name.endswith(f".{LOCK}"):
        return is_lock(path)
    scratch = scratch_of(path)
    # Of a file that was being replaced.
    return scratch is not None and any(
        scope.lists_scratch_of(scratch[0], path) or path.with_name(scratch[0]) == scope.directory / MARKER
        for scope in scopes
    )


def is_inner(path: Path, output: Path) -> bool:
    """Whether `path` is kept in `output` though it is no part of the result: its progress, or its lock."""
    if path.parent != output or path.is_symlink():
        return False
    if path.name == f"{INNER}.{LOCK}":
        return is_lock(path)
    kept = {f"{INNER}.{PROGRESS}", f"{INNER}.{RUNS}"}
    return (path.name in kept and read_marker(path) is not None) or is_scratch(path)


def remove_own(directory: Path, *, keep: bool = False) -> None:
    """Remove what `compress` wrote below a directory, and the directory if nothing else is in it.

    Args:
        keep: keep the directory itself, empty.

    Raises:
        OSError: something cannot be removed.
    """
    # The markers last: what is left if this is stopped is still known.
    for path in sorted(contents(directory).own, key=lambda path: (path.name == MARKER, -len(path.parts))):
        path.unlink(missing_ok=True)
    remove_empty_folders(directory, keep=keep)


def remove_empty_folders(directory: Path, *, keep: bool = False) -> None:
    """Remove all folders below a directory that hold no file, and the directory itself unless `keep`."""
    for folder, _, _ in os.walk(directory, topdown=False):
        if keep and Path(folder) == directory:
            continue
        try:
            Path(folder).rmdir()
        except OSError:
            continue


def remove_scratch(paths: Iterable[Path]) -> None:
    """Remove directories that killed commands worked in."""
    for path in paths:
        if is_scratch(path):
            shutil.rmtree(path, ignore_errors=True)


def scratch_files(directory: Path) -> Iterator[Path]:
    """What killed commands left of files that they were to put into a directory of ours."""
    marker = read_marker(directory) if directory.is_dir() else None
    if marker is None:
        return
    for path in sorted(directory.iterdir()):
        scratch = scratch_of(path)
        if scratch and marker.lists(scratch[0]) and path.is_file() and not path.is_symlink():
            yield path


def scratch_directories(folder: Path, name: str) -> Iterator[Path]:
    """What killed commands left in `folder` of their work on what is called `name` there."""
    for path in sorted(folder.iterdir()):
        found = scratch_of(path)
        if found is not None and found[0] == name and is_scratch(path):
            yield path
