"""What a file's bytes are: text in which encoding, or something else that goes by a wrong name."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from compressor.errors import UserError

HEAD_BYTES = 4096

# Longest first: the mark of UTF-16 begins that of UTF-32.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SPREADSHEET = "a spreadsheet; save it as 'CSV UTF-8' there"
UNPACK = "unpack it first"
PARQUET_MAGIC = b"PAR1"
SIGNATURES = (
    (PARQUET_MAGIC, "a parquet file; name it NAME.parquet"),
    (b"PK\x03\x04", f"a zip file, or {SPREADSHEET}; {UNPACK}"),
    (b"PK\x05\x06", "an empty zip file"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", SPREADSHEET),
    (b"\x1f\x8b\x08", f"compressed with gzip; {UNPACK}"),
    (b"\xfd7zXZ\x00", f"compressed with xz; {UNPACK}"),
    (b"\x28\xb5\x2f\xfd", f"compressed with zstd; {UNPACK}"),
    (b"7z\xbc\xaf\x27\x1c", f"a 7z archive; {UNPACK}"),
    (b"ARROW1", "an Arrow file; write it as parquet: Dataset.to_parquet"),
    (b"\xff\xff\xff\xff", "an Arrow stream; write it as parquet: Dataset.to_parquet"),
    (b"%PDF-", "a PDF document; give its texts as a csv file"),
    (b"SQLite format 3\x00", "an SQLite database; export its table as a csv file"),
    (b"\x93NUMPY", "an array of NumPy; write it as a csv file"),
)
TEXT_SIGNATURES = (
    (
        re.compile(rb"version https://git-lfs\.github\.com/"),
        "a Git LFS pointer and not the data; run: git lfs pull",
    ),
    (re.compile(rb"<(!doctype|html|\?xml|head|body)\b", re.IGNORECASE), "an HTML or XML page and no data"),
)
BZIP2 = re.compile(rb"BZh[1-9]1AY&SY")
JSON_ROWS = re.compile(rb'\s*(\[\s*)?\{\s*("|\})')


def head_of(path: Path) -> bytes:
    """The first bytes of a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(HEAD_BYTES)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def check_content(path: Path, kind: str, head: bytes) -> None:
    """Raise a `UserError` if a file is not what its name says.

    Args:
        kind: csv, tsv, json or parquet.
        head: the file's first bytes.
    """
    if not head.strip():
        raise UserError(f"{path}: is empty; it must hold at least one example")
    found = _foreign(kind, head)
    if found is not None:
        raise UserError(f"{path}: cannot be read as {kind}: it is {found}")
    if kind == "parquet" and not head.startswith(PARQUET_MAGIC):
        raise UserError(f"{path}: cannot be read as parquet: its first bytes are not those of a parquet file")


def _foreign(kind: str, head: bytes) -> str | None:
    """What a file is that is not of its kind, and the way out."""
    if kind == "parquet" and head.startswith(PARQUET_MAGIC):
        return None
    if BZIP2.match(head):
        return f"compressed with bzip2; {UNPACK}"
    for magic, meaning in SIGNATURES:
        if head.startswith(magic):
            return meaning
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    for pattern, meaning in TEXT_SIGNATURES:
        if pattern.match(text):
            return meaning
    if kind in ("csv", "tsv") and JSON_ROWS.match(text):
        return "JSON; name it NAME.jsonl"
    return None


def encoding_of(path: Path, head: bytes, asked: str) -> tuple[str, str | None]:
    """The codec to read a file of text with, and a note where that is not the one asked for.

    A mark at the file's start says what it is. Without one it is the encoding asked for; auto is UTF-8.

    Raises:
        UserError: UTF-16 without a mark, or a file that is UTF-8 and other text in the encoding asked for.
    """
    for mark, codec in MARKS:
        if head.startswith(mark):
            same = asked == "auto" or codec.startswith(_family(asked))
            name = codec.removesuffix("-sig").upper()
            note = f"was read as {name}, as its first bytes say, and not as {asked}"
            return codec, None if same else note
    if asked != "auto" and _family(asked) != "utf-8":
        _check_not_utf8(path, asked)
        return asked, None
    zeros = (head[0::2].count(0), head[1::2].count(0))
    if max(zeros) > len(head) // 8:
        guess = "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"
        raise UserError(
            f"{path}: has NUL bytes, as UTF-16 without a mark at its start has; save it as UTF-8, or give "
            f"--encoding {guess}"
        )
    return "utf-8", None


def _family(encoding: str) -> str:
    """`UTF8` -> `utf-8`, `utf-16-le` -> `utf-16`."""
    name = codecs.lookup(encoding).name.removesuffix("-sig")
    return re.sub(r"^(utf-\d+)-(le|be)$", r"\1", name)


def _check_not_utf8(path: Path, asked: str) -> None:
    """Raise a `UserError` if the encoding asked for would garble a file of UTF-8."""
    content = path.read_bytes()
    if b"\0" in content:
        return
    try:
        as_utf8, as_asked = content.decode(), content.decode(asked)
    except UnicodeError:
        return
    if as_utf8 != as_asked:
        raise UserError(
            f"{path}: is UTF-8, which {asked} would garble; leave --encoding out (where other files need it, "
            f"save them as UTF-8)"
        )


@contextmanager
def open_text(path: Path, kind: str, codec: str) -> Iterator[TextIO]:
    """Open a file of text; line ends stay as they are.

    Raises:
        UserError: within the context as well: the file cannot be read, or has bytes that are none of the
            encoding.
    """
    try:
        with path.open(encoding=codec, newline="") as stream:
            yield stream
    except UnicodeError as error:
        raise UserError(f"{path}: cannot be read as {kind}: {_where(path, codec)}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def _where(path: Path, codec: str) -> str:
    """What is wrong with a file's bytes, with line and offset."""
    content = path.read_bytes()
    way_out = "save it as UTF-8, or give --encoding, such as cp1252 for a file of Windows or latin-1"
    try:
        content.decode(codec)
    except UnicodeDecodeError as error:
        # Of a codec that takes a mark off, the offset is counted from behind it.
        start = error.start + (len(codecs.BOM_UTF8) if codec == "utf-8-sig" else 0)
        lines = content[:start].decode(codec, errors="ignore")
        line = len(re.findall(r"\r\n|\r|\n", lines)) + 1
        byte = content[start : start + 1].hex()
        name = codec.removesuffix("-sig").upper()
        return f"line {line}: byte 0x{byte} at offset {start} is no text in {name}; {way_out}"
    except UnicodeError as error:
        return f"{error}; {way_out}"
    return f"bytes that are no text in {codec}; {way_out}"
