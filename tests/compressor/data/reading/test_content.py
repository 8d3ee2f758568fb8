"""What a file is by its bytes: encodings, and files that go by a wrong name."""

import bz2
import gzip
import lzma
import os
import zipfile

import pyarrow
import pyarrow.parquet
import pytest
from pydantic import ValidationError
from refusal import refused

from compressor.data.texts import load_text_data
from compressor.errors import UserError
from compressor.options import ColumnsConfig

TEXTS = ["größe €", "naïve"]
CONTENTS = {
    "csv": "text,label\ngröße €,x\nnaïve,y\n",
    "tsv": "text\tlabel\ngröße €\tx\nnaïve\ty\n",
    "jsonl": '{"text": "größe €", "label": "x"}\n{"text": "naïve", "label": "y"}\n',
    "json": '[{"text": "größe €", "label": "x"},\n {"text": "naïve", "label": "y"}]\n',
}


@pytest.fixture
def load(tmp_path):
    """Load a file of these bytes."""

    def loaded(content, name, **columns):
        path = tmp_path / name
        path.write_bytes(content)
        return load_text_data(str(path), ColumnsConfig(**columns), "train")

    return loaded


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode_is_read_by_its_mark(load, kind, codec):
    data = load(CONTENTS[kind].encode(codec), f"data.{kind}")
    assert (data.texts, data.label_names, data.notes) == (TEXTS, ["x", "y"], ())
    big = b"\xfe\xff" + CONTENTS[kind].encode("utf-16-be")
    assert load(big, f"data.{kind}").texts == TEXTS


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("codec", ["cp1252", "iso8859-15", "utf-16-le", "utf-16-be", "gb18030"])
def test_an_encoding_without_a_mark_must_be_given(load, kind, codec):
    content = CONTENTS[kind].replace("ö", "é").replace("ß", "é").replace("ï", "é").encode(codec)
    expected = [text.replace("ö", "é").replace("ß", "é").replace("ï", "é") for text in TEXTS]
    assert load(content, f"data.{kind}", encoding=codec).texts == expected
    refused(load, content, f"data.{kind}", "--encoding")


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_bytes_that_are_no_text_are_named_with_line_and_offset(load, kind, mark):
    content = mark + CONTENTS[kind].encode().replace("ï".encode(), b"\xef")
    place = content.rindex(b"na\xefve") + 2
    refused(load, content, f"data.{kind}", f"byte 0xef at offset {place}", "--encoding", "line ")


def test_a_line_of_broken_bytes_is_counted_in_files_of_all_systems(load):
    for end in (b"\n", b"\r\n", b"\r"):
        refused(load, end.join([b"text,label", b"a,x", b"\xff,y"]), "data.csv", "line 3: byte 0xff")


def test_a_character_that_the_file_ends_within_is_refused(load):
    refused(load, "text,label\na,ß".encode()[:-1], "data.csv", "line 2: byte 0xc3")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "gb18030"])
def test_an_encoding_that_would_garble_utf8_is_refused(load, encoding):
    refused(load, "text,label\ngröße,x\nb,y\n".encode(), "data.csv", "is UTF-8", encoding=encoding)
    assert load(b"text,label\na,x\nb,y\n", "data.csv", encoding=encoding).texts == ["a", "b"]


def test_a_mark_is_believed_before_the_option_with_a_note(load):
    data = load(CONTENTS["csv"].encode("utf-8-sig"), "data.csv", encoding="latin-1")
    assert data.texts == TEXTS
    assert data.notes == ("was read as UTF-8, as its first bytes say, and not as latin-1",)
    assert load(CONTENTS["csv"].encode("utf-8-sig"), "data.csv", encoding="utf8").notes == ()


@pytest.mark.parametrize("name", ["utf-99", "", "hex", "rot13", "unicode_escape", "idna", "a\0b"])
def test_an_encoding_that_is_none_is_refused_as_an_option(name):
    with pytest.raises(ValidationError, match="cp1252 or latin-1"):
        ColumnsConfig(encoding=name)


def parquet_bytes(tmp_path):
    path = tmp_path / "table"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "label": ["x"]}), path)
    return path.read_bytes()


def zip_bytes(tmp_path):
    path = tmp_path / "archive"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.csv", "text,label\na,x\n")
    return path.read_bytes()


FOREIGN = {
    "gzip": (gzip.compress(b"text,label\na,x\n"), "compressed with gzip; unpack it first"),
    "bzip2": (bz2.compress(b"text,label\na,x\n"), "compressed with bzip2"),
    "xz": (lzma.compress(b"text,label\na,x\n"), "compressed with xz"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), "a spreadsheet; save it as 'CSV UTF-8'"),
    "zip": (zip_bytes, "a zip file, or a spreadsheet; save it as 'CSV UTF-8'"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n",
        "a Git LFS pointer and not the data; run: git lfs pull",
    ),
    "html": (b"\n<!DOCTYPE html><html><body>404, not found</body></html>", "an HTML or XML page"),
    "html in utf-8 with a mark": (b"\xef\xbb\xbf<html lang='en'>", "an HTML or XML page"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an HTML or XML page"),
    "pdf": (b"%PDF-1.7\n", "a PDF document"),
}


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "parquet"])
@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_file_of_another_kind_is_named_whatever_its_suffix(load, tmp_path, kind, foreign):
    content, meaning = FOREIGN[foreign]
    if callable(content):
        content = content(tmp_path)
    refused(load, content, f"data.{kind}", meaning)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json"])
def test_parquet_by_another_name_is_named(load, tmp_path, kind):
    refused(load, parquet_bytes(tmp_path), f"data.{kind}", "a parquet file; name it NAME.parquet")


@pytest.mark.parametrize("kind", ["csv", "tsv"])
@pytest.mark.parametrize("content", [CONTENTS["jsonl"], CONTENTS["json"], '[\n  {\n "text": "a"'])
def test_json_by_another_name_is_named(load, kind, content):
    refused(load, content.encode(), f"data.{kind}", "JSON; name it NAME.jsonl")


def test_csv_by_another_name_is_refused(load):
    refused(load, CONTENTS["csv"].encode(), "data.jsonl", "cannot be read as json: line 1")
    refused(load, CONTENTS["csv"].encode(), "data.parquet", "cannot be read as parquet")


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "parquet"])
@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"  \r\n\t\n", b"\xef\xbb\xbf", b"\xff\xfe", b"\xef\xbb\xbf\n"]
)
def test_a_file_of_nothing_is_empty(load, kind, content):
    if kind == "parquet" and content.strip():
        refused(load, content, f"data.{kind}", "cannot be read as parquet")
    else:
        refused(load, content, f"data.{kind}", "is empty")


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("data.xlsx", "save it as 'CSV UTF-8'"),
        ("data.ods", "save it as 'CSV UTF-8'"),
        ("data.csv.gz", "unpack it first"),
        ("data.zip", "unpack it first"),
        ("data.arrow", "write it as parquet"),
        ("data.pkl", "a pickle"),
        ("data.txt", "name it .csv or .tsv"),
        ("data.ndjson", "name it .jsonl"),
        ("data", "known are .csv"),
    ],
)
def test_an_unknown_suffix_has_a_way_out(load, name, way_out):
    refused(load, b"text,label\na,x\n", name, "unknown kind of file", way_out)


@pytest.mark.parametrize("name", ["none.csv", "none.xlsx", "none.csv.gz"])
def test_a_missing_file_of_any_known_suffix_is_no_hub_id(tmp_path, name):
    with pytest.raises(UserError, match=r"no such file$"):
        load_text_data(str(tmp_path / name), ColumnsConfig(), "train")


def test_what_is_no_regular_file_is_refused(tmp_path):
    (tmp_path / "data.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    for path, what in (
        ("data.csv", "a directory"),
        ("pipe.csv", "no regular file"),
        ("/dev/null", "no regular"),
    ):
        with pytest.raises(UserError, match=f"is not a file but {what}"):
            load_text_data(str(tmp_path / path), ColumnsConfig(), "train")
