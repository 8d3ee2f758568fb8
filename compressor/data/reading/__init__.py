"""Data sets as checked columns: nothing is guessed, converted or dropped without a word.

Files are csv, tsv, jsonl/json or parquet. A csv file has the usual quoting. A tsv file has none, as in
GLUE: a quote mark is part of the text.
"""

from __future__ import annotations

from compressor.data.reading.files import FORMATS, is_data_file, read_file
from compressor.data.reading.parquet import read_dataset
from compressor.data.reading.table import Table

__all__ = ["FORMATS", "Table", "is_data_file", "read_dataset", "read_file"]
