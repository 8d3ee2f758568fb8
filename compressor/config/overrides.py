"""Values in place of a recipe's: `--set prune.sparsity=0.75`, read before the recipe is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compressor.config.yaml_text import parse_yaml
from compressor.errors import UserError, read_all
from compressor.options import shown


@dataclass(frozen=True)
class Override:
    """A value for one key of a recipe.

    Attributes:
        given_as: how a person gave it, for errors.
    """

    path: tuple[str, ...]
    value: Any
    given_as: str


def parse_override(text: str) -> Override:
    """Read `KEY=VALUE`: the key with dots between its parts, the value in YAML.

    Raises:
        UserError: another form, or no YAML.
    """
    key, separator, value = text.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not separator or not all(path):
        raise UserError(f"--set {text}: write KEY=VALUE, such as prune.sparsity=0.75")
    parsed, _ = parse_yaml(value, f"--set {key}")
    return Override(path, parsed, f"--set {text}")


def parse_overrides(texts: Sequence[str]) -> list[Override]:
    """Read several of `KEY=VALUE`.

    Raises:
        UserError: all that cannot be read.
    """
    return read_all("--set", parse_override, texts)


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[Override]) -> dict[str, Any]:
    """`values` with each override in its place; sections that are not there are made.

    Raises:
        UserError: an override's key leads through a value that has no keys.
    """
    changed = dict(values)
    for override in overrides:
        section = changed
        for depth, part in enumerate(override.path[:-1], start=1):
            inner = section.get(part)
            if inner is not None and not isinstance(inner, dict):
                key = ".".join(override.path[:depth])
                raise UserError(
                    f"{override.given_as}: {key} is {shown(inner)}, which has no keys; set it as a whole"
                )
            section[part] = dict(inner or {})
            section = section[part]
        section[override.path[-1]] = override.value
    return changed


def override_behind(location: Sequence[Any], overrides: Sequence[Override]) -> Override | None:
    """The last override of the value at `location`, of something within it or around it; None without."""
    place = tuple(map(str, location))
    for override in reversed(overrides):
        common = min(len(place), len(override.path))
        if place[:common] == override.path[:common]:
            return override
    return None
