"""Locks on outputs, so that two commands do not write to one place at the same time.

They are the operating system's (`flock`): a process that is suspended keeps its locks, one that ends, by
whatever signal, loses them. What a killed process leaves is a file that nobody holds; it is in no one's way.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compressor.errors import UserError
from compressor.system.signals import uninterrupted
from compressor.version import __version__

WRITTEN_BY = "compress"
_BUSY = {errno.EWOULDBLOCK, errno.EAGAIN}
# What file systems answer that have no locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
# A holder that ends at this moment removes the file; more often than a few times in a row it does not.
_TRIES = 100
_LONGEST = 4096


class InUseError(UserError):
    """Another command works on the same output."""


@contextmanager
def hold_file(lock: Path, shown: Path) -> Iterator[None]:
    """Hold the lock of `shown`, the file `lock`, which is removed when the block ends.

    Raises:
        InUseError: another process, or another thread, holds it.
        UserError: the file cannot be made, or is not a lock of compress.
    """
    descriptor = _taken(lock, shown)
    try:
        who = {"written_by": f"{WRITTEN_BY} {__version__}", "pid": os.getpid(), "host": socket.gethostname()}
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(who).encode())
        yield
    finally:
        with uninterrupted():
            # Removed while it is held: who opens it now makes a new file, who has it open looks again.
            if _is_at(descriptor, lock):
                lock.unlink(missing_ok=True)
            os.close(descriptor)


def _taken(lock: Path, shown: Path) -> int:
    """The descriptor of the lock's file, held."""
    for _ in range(_TRIES):
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(lock, flags, 0o666)
        except OSError as error:
            raise UserError(f"{shown}: cannot be written: {lock}: {error.strerror}") from error
        try:
            _flock(descriptor, lock, shown)
            if not is_lock(lock):
                raise UserError(f"{lock}: is not a lock of compress; remove it, or choose another --output")
            if _is_at(descriptor, lock):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise InUseError(_in_use(lock, shown))


def _flock(descriptor: int, lock: Path, shown: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            raise InUseError(_in_use(lock, shown)) from error
        if error.errno not in _NO_LOCKS:
            raise UserError(f"{shown}: {lock} cannot be locked: {error.strerror}") from error
        print(
            f"warning: {shown}: its file system has no locks ({error.strerror}); start no second command "
            f"with this output while this one works",
            file=sys.stderr,
        )


def _in_use(lock: Path, shown: Path) -> str:
    return (
        f"{shown}: another command is writing to it ({_holder(lock)}); wait until it has ended, or choose "
        f"another --output"
    )


def _holder(lock: Path) -> str:
    """Who holds a lock, as far as its file tells."""
    who = _content(lock) or {}
    if "pid" not in who:
        return "process unknown"
    return f"process {who['pid']} on {who.get('host', 'an unknown host')}"


def _content(lock: Path) -> dict[str, object] | None:
    """What a lock's file tells; None if it is not a lock's. An empty one was not written to yet."""
    try:
        if lock.is_symlink() or not lock.is_file() or lock.stat().st_size > _LONGEST:
            return None
        text = lock.read_text(encoding="utf-8")
        found = json.loads(text) if text else {"written_by": WRITTEN_BY}
    except (OSError, ValueError):
        return None
    is_ours = isinstance(found, dict) and str(found.get("written_by", "")).startswith(WRITTEN_BY)
    return found if is_ours else None


def is_lock(path: Path) -> bool:
    """Whether a file is a lock of compress, held or not; one that is no longer there counts as one."""
    return not os.path.lexists(path) or _content(path) is not None


def is_held(lock: Path) -> bool:
    """Whether a process holds the lock whose file this is."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _BUSY
    finally:
        os.close(descriptor)
    return False


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether `path` is the file that is open, and not one that was made since."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


@contextmanager
def hold_folder(folder: Path, shown: Path) -> Iterator[None]:
    """Hold the folder itself, where its file system has locks on folders (NFS has none).

    It is the same folder under each name that it is mounted or linked at.

    Raises:
        InUseError: another process, or another thread, holds it.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        # It may not be read; whatever is to be done with it will say so.
        yield
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InUseError(
                f"{shown}: another command is writing to it; wait until it has ended, or choose another "
                f"--output"
            ) from error
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)
