"""Which links of a directory may be followed: within it, and those of the Hugging Face cache.

The cache keeps `REPOSITORY/blobs/DIGEST`, and in `REPOSITORY/snapshots/REVISION` links to them.
"""

from __future__ import annotations

from pathlib import Path


def is_own_file(directory: Path, name: str) -> bool:
    """Whether a name leads into the directory, or from a cached snapshot to a blob of its repository.

    False for any other link, absolute names and those with `..`; whether there is a file is not asked.

    Args:
        name: relative to `directory`.

    Raises:
        OSError, RuntimeError, ValueError: a loop of links, or a name that no file can have.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return False
    root, found = directory.resolve(), (directory / name).resolve()
    if found.is_relative_to(root):
        return True
    return root.parent.name == "snapshots" and found.parent == root.parent.parent / "blobs"
