"""Prove that this machine runs an artifact as it was exported, without PyTorch."""

from __future__ import annotations

from pathlib import Path

from compressor.errors import UserError
from compressor.models.manifest import MANIFEST, PACKED_FORMAT, VerifyRecord, verify_directory
from compressor.models.portable.check_host import CheckError, HostCheck, check_host
from compressor.system.files import read_json


class HostRecord(VerifyRecord):
    """Whether an artifact is what was written, and gives here the answers that it was recorded with.

    Attributes:
        host: what was compared; None where files have problems, which are not run.
    """

    host: HostCheck | None


def verify_host(directory: Path) -> HostRecord:
    """Check an artifact file by file, and then its answers on this machine; see `check_host`.

    Raises:
        UserError: no artifact, a packed classifier, or one without recorded answers.
    """
    record = verify_directory(directory)
    if read_json(directory / MANIFEST).get("format") == PACKED_FORMAT:
        raise UserError(
            f"{directory}: is a packed classifier, which has no graph to run; restore it with: compress "
            f"unpack, and export it with: compress export"
        )
    if not record.ok:
        return HostRecord(ok=False, problems=record.problems, path=directory, host=None)
    try:
        found = check_host(directory)
    except CheckError as error:
        raise UserError(str(error)) from error
    return HostRecord(ok=not found.problems, problems=found.problems, path=directory, host=found)
