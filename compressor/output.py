"""Writing results: directories that appear whole or not at all, checksums, disk space."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Every directory that `compress` writes holds one of these; `--force` replaces no other directory.
RECORDS = (
    "training.json",
    "soup.json",
    "pruning.json",
    "robustness.json",
    "perturbations.json",
    "manifest.json",
    "report.json",
    "inspection.json",
    "recipe.yaml",
)
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def read_tensors(path: Path, device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, on `device`, and its metadata.

    Raises:
        safetensors.SafetensorError: it is no such file.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt", device=str(device)) as file:
        return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def check_replaceable(output: Path, force: bool) -> None:
    """Refuse an output that exists, unless `force` and it is a result of ours.

    Raises:
        UserError: `output` is a file, exists without `force`, or was not written by `compress`.
    """
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise UserError(f"{output}: exists and is not a directory; choose another --output")
    if not output.exists() or not any(output.iterdir()):
        return
    if not force:
        raise UserError(f"{output}: exists; choose another --output, or replace it with --force")
    if not any((output / record).is_file() for record in RECORDS):
        raise UserError(
            f"{output}: not replaced, since it holds none of the files that compress writes "
            f"({', '.join(RECORDS)}); remove it yourself, or choose another --output"
        )


def remove_result(output: Path) -> None:
    """Remove a result of ours that `check_replaceable` let pass; nothing if there is none."""
    if output.exists():
        shutil.rmtree(output)


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


@contextmanager
def atomic_directory(output: Path, *, force: bool = False, needed_bytes: int = 0) -> Iterator[Path]:
    """Yield an empty folder beside `output` that takes its name when the block ends well.

    On any exception the folder is removed and `output` is as it was. Files in it get the
    permissions that the process's umask gives.

    Raises:
        UserError: see `check_replaceable`; also when the disk is full or not writable.
    """
    check_replaceable(output, force)
    check_space(output, needed_bytes)
    made = _make_parents(output)
    try:
        working = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".partial", dir=output.parent))
    except OSError as error:
        _remove_empty(made)
        raise UserError(f"{output}: cannot be written: {error.strerror}") from error
    try:
        yield working
        working.chmod(0o777 & ~_umask())
        _replace(output, working)
    except BaseException as error:
        shutil.rmtree(working, ignore_errors=True)
        _remove_empty(made)
        if is_disk_full(error):
            raise UserError(f"{output}: no space left on its disk; nothing was written") from error
        raise


def _make_parents(output: Path) -> list[Path]:
    """Make the folders above `output`; return those that were new, innermost first."""
    missing = []
    parent = output.absolute().parent
    while not parent.exists():
        missing.append(parent)
        parent = parent.parent
    try:
        output.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror}") from error
    return missing


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _replace(output: Path, working: Path) -> None:
    if not output.exists():
        working.rename(output)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".old", dir=output.parent))
    output.rename(old / "old")
    try:
        working.rename(output)
    except BaseException:
        (old / "old").rename(output)
        old.rmdir()
        raise
    shutil.rmtree(old)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


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


def write_whole(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all, in place of what is there.

    Raises:
        OSError: it cannot be written; what is there is as it was.
    """
    working = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        working.write_text(text, encoding="utf-8")
        working.replace(path)
    except OSError:
        working.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN and infinities are refused, since JSON has none."""
    path.write_text(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, way_out: str = "") -> Any:
    """Read a JSON file.

    Args:
        way_out: what to do about a file that cannot be read, for the error.

    Raises:
        UserError: the file is missing, cannot be read or is no JSON.
    """
    end = f"; {way_out}" if way_out else ""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file{end}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}{end}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON: {error}{end}") from error


def read_json_lines(path: Path) -> list[Any]:
    """The values that `write_json_lines` wrote.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    # Not splitlines: JSON leaves the line separators of Unicode as they are.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").rstrip("\n").split("\n")]


def write_json_lines(path: Path, values: Iterable[Any]) -> None:
    """Write each value as one line of JSON."""
    text = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    path.write_text(text, encoding="utf-8")


def tree_sha256(path: Path) -> str | None:
    """A SHA-256 over a file, or over the names and contents of all files in a folder; None if there is none.

    Raises:
        OSError: it cannot be read.
    """
    if path.is_file():
        return sha256_of(path)
    if not path.is_dir():
        return None
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = [f"{sha256_of(file)}  {file.relative_to(path).as_posix()}\n" for file in files]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def json_sha256(value: Any) -> str:
    """A SHA-256 of a JSON value, in hexadecimal; the order of keys does not matter.

    Raises:
        ValueError: a number in it is not finite.
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
