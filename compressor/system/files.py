"""Writing results: directories that appear whole or not at all, checksums, JSON."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from compressor.errors import UserError
from compressor.system.claims import (
    atomic_directory,
    claim,
    claims_output,
    claims_run,
    scratch_directory,
)
from compressor.system.disk import check_space, is_disk_full
from compressor.system.durable import replaced_file, sync_file, sync_folder, write_whole
from compressor.system.markers import MARKER, read_marker
from compressor.system.places import check_replaceable, place_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "MARKER",
    "atomic_directory",
    "check_new_file",
    "check_replaceable",
    "check_space",
    "claim",
    "claims_output",
    "claims_run",
    "is_disk_full",
    "json_sha256",
    "json_text",
    "name_of_facts",
    "place_of",
    "read_json",
    "read_json_lines",
    "read_marker",
    "read_tensors",
    "replaced_file",
    "scratch_directory",
    "sha256_of",
    "sync_file",
    "sync_folder",
    "tree_sha256",
    "write_json",
    "write_json_lines",
    "write_new_file",
    "write_whole",
]


def check_new_file(path: Path, *, force: bool) -> None:
    """Raise a `UserError` if a file may not be written: it exists and `force` is not given, or is no file."""
    if path.exists() and not (force and path.is_file()):
        way_out = "choose another name, or replace it with --force" if path.is_file() else "it is no file"
        raise UserError(f"{path}: exists; {way_out}")


def write_new_file(path: Path, text: str, *, force: bool) -> None:
    """Write a text file that appears whole or not at all.

    Raises:
        UserError: the file exists and `force` is not given, or it cannot be written.
    """
    check_new_file(path, force=force)
    try:
        write_whole(path, text, exclusive=not force)
    except FileExistsError as error:
        raise UserError(f"{path}: appeared just now; choose another name") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def read_tensors(path: Path, device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, on `device`, and its metadata.

    Raises:
        safetensors.SafetensorError: it is no such file.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt", device=str(device)) as file:
        return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def json_text(value: Any) -> str:
    """Return `value` as indented JSON; NaN and infinities are refused, since JSON has none."""
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN and infinities are refused, since JSON has none."""
    path.write_text(json_text(value), encoding="utf-8")


def read_json(path: Path, way_out: str = "") -> Any:
    """Read a JSON file.

    Args:
        way_out: what to do about a file that cannot be read, for the error.

    Raises:
        UserError: the file is missing, cannot be read or is no JSON.
    """
    end = f"; {way_out}" if way_out else ""
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file{end}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}{end}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON: {error}{end}") from error


def parse_json(text: str) -> Any:
    """The value of a JSON text, which can be written again: no number is NaN or infinite.

    Raises:
        ValueError: it is no JSON, or has halves of surrogate pairs, which no file can hold.
        RecursionError: it is nested too deeply.
    """
    value = json.loads(text, parse_constant=_refused, parse_float=_finite)
    # Only an escape can give one, and they are rare.
    if "\\ud" in text.lower():
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _refused(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits} is larger than any number of a computer")
    return number


def read_json_lines(path: Path) -> list[Any]:
    """The values that `write_json_lines` wrote.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    # Not splitlines: JSON leaves the line separators of Unicode as they are.
    return [parse_json(line) for line in path.read_text(encoding="utf-8").rstrip("\n").split("\n")]


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


def name_of_facts(kind: str, facts: Any) -> str:
    """A name of a file or directory that two things share only if their facts, a JSON value, are the same."""
    return f"{kind}-{json_sha256(facts)[:16]}"


def sha256_of(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
