"""A finished result takes the place of what was there: whole, or not at all."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from compressor.errors import UserError
from compressor.system.durable import scratch_name, sync_folder
from compressor.system.markers import (
    MARKER,
    OLD,
    PROGRESS,
    SCRATCH,
    Marker,
    contents,
    is_inner,
    read_marker,
    remove_own,
    remove_scratch,
    replace_marker,
    write_marker,
)
from compressor.system.places import Place, check_place, identity

KEPT = "kept"


def make_scratch(place: Place, suffix: str) -> Path:
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


def put_in_place(
    place: Place, found: tuple[int, ...] | None, working: Path, force: bool
) -> tuple[int, ...] | None:
    """Give a finished result the output's name, in place of what was there when the work began.

    Args:
        found: identity of what was there.
        working: the result, with its marker.

    Returns:
        The identity of the result.

    Raises:
        UserError: something else is there now; the result is kept beside it.
    """
    try:
        if identity(place.path) != found:
            raise _AppearedError("appeared")
        if found is not None:
            _check_again(place, force)
        if place.is_written_into:
            _move_into(place, working)
        elif found is None:
            _rename_all([(working, place.path)])
        else:
            _exchange(place, working)
    except _AppearedError as appeared:
        kept = _keep(place, working)
        raise UserError(
            f"{place.shown}: {appeared} while the command worked, and is not replaced; the result is "
            f"complete and kept in {kept}"
        ) from appeared
    sync_folder(place.path.parent)
    return identity(place.path)


class _AppearedError(Exception):
    """There is something at the output that was not there when the work began."""


def _check_again(place: Place, force: bool) -> None:
    try:
        check_place(place, force)
    except UserError as error:
        raise _AppearedError("got other files") from error


def _exchange(place: Place, working: Path) -> None:
    """Put a result where another one is; that one is moved away first and removed after."""
    old = make_scratch(place, OLD) / OLD
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
    remove_replaced(old)


def _move_into(place: Place, working: Path) -> None:
    """Put the files of a result into a directory that stays, in place of those of an earlier one."""
    output = place.path
    before = read_marker(output)
    new = read_marker(working)
    if new is None:
        raise RuntimeError(f"{working} has no marker")
    names = set(new.files) | set(before.files if before else ())
    container = make_scratch(place, OLD)
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


def remove_replaced(old: Path) -> None:
    """Remove a result that was moved away, and what it was moved into; what is somebody else's stays."""
    if any(old.iterdir()):
        remove_own(old)
    else:
        old.rmdir()
    if not old.exists():
        remove_scratch([old.parent])
