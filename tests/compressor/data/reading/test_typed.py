"""JSON, parquet and data sets of the hub: types decide what is a text, and rows are named."""

import datetime
import json

import datasets
import pyarrow
import pyarrow.parquet
import pytest
import refusal

from compressor.data.reading import read_dataset
from compressor.data.texts import load_text_data
from compressor.errors import UserError
from compressor.options import ColumnsConfig


@pytest.fixture
def load(tmp_path):
    """Load a text of JSON, or a table as parquet."""

    def loaded(content, name="data.jsonl", needs_labels=True, label_names=None, **columns):
        path = tmp_path / name
        if isinstance(content, pyarrow.Table):
            pyarrow.parquet.write_table(content, path)
        else:
            path.write_text(content, encoding="utf-8")
        return load_text_data(
            str(path), ColumnsConfig(**columns), "train", label_names=label_names, needs_labels=needs_labels
        )

    return loaded


def refused(load, content, *parts, name="data.jsonl", **options):
    refusal.refused(load, content, name, *parts, **options)


def lines(*rows):
    return "\n".join(map(json.dumps, rows)) + "\n"


# texts by type ----------------------------------------------------------------------------------

NO_TEXTS = [
    (["good", "film"], "a list"),
    ([], "a list"),
    ({"en": "good film"}, "an object"),
    (5, "a number"),
    (0.5, "a number"),
    (float("nan"), "a number"),
    (True, "true or false"),
]


@pytest.mark.parametrize(("value", "kind"), NO_TEXTS)
@pytest.mark.parametrize("column", ["text", "text_pair"])
def test_json_values_that_are_no_texts_are_refused_by_row(load, value, kind, column):
    row = {"text": "a", "text_pair": "b", "label": "x"}
    content = lines(row, {**row, "label": "y"}, {**row, column: value})
    refused(load, content, f"row 3: column '{column}' has {kind} and no text")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([["a"], ["b"]], "a list"),
        ([{"en": "a"}, {"en": "b"}], "an object"),
        ([1, 2], "a number"),
        ([True, False], "true or false"),
        ([datetime.date(2020, 1, 1)] * 2, "a date or time"),
        ([datetime.datetime(2020, 1, 1)] * 2, "a date or time"),
    ],
)
def test_parquet_columns_that_are_no_texts_are_refused_by_row(load, values, kind):
    table = pyarrow.table({"text": values, "label": ["x", "y"]})
    refused(load, table, f"row 1: column 'text' has {kind}", name="data.parquet")


STRINGS = [pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()]
BYTES = [pyarrow.binary(), pyarrow.large_binary(), pyarrow.binary(5), pyarrow.binary_view()]


@pytest.mark.parametrize(
    "kind", [*STRINGS, *BYTES, pyarrow.dictionary(pyarrow.int32(), pyarrow.string())], ids=str
)
def test_all_kinds_of_strings_and_bytes_are_texts(load, kind):
    values = ["größ", "12:30", "größ"]
    raw = [text.encode()[:5] for text in ("größ ", "12:30", "größ ")] if kind == pyarrow.binary(5) else values
    if kind == pyarrow.binary(5):
        raw = values = ["12:30", "nulls", "12:30"]
    table = pyarrow.table({"text": pyarrow.array(raw).cast(kind), "label": pyarrow.array(["x", "y", "x"])})
    data = load(table, "data.parquet")
    assert (data.texts, data.labels) == (values, [0, 1, 0])


@pytest.mark.parametrize("column", ["text", "label"])
def test_bytes_that_are_no_utf8_are_refused_by_row(load, column):
    columns = {"text": [b"a", b"b", b"c"], "label": [b"x", b"y", b"x"]}
    columns[column][1] = b"na\xefve"
    refused(
        load, pyarrow.table(columns), f"row 2: column '{column}'", "0xef at offset 2", name="data.parquet"
    )


def test_strings_that_arrow_did_not_check_are_refused_by_row(load):
    broken = pyarrow.array([b"a", b"na\xefve"]).view(pyarrow.string())
    table = pyarrow.table({"text": broken, "label": ["x", "y"]})
    refused(load, table, "row 2: column 'text'", "0xef", name="data.parquet")


def test_strings_like_dates_numbers_and_nothing_stay_texts(load):
    texts = ["2020-01-01", "2020-01-01T00:00:00", "None", "nan", "1", "true", "[1]"]
    assert load(lines(*({"text": t, "label": i} for i, t in enumerate(texts)))).texts == texts


@pytest.mark.parametrize("value", [None, "", " \n"])
def test_a_text_that_is_missing_is_refused_by_row(load, value):
    refused(
        load, lines({"text": "a", "label": 0}, {"text": value, "label": 1}), "row 2: column 'text' is empty"
    )
    table = pyarrow.table({"text": ["a", value], "label": [0, 1]})
    refused(load, table, "row 2: column 'text' is empty", name="data.parquet")


@pytest.mark.parametrize("name", ["text", "label"])
def test_half_of_a_surrogate_pair_is_refused_by_row(load, name):
    row = {"text": "a", "label": "x"}
    refused(
        load, lines({**row, "label": "y"}, {**row, name: "\ud83d"}), f"row 2: column '{name}'", "surrogate"
    )
    assert load(lines({**row, "text": "\U0001f3ac"}, {**row, "label": "y"})).texts[0] == "🎬"


def test_a_nul_character_is_refused_by_row(load):
    refused(load, '{"text": "a\\u0000b", "label": 1}\n', "row 1: column 'text' has a NUL character")


# rows of JSON -----------------------------------------------------------------------------------


def test_keys_that_a_row_lacks_are_null(load):
    content = lines({"id": 1, "text": "a", "label": "x"}, {"label": "y", "text": "b", "more": [1]})
    assert load(content).labels == [0, 1]
    refused(
        load, lines({"text": "a", "label": "x"}, {"txt": "b", "label": "y"}), "row 2: column 'text' is empty"
    )


@pytest.mark.parametrize(
    ("content", "flaw"),
    [
        ('{"text": "a", "label": 0}\n["b", 1]\n', "line 2: is a list and no object"),
        ('{"text": "a", "label": 0}\n"b"\n', "line 2: is a text and no object"),
        ('{"text": "a", "label": 0}\n\n{"text": "b", "lab', "line 3: "),
        ('{"text": "a", "label": 0} {"text": "b", "label": 1}\n', "line 1: Extra data"),
        ('{"text": "a", "label": 0},\n{"text": "b", "label": 1}\n', "line 1: "),
        ('{"text": "a", "text": "b", "label": 0}\n', "line 1: an object has the key 'text' twice"),
        ("{'text': 'a', 'label': 0}\n", "line 1: "),
        ('["a", "b"]\n', "row 1: is a text and no object"),
        ('"a"\n', "it is a text"),
        ('{"text": ["a", "b"], "label": [0, 1]}\n', "is one object with 'text', 'label', and no rows"),
        ('{"text": {"0": "a"}, "label": {"0": 1}}\n', "orient='records'"),
        ('{"train": [{"text": "a"}], "test": [{"text": "b"}]}\n', "is one object with 'train', 'test'"),
        ('{"text": "a", "label": ' + "9" * 5000 + "}\n", "line 1: a number of too many digits"),
        ("[" * 100_000, "nested too deep"),
    ],
)
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_json_that_is_no_rows_is_refused_by_line(load, content, flaw, suffix):
    refused(load, content, flaw, name=f"data.{suffix}")


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_list_of_rows_is_read_also_within_an_object(load, indent, suffix, wrapped):
    rows = [{"text": "a\u2028b", "label": "x"}, {"text": "c", "label": "y"}]
    content = json.dumps({"data": rows} if wrapped else rows, indent=indent, ensure_ascii=False)
    data = load(content, f"data.{suffix}")
    assert data.texts == ["a\u2028b", "c"]
    assert data.notes == (("the rows are those of its only key, 'data'",) if wrapped else ())


def test_a_single_row_is_a_row(load):
    assert load('{"text": "a"}\n', needs_labels=False).texts == ["a"]
    assert load('{\n"text": "a"\n}\n', "data.json", needs_labels=False).texts == ["a"]


# parquet and classes ----------------------------------------------------------------------------


def declared(labels, names=("negative", "positive")):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(names))}
    )
    rows = {"text": [f"t{i}" for i in range(len(labels))], "label": labels}
    return datasets.Dataset.from_dict(rows, features=features)


def test_a_missing_class_is_a_missing_label(tmp_path):
    declared([1, 0, 1, None]).to_parquet(tmp_path / "data.parquet")
    source = str(tmp_path / "data.parquet")
    with pytest.raises(UserError, match="row 4: column 'label' has no label"):
        load_text_data(source, ColumnsConfig(), "train")
    data = load_text_data(source, ColumnsConfig(), "calibration", needs_labels=False)
    assert (data.texts, data.labels) == (["t0", "t1", "t2", "t3"], None)


def test_classes_are_read_by_their_declared_names(tmp_path):
    path = tmp_path / "data.parquet"
    declared([1, 0, 1]).to_parquet(path)
    data = load_text_data(str(path), ColumnsConfig(), "train", label_names=["positive", "negative"])
    assert data.labels == [0, 1, 0]


def test_an_index_without_a_declared_name_is_refused_by_row():
    table = pyarrow.table({"text": ["a", "b"], "label": [0, 2]})
    dataset = declared([0, 1])
    broken = read_dataset("hub", datasets.Dataset(table, info=dataset.info))
    with pytest.raises(UserError, match=r"hub: row 2: column 'label' has class 2.*negative, positive"):
        broken.labels("label")


def test_data_sets_of_the_hub_pass_the_same_checks():
    dataset = datasets.Dataset.from_dict(
        {"text": ["a", None], "words": [["a"], ["b"]], "bytes": [b"\xc3\xb6", b"o"]}
    )
    table = read_dataset("hub", dataset)
    assert (table.names, table.rows) == (["text", "words", "bytes"], 2)
    assert table.texts("bytes") == ["ö", "o"]
    with pytest.raises(UserError, match="hub: row 2: column 'text' is empty"):
        table.texts("text")
    with pytest.raises(UserError, match="hub: row 1: column 'words' has a list"):
        table.texts("words")


def test_broken_metadata_and_two_columns_of_a_name_are_refused(load):
    table = pyarrow.table({"text": ["a"], "label": [0]})
    refused(load, table.replace_schema_metadata({b"huggingface": b"{"}), "metadata", name="data.parquet")
    twice = pyarrow.table([["a"], ["b"]], names=["text", "text"])
    refused(load, twice, "two columns have the same name, 'text'", name="data.parquet")


@pytest.mark.parametrize("cut", [8, 100, -1])
def test_a_parquet_file_that_was_cut_is_refused(load, tmp_path, cut):
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "label": [0]}), tmp_path / "whole")
    path = tmp_path / "data.parquet"
    path.write_bytes((tmp_path / "whole").read_bytes()[:cut])
    with pytest.raises(UserError, match="cannot be read as parquet"):
        load_text_data(str(path), ColumnsConfig(), "train")


def test_a_column_name_with_a_dot_is_no_nested_field(load):
    table = pyarrow.table({"a.b": ["x", "y"], "a": [{"b": "n"}] * 2, "label": [0, 1]})
    assert load(table.select(["a.b", "label"]), "data.parquet", text_column="a.b").texts == ["x", "y"]
