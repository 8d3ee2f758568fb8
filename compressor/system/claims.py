"""Outputs of commands: each is claimed before the work, and appears whole or not at all after it.

A claim holds the output's lock from before the first model is loaded until the result is in place, and knows
what was at the output when the work began: what appeared there since is not replaced.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from pydantic import BaseModel

from compressor.errors import UserError
from compressor.system.disk import check_space, is_disk_full
from compressor.system.durable import scratch_name, sync_folder, sync_tree
from compressor.system.locks import hold_file, hold_folder, is_held
from compressor.system.markers import (
    INNER,
    LOCK,
    MARKER,
    OLD,
    PARTIAL,
    PROGRESS,
    RESULT,
    SCRATCH,
    Marker,
    contents,
    files_below,
    is_inner,
    read_marker,
    remove_own,
    remove_scratch,
    replace_marker,
    scratch_directories,
    scratch_files,
    write_marker,
)
from compressor.system.ranks import ranks_of_environment
from compressor.system.signals import uninterrupted

P = ParamSpec("P")
R = TypeVar("R")

LONGEST_NAME = 255
MOST_NAMED = 3
KEPT = "kept"
_MOUNTS = Path("/proc/self/mountinfo")
_TRIES = 10


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


# What is there ----------------------------------------------------------------------------------


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
    _check(place_of(output), force, inputs)


def _check(place: Place, force: bool, inputs: Iterable[Path] = ()) -> None:
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


# Claims -----------------------------------------------------------------------------------------


@dataclass
class Claim:
    """An output that this command alone works on.

    Attributes:
        found: identity of what was there when the work began, or of the result since.
        held: closed when the claim ends.
    """

    place: Place
    found: tuple[int, ...] | None
    held: ExitStack


# Of the commands that run one in another in this thread, outermost first.
_CLAIMS: ContextVar[tuple[Claim, ...]] = ContextVar("claims", default=())


@contextmanager
def claim(
    output: Path,
    *,
    force: bool = False,
    inputs: Iterable[Path] = (),
    reuses: bool = False,
    needed_bytes: int = 0,
) -> Iterator[Claim]:
    """Hold the lock of an output, once it is sure that it may be written.

    Within another claim of the same output in the same thread it is that claim.

    Args:
        inputs: what the command reads; none of it may be in what is replaced.
        reuses: the command looks itself at what is there, and goes on with it.

    Raises:
        UserError: see `check_replaceable`; another command holds the lock; the place cannot be written, or
            its disk has less than `needed_bytes` free.
    """
    place = place_of(output)
    checks = force or not reuses
    if checks:
        _check(place, force, inputs)
    check_space(output, needed_bytes)
    for held in _CLAIMS.get():
        if held.place.path == place.path:
            yield held
            return
    _check_name(place)
    with ExitStack() as stack:
        _enter(place, stack)
        if place.path.is_dir() and not place.path.is_symlink():
            stack.enter_context(hold_folder(place.path, output))
        _clean(place)
        if checks:
            _check(place, force, inputs)
        own = Claim(place, identity(place.path), stack)
        token = _CLAIMS.set((*_CLAIMS.get(), own))
        stack.callback(_CLAIMS.reset, token)
        yield own


def _check_name(place: Place) -> None:
    """Refuse a name that leaves no room for those of what is not whole yet."""
    longest = max(scratch_name(place.name, PARTIAL), place.lock.name, key=len)
    if len(os.fsencode(longest)) > LONGEST_NAME:
        raise UserError(f"{place.shown}: the name is too long; choose another --output")


def _enter(place: Place, stack: ExitStack) -> None:
    """Make the folders above the output and hold its lock; in the end those that are empty go again."""
    for attempt in range(_TRIES):
        made = _make_parents(place)
        stack.callback(_remove_empty, made)
        try:
            stack.enter_context(hold_file(place.lock, place.shown))
        except UserError as error:
            # Another command that failed at this moment removed the folder that it had made.
            if isinstance(error.__cause__, FileNotFoundError) and attempt < _TRIES - 1:
                continue
            raise
        return


def _make_parents(place: Place) -> list[Path]:
    """Make the folders above `place.path`; return those that were new, innermost first."""
    missing = []
    parent = place.path.parent
    while not parent.exists():
        missing.append(parent)
        parent = parent.parent
    try:
        place.path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{place.shown}: cannot be written: {error.strerror}") from error
    return missing


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def has_leftovers(output: Path) -> bool:
    """Whether a killed command left something of its work on an output, or one is at work on it."""
    place = place_of(output)
    return (
        place.lock.exists()
        or any(scratch_directories(place.folder, place.name))
        or any(scratch_files(place.path))
    )


def _clean(place: Place) -> None:
    """Remove what killed commands left of their work on the output; only called under its lock.

    A result that was moved away for a new one that did not come is put back.
    """
    try:
        left = list(scratch_directories(place.folder, place.name))
    except OSError:
        # What cannot be listed can be written all the same.
        return
    for path in left:
        old = path / OLD
        if not path.name.endswith(f".{OLD}") or not old.is_dir():
            remove_scratch([path])
        elif not os.path.lexists(place.path):
            old.rename(place.path)
            remove_scratch([path])
        else:
            _remove_replaced(old)
    for path in list(scratch_files(place.path)):
        path.unlink(missing_ok=True)


def _remove_replaced(old: Path) -> None:
    """Remove a result that was moved away, and what it was moved into; what is somebody else's stays."""
    if any(old.iterdir()):
        remove_own(old)
    else:
        old.rmdir()
    if not old.exists():
        remove_scratch([old.parent])


@contextmanager
def scratch_directory(output: Path) -> Iterator[Path]:
    """Yield an empty directory to work in, for what is called `output`; it is gone when the block ends.

    One that a killed command left goes when the next one claims `output`.

    Raises:
        UserError: it cannot be made, or another command works for `output`.
    """
    with claim(output, reuses=True) as held:
        working = _make_scratch(held.place, PARTIAL)
        try:
            yield working
        finally:
            with uninterrupted():
                shutil.rmtree(working, ignore_errors=True)


def _make_scratch(place: Place, suffix: str) -> Path:
    """A new directory for what is not whole yet, with the permissions that the umask gives."""
    while True:
        working = place.folder / scratch_name(place.name, suffix)
        try:
            working.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"{place.shown}: cannot be written: {error.strerror}") from error
        try:
            write_marker(working, Marker(SCRATCH, (), whole=False))
        except BaseException:
            shutil.rmtree(working, ignore_errors=True)
            raise
        return working


# Results ----------------------------------------------------------------------------------------


@contextmanager
def atomic_directory(
    output: Path, *, force: bool = False, needed_bytes: int = 0, kind: str = RESULT, grows: Sequence[str] = ()
) -> Iterator[Path]:
    """Yield an empty directory that takes the name `output` when the block ends well, with its marker.

    On any exception it is removed and `output` is as it was. What appeared at `output` since the claim began
    is not replaced: the result is kept beside it. Where `output` cannot be exchanged, since it is a mount
    point or the working directory, files are moved into it one by one, the marker last.

    Args:
        kind, grows: of the marker.

    Raises:
        UserError: see `claim`; the disk is full or not writable; or something appeared at `output`.
    """
    with claim(output, force=force, needed_bytes=needed_bytes) as held:
        working = _make_scratch_or_full(held.place)
        try:
            yield working
            held.held.enter_context(hold_folder(working, output))
            write_marker(working, Marker(kind, tuple(files_below(working)), tuple(grows)))
            sync_tree(working)
            _put_in_place(held, working, force)
        except BaseException as error:
            with uninterrupted():
                shutil.rmtree(working, ignore_errors=True)
            if is_disk_full(error):
                raise UserError(f"{output}: no space left on its disk; nothing was written") from error
            raise


def _make_scratch_or_full(place: Place) -> Path:
    try:
        return _make_scratch(place, PARTIAL)
    except OSError as error:
        if is_disk_full(error):
            raise UserError(f"{place.shown}: no space left on its disk; nothing was written") from error
        raise


def _put_in_place(held: Claim, working: Path, force: bool) -> None:
    """Give a finished result the output's name, in place of what was there when the claim began.

    Raises:
        UserError: something else is there now; the result is kept beside it.
    """
    place = held.place
    try:
        if identity(place.path) != held.found:
            raise _AppearedError("appeared")
        if held.found is not None:
            _check_again(place, force)
        if place.is_written_into:
            _move_into(place, working)
        elif held.found is None:
            _rename_all([(working, place.path)])
        else:
            _exchange(place, working)
    except _AppearedError as appeared:
        kept = _keep(place, working)
        raise UserError(
            f"{place.shown}: {appeared} while the command worked, and is not replaced; the result is "
            f"complete and kept in {kept}"
        ) from appeared
    held.found = identity(place.path)
    sync_folder(place.path.parent)


class _AppearedError(Exception):
    """There is something at the output that was not there when the work began."""


def _check_again(place: Place, force: bool) -> None:
    try:
        _check(place, force)
    except UserError as error:
        raise _AppearedError("got other files") from error


def _exchange(place: Place, working: Path) -> None:
    """Put a result where another one is; that one is moved away first and removed after."""
    old = _make_scratch(place, OLD) / OLD
    try:
        _rename_all([(place.path, old)])
        # Nobody finds it by its name any more, so nothing is added from here on.
        if any(old.iterdir()) and contents(old).foreign:
            raise _AppearedError("got other files")
        _rename_all([(working, place.path)])
    except BaseException:
        if old.exists():
            old.rename(_free_name(place) if os.path.lexists(place.path) else place.path)
        remove_scratch([old.parent])
        raise
    sync_folder(place.path.parent)
    _remove_replaced(old)


def _move_into(place: Place, working: Path) -> None:
    """Put the files of a result into a directory that stays, in place of those of an earlier one."""
    output = place.path
    before = read_marker(output)
    new = read_marker(working)
    if new is None:
        raise RuntimeError(f"{working} has no marker")
    names = set(new.files) | set(before.files if before else ())
    container = _make_scratch(place, OLD)
    try:
        own = [] if before is None else [path for path in _tops(output) if not is_inner(path, output)]
        replace_marker(output, Marker(new.kind, tuple(names), new.grows, whole=False))
        moves = [(path, container / path.name) for path in own]
        moves += [(path, output / path.name) for path in _tops(working)]
        try:
            _rename_all(moves)
        except BaseException:
            if before is None:
                (output / MARKER).unlink(missing_ok=True)
            else:
                replace_marker(output, before)
            raise
        sync_folder(output)
        replace_marker(output, new)
    finally:
        shutil.rmtree(container, ignore_errors=True)
    shutil.rmtree(working, ignore_errors=True)


def _tops(directory: Path) -> list[Path]:
    """What is directly in a directory, but for its marker and the folder for lost files."""
    return sorted(path for path in directory.iterdir() if path.name not in (MARKER, "lost+found"))


def _rename_all(moves: Sequence[tuple[Path, Path]]) -> None:
    """Rename each first path to the second, in order, or none of them; nothing is replaced.

    Raises:
        _AppearedError: a second path exists.
    """
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in moves:
            _rename(source, target)
            done.append((source, target))
    except BaseException:
        for source, target in reversed(done):
            target.rename(source)
        raise


def _rename(source: Path, target: Path) -> None:
    if os.path.lexists(target):
        raise _AppearedError("appeared")
    try:
        # A directory replaces at most an empty one.
        source.rename(target)
    except (FileExistsError, NotADirectoryError) as error:
        raise _AppearedError("appeared") from error
    except OSError as error:
        # Some systems say so of a directory that is not empty.
        if os.path.lexists(target):
            raise _AppearedError("appeared") from error
        raise


def _keep(place: Place, working: Path) -> Path:
    """Keep a result that has no place; what was kept to go on with its making is needed no more."""
    target = _free_name(place)
    working.rename(target)
    progress = place.beside(PROGRESS)
    if read_marker(progress) is not None:
        remove_own(progress)
    sync_folder(place.folder)
    return target if place.shown.is_absolute() else Path(os.path.relpath(target))


def _free_name(place: Place) -> Path:
    """A name beside the output, or in it, that nothing has; only called under its lock."""
    for number in itertools.count(1):
        target = place.folder / f"{place.name}.{KEPT if number == 1 else f'{KEPT}-{number}'}"
        if not os.path.lexists(target):
            return target
    raise AssertionError


# Commands ---------------------------------------------------------------------------------------


def claims_output(stage: Callable[P, R]) -> Callable[P, R]:
    """Hold the claim of a stage's output while it works.

    The stage has the parameters `output` and `force`, or a `context` that holds them.
    It is refused before any work if the output cannot be written in the end, or holds what another argument
    names. Of several ranks the first one claims.
    """
    return _claiming(stage, reuses=False)


def claims_run(stage: Callable[P, R]) -> Callable[P, R]:
    """As `claims_output`, of a stage that goes on with what its output holds, unless `force` is given."""
    return _claiming(stage, reuses=True)


def _claiming(stage: Callable[P, R], reuses: bool) -> Callable[P, R]:
    signature = inspect.signature(stage)

    @functools.wraps(stage)
    def claiming(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        arguments = dict(given.arguments)
        if "context" in arguments:
            arguments |= vars(arguments.pop("context"))
        output, force = arguments.pop("output"), arguments.pop("force")
        if not ranks_of_environment().is_first:
            return stage(*args, **kwargs)
        with claim(output, force=force, inputs=list(paths_in(arguments)), reuses=reuses):
            return stage(*args, **kwargs)

    return claiming


def paths_in(value: Any) -> Iterator[Path]:
    """All paths that exist among arguments, options and what they hold."""
    if isinstance(value, str | Path):
        if os.path.lexists(value):
            yield Path(value)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from paths_in(part)
    elif isinstance(value, list | tuple | frozenset):
        for part in value:
            yield from paths_in(part)
    elif isinstance(value, BaseModel):
        yield from paths_in({name: getattr(value, name) for name in type(value).model_fields})
    elif is_dataclass(value) and not isinstance(value, type):
        yield from paths_in({field.name: getattr(value, field.name) for field in fields(value)})
