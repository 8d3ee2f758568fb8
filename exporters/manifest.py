"""The manifest of an artifact: checksums of its files, where it is from, what is in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compressor.errors import UserError
from compressor.output import read_json, sha256_of, write_json
from compressor.predictors import ARTIFACT_GRAPH

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1


def is_artifact(directory: Path) -> bool:
    """Whether a directory is an exported artifact, whole or not: it holds a graph or a manifest."""
    return (directory / MANIFEST).is_file() or (directory / ARTIFACT_GRAPH).is_file()


def list_files(directory: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file in `directory` but the manifest, by its path there."""
    return {
        path.relative_to(directory).as_posix(): {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST
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
        raise UserError(problem)
    return manifest


def artifact_problems(directory: Path) -> list[str]:
    """Everything in which an artifact is not what was exported, one line each.

    A listed file that is missing, changed, a symlink or outside the directory, and anything in the
    directory that is not listed.

    Raises:
        UserError: no directory, or no readable manifest in it.
    """
    listed = _load(directory)["files"]
    present = {
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    added = sorted(present - set(listed) - {MANIFEST})
    return [
        *_problems_of_listed(directory, listed),
        *(f"{directory / name}: is not in the manifest" for name in added),
    ]


def _load(directory: Path) -> dict[str, Any]:
    if not directory.is_dir():
        raise UserError(f"{directory}: no such artifact directory")
    manifest: dict[str, Any] = read_json(directory / MANIFEST)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
        raise UserError(f"{directory / MANIFEST}: lists no files; it is no manifest of compress")
    return manifest


def _problems_of_listed(directory: Path, files: dict[str, dict[str, Any]]) -> Iterator[str]:
    for name, entry in files.items():
        path = directory / name
        if Path(name).is_absolute() or path.resolve() != directory.resolve() / name:
            yield f"{directory / MANIFEST}: {name!r} leads out of the artifact"
        elif not path.is_file():
            yield f"{path}: is missing, though the manifest lists it"
        elif sha256_of(path) != entry.get("sha256"):
            yield f"{path}: is not the file that was exported; its sha256 differs from the manifest's"
