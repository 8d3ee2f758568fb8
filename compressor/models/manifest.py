"""The manifest of an artifact: checksums of its files, where it is from, what is in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from compressor.errors import UserError
from compressor.models.artifact_files import ARTIFACT_CONFIG, ARTIFACT_GRAPH, EXPORT_AGAIN
from compressor.models.weight_files import VOCABULARIES
from compressor.options import RUNTIME_REGISTRY, shown
from compressor.system.files import MARKER, read_json, sha256_of, write_json
from compressor.system.links import is_own_file
from compressor.system.results import StageRecord

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
# What commands read of an exported artifact's manifest, and of which type it is.
_FACTS: dict[str, tuple[type, ...]] = {
    "labels": (list,),
    "parity.examples": (int,),
    "parity.max_difference": (int, float),
    "lineage.model": (str,),
    "lineage.weights_sha256": (str, type(None)),
}
_ABSENT = object()
PACKED_FORMAT = "packed"


def is_artifact(directory: Path) -> bool:
    """Whether a directory is an exported artifact, whole or not: it holds a graph or a manifest."""
    return (directory / MANIFEST).is_file() or (directory / ARTIFACT_GRAPH).is_file()


def list_files(directory: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file in `directory` but the manifest and markers, by its path there."""
    return {
        path.relative_to(directory).as_posix(): {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path != directory / MANIFEST and path.name != MARKER
    }


def write_manifest(directory: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write `manifest.json`: `facts`, with size and SHA-256 of every other file in `directory`."""
    manifest = {"schema_version": SCHEMA_VERSION, **facts, "files": list_files(directory)}
    write_json(directory / MANIFEST, manifest)
    return manifest


def read_manifest(directory: Path) -> dict[str, Any]:
    """Read an artifact's manifest after checking each of its files.

    Files that it does not list are let pass: people keep notes beside an artifact, and nothing loads them.

    Raises:
        UserError: no manifest, or a file that is missing, changed or outside the directory.
    """
    manifest = _load(directory)
    for problem in _problems_of_listed(directory, manifest["files"]):
        raise UserError(f"{problem}; restore it, or create the artifact again")
    return manifest


def read_artifact_manifest(directory: Path) -> dict[str, Any]:
    """As `read_manifest`, for an artifact that classifies, with the facts that its export wrote.

    Raises:
        UserError: also for a manifest without these facts, such as a packed classifier's.
    """
    manifest = read_manifest(directory)
    for key, kinds in _FACTS.items():
        value: Any = manifest
        for part in key.split("."):
            value = value.get(part, _ABSENT) if isinstance(value, dict) else _ABSENT
        if not isinstance(value, kinds):
            raise UserError(
                f"{directory / MANIFEST}: has no {key} as an exported artifact's has (a packed classifier is "
                f"restored with: compress unpack); {EXPORT_AGAIN}"
            )
    return manifest


def runtime_name(directory: Path, manifest: Mapping[str, Any]) -> str:
    """Return the name of the runtime that an artifact was exported for.

    Args:
        manifest: of the artifact in `directory`; early versions wrote no runtime, and had one alone.

    Raises:
        UserError: it is no name.
    """
    name = manifest.get("runtime", RUNTIME_REGISTRY.built_in[0])
    if not isinstance(name, str):
        raise UserError(f"{directory / MANIFEST}: runtime: is {shown(name)}, not a name; {EXPORT_AGAIN}")
    return name


def read_runtime(directory: Path) -> str:
    """As `runtime_name`, of an artifact whose files were checked before.

    Raises:
        UserError: no readable manifest.
    """
    return runtime_name(directory, _load(directory))


def check_labels(directory: Path, manifest: Mapping[str, Any], label_names: Sequence[str]) -> None:
    """Raise a `UserError` if an artifact's configuration has not the labels that were exported."""
    if manifest["labels"] != list(label_names):
        raise UserError(
            f"{directory / ARTIFACT_CONFIG}: has the labels {', '.join(label_names)}, and {MANIFEST} has "
            f"{', '.join(map(str, manifest['labels']))}; {EXPORT_AGAIN}"
        )


class VerifyRecord(StageRecord):
    """Whether an artifact is what was written.

    Attributes:
        ok: whether there is no problem.
        problems: what is changed, missing or added, a line each.
        path: the directory that was read.
    """

    ok: bool
    problems: list[str]
    path: Path = Field(exclude=True)


def verify_directory(directory: Path) -> VerifyRecord:
    """Check an artifact or a packed classifier file by file; see `artifact_problems`.

    Raises:
        UserError: no directory, or no readable manifest in it.
    """
    problems = artifact_problems(directory)
    return VerifyRecord(ok=not problems, problems=problems, path=directory)


def artifact_problems(directory: Path) -> list[str]:
    """Everything in which an artifact is not what was exported, one line each.

    A listed file that is missing, changed or outside the directory, a link that leads elsewhere than within
    it or to the Hugging Face cache's blobs, anything in the directory that is not listed, and of a packed
    classifier what it is not loaded without.

    Raises:
        UserError: no directory, or no readable manifest in it.
    """
    manifest = _load(directory)
    listed = manifest["files"]
    present = {
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    added = sorted(present - set(listed) - {MANIFEST, MARKER})
    absent = absent_files(listed) if manifest.get("format") == PACKED_FORMAT else []
    return [
        *(f"{directory / MANIFEST}: lists no {name}; it is not a complete classifier" for name in absent),
        *_problems_of_listed(directory, listed),
        *(f"{directory / name}: is not in the manifest" for name in added),
    ]


def absent_files(names: Iterable[str]) -> list[str]:
    """What a classifier's directory with files of these names lacks besides weights, to be loaded."""
    there = set(names)
    vocabulary = [] if there.intersection(VOCABULARIES) else [" and no ".join(VOCABULARIES)]
    return [*({ARTIFACT_CONFIG} - there), *vocabulary]


def _load(directory: Path) -> dict[str, Any]:
    if not directory.is_dir():
        raise UserError(f"{directory}: no such artifact directory")
    manifest: dict[str, Any] = read_json(directory / MANIFEST, EXPORT_AGAIN)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
        raise UserError(
            f"{directory / MANIFEST}: lists no files; it is no manifest of compress; {EXPORT_AGAIN}"
        )
    return manifest


def _problems_of_listed(directory: Path, files: dict[str, dict[str, Any]]) -> Iterator[str]:
    for name, entry in files.items():
        try:
            problem = _problem_of(directory, name, entry)
        except (OSError, ValueError, RuntimeError) as error:
            # Names that no file can have, loops of links, files that may not be read.
            reason = error.strerror if isinstance(error, OSError) else error
            problem = f"{directory / MANIFEST}: {name!r} cannot be read: {reason}"
        if problem:
            yield problem


def _problem_of(directory: Path, name: str, entry: Mapping[str, Any]) -> str | None:
    path = directory / name
    if not is_own_file(directory, name):
        return f"{directory / MANIFEST}: {name!r} leads out of the artifact"
    if not path.is_file():
        return f"{path}: is missing, though the manifest lists it"
    if sha256_of(path) != entry.get("sha256"):
        return f"{path}: is not the file that was exported; its sha256 differs from the manifest's"
    return None
