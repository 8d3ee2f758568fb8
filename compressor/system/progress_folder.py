"""Folders for what a command keeps until its result is whole: known by a marker, and each of one run."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

from compressor.errors import UserError
from compressor.system.markers import PROGRESS, Marker, contents, read_marker, remove_own, write_marker


class ProgressFolder:
    """A folder that one run makes, or goes on with, and that no other run takes from it unnoticed.

    Args:
        path: where; made by `open`.
        grows: patterns of the files that will be in it, see `Marker`.
    """

    def __init__(self, path: Path, grows: Sequence[str]) -> None:
        self.path = path
        self._grows = tuple(grows)
        self._run: str | None = None

    def open(self) -> bool:
        """Make the folder, if it is not there; return whether it was made.

        Raises:
            UserError: see `check`.
            OSError: it cannot be made.
        """
        self.check()
        if self.path.exists() and any(self.path.iterdir()):
            return False
        self.path.mkdir(parents=True, exist_ok=True)
        self._run = secrets.token_hex(8)
        write_marker(self.path, Marker(PROGRESS, (), self._grows, run=self._run))
        return True

    def check(self) -> None:
        """Raise a `UserError` if the folder is not that of this run any more."""
        marker = read_marker(self.path)
        found = marker.run if marker is not None else ""
        if self._run is None:
            self._run = found if self.path.exists() else None
        elif found != self._run:
            raise UserError(
                f"{self.path}: was removed while this command worked, or another one was started there; this "
                f"one cannot continue"
            )


def check_progress_folder(path: Path) -> None:
    """Raise a `UserError` if a folder is there that holds what no run of `compress` kept in it."""
    if not path.exists() or not any(path.iterdir()):
        return
    foreign = [file.relative_to(path).as_posix() or "." for file in contents(path).foreign]
    if read_marker(path) is None or foreign:
        what = f" (it holds {foreign[0]})" if foreign and foreign[0] != "." else ""
        raise UserError(f"{path}: exists and is no checkpoint{what}; remove it, or choose another --output")


def remove_progress_folder(path: Path) -> None:
    """Remove what runs kept in a folder, and the folder if nothing else is in it."""
    if not path.exists():
        return
    if any(path.iterdir()):
        remove_own(path)
    else:
        path.rmdir()
