"""Prune text classifiers, attack them, export them and prove what the exported artifact does.

`compressor.prune`, `compressor.export` and the others are in `compressor.api`, which is imported when one of
them is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from compressor.version import __version__

if TYPE_CHECKING:
    from compressor.api import (
        GateFailed,
        UserError,
        attack,
        export,
        finetune,
        inspect,
        latency_table,
        pack,
        perturb,
        prune,
        prune_model,
        run,
        search_artifact,
        soup,
        terminal_progress,
        unpack,
        validate,
        verify,
        vocabulary,
    )
else:

    def __getattr__(name: str) -> Any:
        """Return a name of the API."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module("compressor.api"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "GateFailed",
    "UserError",
    "__version__",
    "attack",
    "export",
    "finetune",
    "inspect",
    "latency_table",
    "pack",
    "perturb",
    "prune",
    "prune_model",
    "run",
    "search_artifact",
    "soup",
    "terminal_progress",
    "unpack",
    "validate",
    "verify",
    "vocabulary",
]
