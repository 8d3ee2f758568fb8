"""Columns as they stand in a data set, and what makes one a column of texts. Pure functions."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compressor.errors import UserError
from compressor.options import shown

# What an error calls the values of a type; the first that fits, so bool stands in front of int.
KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (str, "a text"),
    (bool, "true or false"),
    ((int, float, decimal.Decimal), "a number"),
    ((list, tuple), "a list"),
    (dict, "an object"),
    (bytes, "bytes"),
    ((datetime.date, datetime.time, datetime.timedelta), "a date or time"),
)


@dataclass(frozen=True)
class Table:
    """A data set's columns.

    Attributes:
        source: what the user wrote, for errors.
        names: of the columns, in their order; each is there once.
        rows: how many rows there are.
        read: gives the values of a column of that name, in rows' order: strings in csv and tsv files, else
            Python's values; bytes are strings, decoded as UTF-8.
        class_names: names of the classes of those columns that declare them, whose values are indices.
        notes: what was left out or understood in a way that the user may want to know of, a line each.
        hint: why a column may be missing, for errors; empty if there is nothing to say.
    """

    source: str
    names: list[str]
    rows: int
    read: Callable[[str], list[Any]]
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    hint: str = ""

    def texts(self, name: str) -> list[str]:
        """The texts of a column.

        Raises:
            UserError: a value that is no text, is blank, or is none that UTF-8 can write.
        """
        values = self.read(name)
        for row, value in enumerate(values, 1):
            if not isinstance(value, str) or not value.strip() or "\0" in value or not _is_unicode(value):
                raise UserError(f"{self.source}: row {row}: column {name!r} {_flaw_of_text(value)}")
        return values

    def labels(self, name: str) -> list[Any]:
        """The values of a column of labels: names instead of indices where the column declares classes.

        Missing ones are None or, as some data sets have it, -1.

        Raises:
            UserError: an index that has no name, or a text that UTF-8 cannot write.
        """
        values = self.read(name)
        for row, value in enumerate(values, 1):
            if isinstance(value, str) and not _is_unicode(value):
                raise UserError(f"{self.source}: row {row}: column {name!r} {_flaw_of_text(value)}")
        classes = self.class_names.get(name)
        return values if classes is None else self._named(name, values, classes)

    def _named(self, name: str, values: list[Any], classes: Sequence[str]) -> list[Any]:
        named = []
        for row, value in enumerate(values, 1):
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                if value >= len(classes):
                    raise UserError(
                        f"{self.source}: row {row}: column {name!r} has class {value}, but declares "
                        f"{len(classes)} classes, from 0 on: {', '.join(classes)}"
                    )
                named.append(classes[value])
            else:
                named.append(value)
        return named


def kind_of(value: Any) -> str:
    """What an error calls a value: `a list`, `a number`."""
    return next((name for types, name in KINDS if isinstance(value, types)), f"a {type(value).__name__}")


def _is_unicode(text: str) -> bool:
    """Whether a text has no half of a surrogate pair alone, which no encoding can write."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _flaw_of_text(value: Any) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        return "is empty; drop the row or fill it"
    if not isinstance(value, str):
        return f"has {kind_of(value)} and no text: {shown(value)}; write texts there, or name another column"
    if "\0" in value:
        return f"has a NUL character: {shown(value)}; take it out of the text"
    return f"has half of a surrogate pair: {shown(value)}; such text is broken, write it anew"
