"""Room on disks."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from compressor.errors import UserError

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_space(output: Path, needed_bytes: int) -> None:
    """Raise a `UserError` if the disk under `output` has less than `needed_bytes` free."""
    existing = output.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise UserError(
            f"{output}: no space: {needed_bytes / 1e6:.0f} MB are needed, "
            f"{free / 1e6:.0f} MB are free on the disk of {existing}"
        )


def is_disk_full(error: BaseException) -> bool:
    """Whether `error`, or what caused it, is a write that found no room.

    safetensors and PyArrow report the operating system's error in their text alone.
    """
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return True
    text = str(error)
    if any(f"os error {code}" in text or f"Errno {code}" in text for code in _DISK_FULL):
        return True
    return error.__cause__ is not None and is_disk_full(error.__cause__)
