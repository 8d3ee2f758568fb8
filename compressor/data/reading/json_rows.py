"""JSON as rows: an object a line, a list of objects, or an object whose only key holds such a list."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from compressor.data.reading.content import open_text
from compressor.data.reading.table import Table, kind_of
from compressor.errors import UserError
from compressor.options import shown

WAY_OUT = (
    'write an object a line, such as {"text": ..., "label": ...}; pandas: '
    "to_json(orient='records', lines=True)"
)


class _Flaw(ValueError):
    """What is wrong with JSON besides its syntax."""


def read_json(path: Path, codec: str) -> Table:
    """Read a json or jsonl file. A key that a row lacks is null there.

    Raises:
        UserError: bad JSON, a key that an object has twice, or rows that are no objects.
    """
    with open_text(path, "json", codec) as stream:
        first = next((line for line in stream if line.strip()), "")
        if not first:
            raise UserError(f"{path}: is empty; it must hold at least one example")
        stream.seek(0)
        if _is_object(first):
            return _unwrapped(_table(path, _rows_of_lines(path, stream)))
        content = _parsed(path, stream.read(), None)
    if isinstance(content, dict):
        return _unwrapped(_table(path, [("the only row", content)]))
    if not isinstance(content, list):
        raise UserError(f"{path}: cannot be read as json: it is {kind_of(content)}; {WAY_OUT}")
    return _table(path, ((f"row {number}", row) for number, row in enumerate(content, 1)))


def _is_object(line: str) -> bool:
    """Whether a line is a whole object, as in a jsonl file."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return line.lstrip().startswith("{") and line.rstrip().endswith("}")


def _rows_of_lines(path: Path, stream: TextIO) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(stream, 1):
        if line.strip():
            yield f"line {number}", _parsed(path, line, number)


def _parsed(path: Path, text: str, line: int | None) -> Any:
    """The value of a piece of JSON.

    Args:
        line: its number in the file, or None if it is the whole file.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno if line is None else line}"
        raise UserError(
            f"{path}: cannot be read as json: {place}: {error.msg} (character {error.colno})"
        ) from error
    except (ValueError, RecursionError) as error:
        place = "" if line is None else f"line {line}: "
        flaw = str(error) if isinstance(error, _Flaw) else "a number of too many digits, or nested too deep"
        raise UserError(f"{path}: cannot be read as json: {place}{flaw}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Flaw(f"an object has the key {shown(twice)} twice; drop one")
    return found


def _table(path: Path, rows: Iterable[tuple[str, Any]]) -> Table:
    """Columns in the order in which their keys appear first.

    Args:
        rows: where a row is, for errors, and its content.
    """
    columns: dict[str, list[Any]] = {}
    count = 0
    for place, row in rows:
        if not isinstance(row, dict):
            raise UserError(f"{path}: {place}: is {kind_of(row)} and no object: {shown(row)}; {WAY_OUT}")
        for key, value in row.items():
            if key not in columns:
                columns[key] = [None] * count
            columns[key].append(value)
        count += 1
        if len(row) < len(columns):
            for values in columns.values():
                values.extend([None] * (count - len(values)))
    return Table(str(path), list(columns), count, columns.__getitem__)


def _unwrapped(table: Table) -> Table:
    """The rows within a single object `{"data": [{...}, ...]}`; other tables as they are.

    Raises:
        UserError: a single object that has lists or objects and no text: columns, or several data sets.
    """
    if table.rows != 1:
        return table
    row = {name: table.read(name)[0] for name in table.names}
    path = Path(table.source)
    if len(row) == 1:
        ((key, rows),) = row.items()
        if isinstance(rows, list) and rows and all(isinstance(item, dict) for item in rows):
            inner = _table(path, ((f"row {number}", item) for number, item in enumerate(rows, 1)))
            note = f"the rows are those of its only key, {shown(key)}"
            return Table(inner.source, inner.names, inner.rows, inner.read, notes=(note,))
    if row and all(isinstance(value, list | dict) for value in row.values()):
        raise UserError(f"{path}: is one object with {', '.join(map(shown, row))}, and no rows; {WAY_OUT}")
    return table
