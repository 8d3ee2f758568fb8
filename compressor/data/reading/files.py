"""Which reader takes a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from compressor.data.reading.content import SPREADSHEET, UNPACK, check_content, encoding_of, head_of
from compressor.data.reading.delimited import read_csv, read_tsv
from compressor.data.reading.json_rows import read_json
from compressor.data.reading.parquet import read_parquet
from compressor.data.reading.table import Table
from compressor.errors import UserError
from compressor.options import ColumnsConfig

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
# Of files that people have their data in and that no reader takes, with the way out.
OTHER_SUFFIXES = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers"), SPREADSHEET),
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".tar", ".tgz"), f"compressed; {UNPACK}"),
    **dict.fromkeys((".arrow", ".feather"), "an Arrow file; write it as parquet: Dataset.to_parquet"),
    **dict.fromkeys((".pkl", ".pickle"), "a pickle, which could run code; write it as csv, jsonl or parquet"),
    **dict.fromkeys(
        (".txt", ".tab", ".dat"), "of no certain format; name it .csv or .tsv, and see --delimiter"
    ),
    ".ndjson": "JSON, an object a line; name it .jsonl",
}


def is_data_file(path: Path) -> bool:
    """Whether a source is a file by its name or because it is there, and no id of the hub."""
    suffix = path.suffix.lower()
    return suffix in FORMATS or suffix in OTHER_SUFFIXES or path.exists()


def read_file(path: Path, columns: ColumnsConfig) -> Table:
    """Read a csv, tsv, jsonl, json or parquet file.

    Args:
        columns: encoding and delimiter.

    Raises:
        UserError: no such file, one of another kind, or one that is broken.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if not path.is_file():
        what = "a directory" if path.is_dir() else "no regular file"
        raise UserError(
            f"{path}: is not a file but {what}; give a csv, tsv, jsonl or parquet file, or a hub id"
        )
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        known = f"known are {', '.join(FORMATS)}"
        if suffix in OTHER_SUFFIXES:
            raise UserError(f"{path}: unknown kind of file; {known}. It is {OTHER_SUFFIXES[suffix]}")
        raise UserError(f"{path}: unknown kind of file; {known}")
    kind = FORMATS[suffix]
    head = head_of(path)
    check_content(path, kind, head)
    if kind == "parquet":
        return read_parquet(path)
    codec, note = encoding_of(path, head, columns.encoding)
    if kind == "csv":
        table = read_csv(path, codec, columns.delimiter)
    elif kind == "tsv":
        table = read_tsv(path, codec)
    else:
        table = read_json(path, codec)
    return table if note is None else replace(table, notes=(note, *table.notes))
