"""Files that appear whole or not at all, and are still whole after a power cut.

A rename is atomic for the processes of a running machine. After a power cut it may be on the disk before
the content is, so files are flushed to the disk before their rename, and their folder after it.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What file systems answer that cannot flush a folder, such as SMB shares.
_NO_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS, errno.EACCES}
# What file systems answer that have no hard links, such as exFAT.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


def sync_file(path: Path) -> None:
    """Flush a file's content to the disk.

    Raises:
        OSError: it cannot be flushed; the disk may be full.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Flush the names in a folder to the disk, where its file system can do that.

    Raises:
        OSError: it cannot be flushed.
    """
    try:
        sync_file(path)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise


def sync_tree(path: Path) -> None:
    """Flush all files and folders below `path`, and `path` itself, to the disk.

    Raises:
        OSError: one of them cannot be flushed.
    """
    for folder, _, names in os.walk(path, topdown=False):
        for name in names:
            file = Path(folder) / name
            if not file.is_symlink():
                sync_file(file)
        sync_folder(Path(folder))


def scratch_name(name: str, suffix: str) -> str:
    """A new hidden name for what is to become `name`, such as `.name.1f0c9a2b.partial`."""
    return f".{name}.{secrets.token_hex(4)}.{suffix}"


@contextmanager
def replaced_file(path: Path, *, exclusive: bool = False) -> Iterator[Path]:
    """Yield the path of a new file beside `path` that takes its name when the block ends well.

    On any exception the new file is removed, and what is at `path` is as it was.

    Args:
        exclusive: do not replace what is at `path` by then.

    Raises:
        FileExistsError: `exclusive`, and `path` exists.
        OSError: it cannot be written.
    """
    working = path.with_name(scratch_name(path.name, "partial"))
    try:
        yield working
        sync_file(working)
        if exclusive:
            _link(working, path)
        else:
            working.replace(path)
        sync_folder(path.parent)
    finally:
        working.unlink(missing_ok=True)


def _link(working: Path, path: Path) -> None:
    """Give a file the name `path` as well, unless that exists; a rename would replace what is there."""
    try:
        os.link(working, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        working.rename(path)


def write_whole(path: Path, text: str, *, exclusive: bool = False) -> None:
    """Write a text file in UTF-8 that appears whole or not at all, in place of what is there.

    Args:
        exclusive: do not replace what is there.

    Raises:
        FileExistsError: `exclusive`, and the file exists.
        OSError: it cannot be written; what is there is as it was.
    """
    with replaced_file(path, exclusive=exclusive) as working:
        working.write_text(text, encoding="utf-8")
