"""Packages that this one carries as the wheels that their authors published, read where they lie.

TextAttack's metadata require flair, whose metadata hold transformers below 5. No attack here needs flair, and
pip cannot be told to leave a requirement out. So TextAttack is no requirement but comes along, whole and
unchanged; what it imports, apart from flair, is required by this package.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WHEELS = Path(__file__).parent / "wheels"


def carried_wheel(package: str) -> Path | None:
    """The wheel of a package that is carried, or None."""
    return next(WHEELS.glob(f"{package}-*.whl"), None)


def carried_version(package: str) -> str | None:
    """The version of a package that is carried, or None."""
    wheel = carried_wheel(package)
    return None if wheel is None else wheel.name.split("-")[1]


@contextmanager
def importable(package: str) -> Iterator[None]:
    """Let imports find a package that is carried, before any other version of it that is installed.

    Once it is imported, its own modules are found without this.
    """
    place = str(carried_wheel(package))
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)
