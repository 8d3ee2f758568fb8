"""Rows of fields: csv with quoting, tsv without. Every row must have as many fields as the header."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from compressor.data.reading.content import open_text
from compressor.data.reading.table import Table
from compressor.errors import UserError
from compressor.options import DelimiterName, shown

DELIMITERS: dict[DelimiterName, str] = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
NAMES = {character: name for name, character in DELIMITERS.items()}
LONGEST_FIELD = 2**31 - 1

# Excel's first line, which says what separates fields.
SEPARATOR_LINE = re.compile(r'"?sep=([^"\r\n])"?[\r\n]*', re.IGNORECASE)
# What pandas calls a column that has no name.
UNNAMED = re.compile(r"Unnamed: \d+(\.\d+)?")
HEADER_HINT = "if its first line is a row of data, add a header above it, such as text and label"
WHOLE_NUMBER = re.compile(r"-?\d+")


@dataclass(frozen=True)
class _Row:
    """Fields of a row.

    Attributes:
        number: of a row of data, from 1 on; 0 is the header.
        line: where it begins in the file, from 1 on.
    """

    number: int
    line: int
    fields: list[str]

    def __str__(self) -> str:
        return f"row {self.number} (line {self.line})" if self.number else f"the header (line {self.line})"


def read_csv(path: Path, codec: str, asked: DelimiterName) -> Table:
    """Read a csv file; all values are strings.

    Args:
        asked: what separates fields; auto is a comma, or what a first line `sep=` says.

    Raises:
        UserError: no header, another number of fields in a row, bad quoting, bytes that are no text.
    """
    with open_text(path, "csv", codec) as stream, _long_fields():
        first = stream.readline()
        declared = SEPARATOR_LINE.fullmatch(first)
        delimiter = _delimiter(path, asked, declared)
        lines = stream if declared else _put_back(first, stream)
        rows = _csv_rows(path, lines, delimiter, 2 if declared else 1)
        return _table(path, "csv", delimiter, rows)


def read_tsv(path: Path, codec: str) -> Table:
    """Read a tsv file, in which a quote mark is part of the text; all values are strings.

    Raises:
        UserError: no header, another number of fields in a row, quoting, bytes that are no text.
    """
    with open_text(path, "tsv", codec) as stream:
        table = _table(path, "tsv", "\t", _tsv_rows(path, stream))
        if any(re.fullmatch('".+"', name) for name in table.names):
            raise UserError(_quoted_tsv(path))
        if any(field.startswith('"') for name in table.names for field in table.read(name)):
            stream.seek(0)
            _check_not_quoted(path, stream.read())
    return table


def _put_back(first: str, rest: Iterable[str]) -> Iterator[str]:
    yield first
    yield from rest


def _delimiter(path: Path, asked: DelimiterName, declared: re.Match[str] | None) -> str:
    said = None if declared is None else declared[1]
    wanted = DELIMITERS.get(asked)
    if said is not None and wanted is not None and said != wanted:
        raise UserError(f"{path}: its first line says sep={said}, but --delimiter is {asked}; leave that out")
    return said or wanted or ","


def _is_blank(text: str) -> bool:
    """Whether a line has nothing but spaces; a tab may separate fields."""
    return not text.strip(" \r\n")


def _tsv_rows(path: Path, stream: TextIO) -> Iterator[_Row]:
    number = 0
    for line, text in enumerate(stream, 1):
        _check_no_nul(path, text, line)
        fields = [] if _is_blank(text) else text.rstrip("\r\n").split("\t")
        yield _Row(number, line, fields)
        number += bool(fields)


def _csv_rows(path: Path, lines: Iterable[str], delimiter: str, line: int) -> Iterator[_Row]:
    """Rows of a csv file, with those of no fields where a line is empty.

    Args:
        line: number of the first of `lines`.
    """
    raw: list[str] = []

    def recorded() -> Iterator[str]:
        for text in lines:
            _check_no_nul(path, text, line + len(raw))
            raw.append(text)
            yield text

    number = 0
    reader = csv.reader(recorded(), delimiter=delimiter, strict=True)
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            flaw = _quoting_flaw(error)
            raise UserError(f"{path}: cannot be read as csv: {_Row(number, line, [])}: {flaw}") from error
        if fields is None:
            return
        text = "".join(raw)
        row = _Row(number, line, [] if _is_blank(text) else fields)
        if '"' in text:
            _check_quotes(path, row, text, delimiter)
        yield row
        number += bool(row.fields)
        line += len(raw)
        raw.clear()


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let fields be as long as they are: Python's csv stops at 128 KiB, in the whole process."""
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _check_no_nul(path: Path, text: str, line: int) -> None:
    if "\0" in text:
        raise UserError(
            f"{path}: line {line}: has a NUL byte, which no text has; remove it, or save it again"
        )


def _quoting_flaw(error: csv.Error) -> str:
    if "end of data" in str(error):
        return "a quote mark opens here that is never closed; write one within a field as two"
    if "expected after" in str(error):
        return (
            "a quoted field goes on after its closing quote mark; write a quote mark within a field as two, "
            'not as \\", and put the whole field between quote marks'
        )
    return str(error)


def _check_quotes(path: Path, row: _Row, text: str, delimiter: str) -> None:
    """Raise a `UserError` for quoting of another dialect, which would be read as part of the text.

    Args:
        text: the row as it stands in the file.
    """
    if not any('\\"' in value or value.lstrip().startswith('"') for value in row.fields):
        return
    for value in _unquoted(text, delimiter):
        if value.lstrip().startswith('"'):
            raise UserError(
                f"{path}: {row}: has a space before a quote mark: {shown(value)}; remove the space, or put "
                f"the whole field between quote marks"
            )
        if '\\"' in value:
            raise UserError(
                f"{path}: {row}: has a quote mark escaped by a backslash: {shown(value)}; put the field "
                f"between quote marks, and write one within it as two"
            )
    swallowed = re.compile(rf'\\"{re.escape(delimiter)}[^\r\n]*[\r\n]')
    if any(swallowed.search(value) for value in row.fields):
        raise UserError(
            f'{path}: {row}: a field with \\" continues past the end of a row; write a quote mark within a '
            f'field as two, not as \\"'
        )


def _unquoted(text: str, delimiter: str) -> list[str]:
    """Those fields of a row of csv that are not quoted, as they stand there."""
    character = re.escape(delimiter)
    field = re.compile(rf'(?:"[^"]*(?:""[^"]*)*"|([^{character}\r\n]*))(?:{character}|[\r\n]+|$)')
    return [found[1] for found in field.finditer(text) if found[1]]


def _table(path: Path, kind: str, delimiter: str, rows: Iterator[_Row]) -> Table:
    """Columns of rows that all have the header's number of fields.

    Args:
        rows: the header first; rows without fields are empty lines.
    """
    header = next((row for row in rows if row.fields), None)
    if header is None:
        raise UserError(f"{path}: is empty; it must hold at least one example")
    names = [name.strip() for name in header.fields]
    _check_delimiter(path, kind, delimiter, names)
    columns: list[list[str]] = [[] for _ in names]
    blank: list[int] = []
    last = 0
    for row in rows:
        if not row.fields:
            blank.append(row.line)
            continue
        if len(row.fields) != len(names):
            raise UserError(_miscounted(path, kind, delimiter, names, row))
        if len(names) > 1 and row.fields == header.fields:
            raise UserError(f"{path}: {row}: repeats the header; were files joined? Remove the line")
        for values, value in zip(columns, row.fields, strict=True):
            values.append(value)
        last = row.line
    kept, notes = _named_columns(path, names, columns)
    within = [line for line in blank if line < last]
    if within:
        notes.append(f"empty lines were left out, {len(within)} in all, the first at line {within[0]}")
    return Table(str(path), list(kept), len(columns[0]), kept.__getitem__, {}, tuple(notes), HEADER_HINT)


def _check_delimiter(path: Path, kind: str, delimiter: str, names: Sequence[str]) -> None:
    """Raise a `UserError` if the header is one name that another character separates."""
    found = next((c for c in NAMES if len(names) == 1 and c != delimiter and c in names[0]), None)
    if found is None:
        return
    way_out = f"give --delimiter {NAMES[found]}"
    if kind == "tsv":
        way_out = "name it .csv" if found == "," else f"name it .csv and {way_out}"
    raise UserError(
        f"{path}: the header is one column, {shown(names[0])}, which seems to be separated by "
        f"{NAMES[found]}; {way_out}"
    )


def _miscounted(path: Path, kind: str, delimiter: str, names: Sequence[str], row: _Row) -> str:
    if kind == "tsv":
        way_out = "a tsv has no quoting, so take tabs and line ends out of texts, or save it as csv or jsonl"
    elif len(row.fields) > len(names) and not any(row.fields[len(names) :]):
        way_out = f"take the {NAMES.get(delimiter, delimiter)} at its end out"
    else:
        way_out = f"put a field that has a {NAMES.get(delimiter, delimiter)} between quote marks"
    count = len(row.fields)
    return (
        f"{path}: {row}: has {count} field{'s' * (count != 1)}, but the header has {len(names)} "
        f"({', '.join(map(shown, names))}); {way_out}"
    )


def _named_columns(
    path: Path, names: Sequence[str], columns: Sequence[list[str]]
) -> tuple[dict[str, list[str]], list[str]]:
    """Columns by name without those that have none, and notes on these.

    Raises:
        UserError: a column that has values and no name, or two of the same name.
    """
    kept: dict[str, list[str]] = {}
    notes: list[str] = []
    for place, (name, values) in enumerate(zip(names, columns, strict=True), 1):
        what = _left_out(name, values)
        if what is not None:
            notes.append(f"column {place}, {what}, was left out")
        elif not name:
            row = next(row for row, value in enumerate(values, 1) if not WHOLE_NUMBER.fullmatch(value))
            raise UserError(
                f"{path}: column {place} has no name, but row {row} has {shown(values[row - 1])} there; name "
                f"it in the header, or drop it; {HEADER_HINT}"
            )
        elif name in kept:
            raise UserError(
                f"{path}: two columns have the same name, {shown(name)}; rename one; {HEADER_HINT}"
            )
        else:
            kept[name] = values
    if not kept:
        raise UserError(f"{path}: no column has a name; name them in its first line")
    return kept, notes


def _left_out(name: str, values: Sequence[str]) -> str | None:
    """What a column is that no one can mean: pandas' index, or one without name and values."""
    if name and not UNNAMED.fullmatch(name):
        return None
    if not any(values):
        return "which has no values"
    if all(WHOLE_NUMBER.fullmatch(value) for value in values):
        return "an index without a name, as pandas writes it"
    return None


def _check_not_quoted(path: Path, content: str) -> None:
    """Raise a `UserError` for a tsv that was written with quoting, as pandas does.

    It was if reading it with quotes and writing it with those that it needs gives the same file. A file of
    texts with quote marks of their own does not come back like that.
    """
    lines = content.replace("\r\n", "\n").replace("\r", "\n")
    written = io.StringIO()
    writer = csv.writer(written, delimiter="\t", lineterminator="\n")
    with _long_fields():
        try:
            writer.writerows(csv.reader(io.StringIO(lines, newline=""), delimiter="\t", strict=True))
        except csv.Error:
            return
    if written.getvalue().rstrip("\n") == lines.rstrip("\n"):
        raise UserError(_quoted_tsv(path))


def _quoted_tsv(path: Path) -> str:
    return (
        f"{path}: is quoted, as pandas writes it, but a tsv has no quoting here; name it .csv and give "
        f"--delimiter tab"
    )
