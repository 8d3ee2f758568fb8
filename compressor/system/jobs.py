"""What a stage is asked for, compared with what an earlier run was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from compressor.options import RunConfig
from compressor.options.section import shown
from compressor.system.differences import differences
from compressor.system.environment import describe_environment

MOST_CHANGES = 3


@dataclass(frozen=True)
class Job:
    """What a stage is asked for.

    Attributes:
        decides: all that decides the result, ready for JSON; equal ones end alike.
        sources: where inputs were read from, by their key in `decides`; for messages.
        machine: where the stage works; recorded.
    """

    decides: Mapping[str, Any]
    sources: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)


def describe_machine(run: RunConfig) -> dict[str, Any]:
    """What of the environment does not decide a result."""
    kept = describe_environment(run)
    return {name: value for name, value in kept.items() if name not in ("device", "packages")}


def changes(
    before: Mapping[str, Any], now: Mapping[str, Any], sources: Mapping[str, str] | None = None
) -> list[str]:
    """In what two things that decide a result differ, in words: the first three, and how many more.

    Args:
        sources: where inputs are read from now.
    """
    found = [_in_words(*change, sources or {}) for change in differences(before, now)]
    more = [f"{len(found) - MOST_CHANGES} more"] if len(found) > MOST_CHANGES else []
    return [*found[:MOST_CHANGES], *more]


def _in_words(key: str, before: Any, now: Any, sources: Mapping[str, str]) -> str:
    """What changed, as people name it."""
    if key == "code":
        return "the code of compress changed"
    if key.startswith("registered.") and key.endswith(".code"):
        option = key.removeprefix("registered.").removesuffix(".code")
        return f"the code of the package that registers {option} changed"
    name = key.removesuffix(".content").removeprefix("resources.")
    if key.endswith(".content"):
        place = f" ({sources[name]})" if name in sources else ""
        return f"the content of {name}{place} changed"
    return f"{key.removeprefix('packages.')} changed from {shown(before)} to {shown(now)}"
