"""Where what is costly to make is kept between commands."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

from compressor.errors import UserError

VARIABLE = "COMPRESS_CACHE"


def cache_directory() -> Path:
    """`COMPRESS_CACHE`, or `compress` in the user's cache folder.

    Where that is not named and cannot be written, as in a container of any user, a temporary folder that is
    removed when this process ends.

    Raises:
        UserError: no temporary folder can be made either.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    return _writable(_of_user()) or Path(_temporary().name)


def cache_folder(*names: str) -> Path:
    """A folder within the cache, made if it is not there.

    Raises:
        UserError: it cannot be made.
    """
    folder = cache_directory().joinpath(*names)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def unwritable(path: Path, error: OSError) -> UserError:
    """What is raised where the cache cannot be written."""
    return UserError(
        f"{path}: cannot be written: {error.strerror}; set {VARIABLE} to a folder that can, or unset it"
    )


def cache_note() -> str | None:
    """What a person should know of a cache that is lost with this process; None if it is none."""
    if os.environ.get(VARIABLE) or _writable(_of_user()):
        return None
    return (
        f"no cache folder of the user's can be written; what is kept in {_temporary().name} is made anew by "
        f"the next command, unless {VARIABLE} names a folder"
    )


def _of_user() -> str | None:
    """`compress` in the user's cache folder; None for a user without a home."""
    named = os.environ.get("XDG_CACHE_HOME")
    try:
        return str((Path(named) if named else Path.home() / ".cache") / "compress")
    except RuntimeError:
        return None


@functools.cache
def _writable(name: str | None) -> Path | None:
    """The folder of that name, made if it is not there; None if it cannot be written."""
    if name is None:
        return None
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="compress-cache-", ignore_cleanup_errors=True)
    except OSError as error:
        raise UserError(
            f"no cache folder can be written: neither the user's nor one for temporary files; set "
            f"{VARIABLE}, or TMPDIR, to a folder that can"
        ) from error
