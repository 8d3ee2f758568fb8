"""Columns of parquet files and of data sets of the hub: their types decide what they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.data.reading.table import Table
from compressor.errors import UserError, first_line

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

# Where `datasets` keeps its features within an Arrow schema.
FEATURES_KEY = b"huggingface"


def read_parquet(path: Path) -> Table:
    """Read a parquet file; a column's values are read when they are asked for.

    Raises:
        UserError: no parquet file, or two columns of the same name.
    """
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        schema = file.schema_arrow
        rows = file.metadata.num_rows
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as parquet: {first_line(error)}") from error
    names = list(schema.names)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: two columns have the same name, {twice!r}; rename one")

    def read(name: str) -> list[Any]:
        try:
            column = file.read(columns=[name]).column(name)
        except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{path}: cannot be read as parquet: column {name!r}: {first_line(error)}"
            ) from error
        return _values(str(path), name, column)

    return Table(str(path), names, rows, read, _declared_classes(path, schema.metadata or {}))


def read_dataset(source: str, dataset: Dataset) -> Table:
    """Take the columns of a data set of the hub.

    Args:
        source: what the user wrote.
    """
    classes = {
        name: feature.names
        for name, feature in dataset.features.items()
        if getattr(feature, "names", None) is not None
    }

    def read(name: str) -> list[Any]:
        table = dataset.select_columns([name]).with_format("arrow")[:]
        return _values(source, name, table.column(name))

    return Table(source, list(dataset.column_names), len(dataset), read, classes)


def _values(source: str, name: str, column: pyarrow.ChunkedArray) -> list[Any]:
    """Python's values of a column; bytes are decoded.

    Raises:
        UserError: bytes that are no UTF-8, with their row, or values that Python has no type for.
    """
    import pyarrow

    kind = column.type.value_type if pyarrow.types.is_dictionary(column.type) else column.type
    try:
        values = column.to_pylist()
    except UnicodeDecodeError:  # Arrow does not check what a file says are strings
        values = column.cast(pyarrow.large_binary()).to_pylist()
        return _decoded(source, name, values)
    except (pyarrow.ArrowException, ValueError, ArithmeticError, KeyError) as error:
        raise UserError(f"{source}: column {name!r} of type {kind}: {first_line(error)}") from error
    return _decoded(source, name, values) if _is_binary(kind) else values


def _is_binary(kind: pyarrow.DataType) -> bool:
    import pyarrow.types as types

    return any(
        is_kind(kind)
        for is_kind in (
            types.is_binary,
            types.is_large_binary,
            types.is_fixed_size_binary,
            types.is_binary_view,
        )
    )


def _decoded(source: str, name: str, values: Sequence[bytes | None]) -> list[str | None]:
    decoded: list[str | None] = []
    for row, value in enumerate(values, 1):
        if value is None:
            decoded.append(None)
            continue
        try:
            decoded.append(value.decode())
        except UnicodeDecodeError as error:
            raise UserError(
                f"{source}: row {row}: column {name!r} has bytes that are no text in UTF-8 (byte "
                f"0x{value[error.start]:02x} at offset {error.start}); decode them before they are written"
            ) from error
    return decoded


def _declared_classes(path: Path, metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Names of classes of the columns that `datasets` wrote as `ClassLabel`."""
    if FEATURES_KEY not in metadata:
        return {}
    try:
        features = json.loads(metadata[FEATURES_KEY])["info"]["features"]
        return {
            name: [str(label) for label in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: the classes that its metadata declares cannot be read ({first_line(error)}); write the "
            f"file again"
        ) from error
