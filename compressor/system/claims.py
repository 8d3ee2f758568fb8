"""Outputs of commands: each is claimed before the work, and appears whole or not at all after it.

A claim holds the output's lock from before the first model is loaded until the result is in place, and knows
what was at the output when the work began: what appeared there since is not replaced.
"""

from __future__ import annotations

import functools
import inspect
import os
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
from compressor.system.durable import scratch_name, sync_tree
from compressor.system.locks import hold_file, hold_folder
from compressor.system.markers import (
    OLD,
    PARTIAL,
    RESULT,
    Marker,
    files_below,
    remove_scratch,
    scratch_directories,
    scratch_files,
    write_marker,
)
from compressor.system.places import Place, check_place, identity, place_of
from compressor.system.ranks import ranks_of_environment
from compressor.system.replacing import make_scratch, put_in_place, remove_replaced
from compressor.system.signals import uninterrupted

P = ParamSpec("P")
R = TypeVar("R")

LONGEST_NAME = 255
_TRIES = 10


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
        check_place(place, force, inputs)
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
            check_place(place, force, inputs)
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
            remove_replaced(old)
    for path in list(scratch_files(place.path)):
        path.unlink(missing_ok=True)


@contextmanager
def scratch_directory(output: Path) -> Iterator[Path]:
    """Yield an empty directory to work in, for what is called `output`; it is gone when the block ends.

    One that a killed command left goes when the next one claims `output`.

    Raises:
        UserError: it cannot be made, or another command works for `output`.
    """
    with claim(output, reuses=True) as held:
        working = make_scratch(held.place, PARTIAL)
        try:
            yield working
        finally:
            with uninterrupted():
                shutil.rmtree(working, ignore_errors=True)


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
            held.found = put_in_place(held.place, held.found, working, force)
        except BaseException as error:
            with uninterrupted():
                shutil.rmtree(working, ignore_errors=True)
            if is_disk_full(error):
                raise UserError(f"{output}: no space left on its disk; nothing was written") from error
            raise


def _make_scratch_or_full(place: Place) -> Path:
    try:
        return make_scratch(place, PARTIAL)
    except OSError as error:
        if is_disk_full(error):
            raise UserError(f"{place.shown}: no space left on its disk; nothing was written") from error
        raise


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
