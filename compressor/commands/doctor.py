"""Whether this machine can do the main job: versions, runtimes, assets, disk, offline resources."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass

from compressor.errors import UserError
from compressor.options import RunConfig
from compressor.system.assets import QUOTES_FILE, QUOTES_PACKAGE, asset_file, encoder_directory
from compressor.system.cache import cache_folder, cache_note
from compressor.system.environment import installed_version, package_versions, resolve_device

NEEDED_DISK_BYTES = 10**9


@dataclass(frozen=True)
class Check:
    """One finding; `detail` says what was found, and what to do if it is not ok."""

    name: str
    ok: bool
    detail: str


def examine(run: RunConfig) -> list[Check]:
    """Make all checks; a failing one does not stop the others."""
    checks: dict[str, Callable[[], str]] = {
        "python": _python,
        "packages": lambda: ", ".join(f"{k} {v}" for k, v in package_versions().items()),
        "onnxruntime": _onnxruntime,
        "device": lambda: str(resolve_device(run.device)),
        "encoder for the quickstart": lambda: str(encoder_directory()),
        "texts for the quickstart": lambda: str(asset_file(QUOTES_PACKAGE, QUOTES_FILE)),
        "attacks without a network": _textattack,
        "cache folder": _cache,
    }
    return [_examine(name, check) for name, check in checks.items()]


def _examine(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except Exception as error:  # whatever it is, it is the finding
        return Check(name, False, str(error) or type(error).__name__)


def _python() -> str:
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        raise UserError(f"Python {sys.version.split()[0]}; 3.11, 3.12 and 3.13 are supported")
    return sys.version.split()[0]


def _onnxruntime() -> str:
    both = [name for name in ("onnxruntime", "onnxruntime-gpu") if installed_version(name)]
    if len(both) != 1:
        found = "both onnxruntime and onnxruntime-gpu are" if both else "no ONNX Runtime is"
        raise UserError(f"{found} installed; install exactly one of the extras cpu and gpu")
    import onnxruntime

    return f"{both[0]} {onnxruntime.__version__}: {', '.join(onnxruntime.get_available_providers())}"


def _textattack() -> str:
    from compressor.attacks.resources import import_textattack

    import_textattack()
    return "TextAttack imports, nothing is downloaded"


def _cache() -> str:
    folder = cache_folder()
    free = shutil.disk_usage(folder).free
    if free < NEEDED_DISK_BYTES:
        raise UserError(
            f"{folder}: {free / 1e9:.1f} GB free; at least {NEEDED_DISK_BYTES / 1e9:.0f} GB are needed"
        )
    return cache_note() or f"{folder}, {free / 1e9:.0f} GB free"
