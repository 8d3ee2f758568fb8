"""In which leaves two nested mappings differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each plain value in nested mappings, with its keys joined by dots."""
    if not isinstance(value, dict):
        yield path, value
        return
    for key, part in value.items():
        yield from leaves(part, f"{path}.{key}" if path else str(key))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Key, value before and value now of each leaf that is not the same, by key; None where there is none."""
    first, second = dict(leaves(dict(before))), dict(leaves(dict(now)))
    for key in sorted(first.keys() | second.keys()):
        if first.get(key) != second.get(key):
            yield key, first.get(key), second.get(key)
