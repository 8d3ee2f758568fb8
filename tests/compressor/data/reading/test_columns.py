"""Which columns are read, and that the same rows give the same data whatever their file looks like."""

import csv
import io
import json

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.data.texts import TextData, load_text_data, log_notes
from compressor.errors import UserError
from compressor.options import ColumnsConfig


@pytest.fixture
def load(tmp_path):
    """Load rows of the named columns, all of the values that their names say."""

    def loaded(*names, needs_labels=True, **columns):
        path = tmp_path / "data.csv"
        rows = [names, *([f"{name} {row}" for name in names] for row in range(2))]
        path.write_text("\n".join(map(",".join, rows)))
        return load_text_data(str(path), ColumnsConfig(**columns), "train", needs_labels=needs_labels)

    return loaded


@pytest.mark.parametrize(
    "names",
    [
        ("text", "sentence", "label"),
        ("Text", "text", "label"),
        ("premise", "hypothesis", "text", "label"),
        ("sentence1", "sentence2", "question1", "question2", "label"),
    ],
)
def test_several_columns_that_may_be_the_text_are_refused(load, names):
    with pytest.raises(UserError, match=rf"the text may be in '{names[0]}' or '{names[1]}'.*--text-column"):
        load(*names)
    assert load(*names, text_column=names[0]).texts == [f"{names[0]} 0", f"{names[0]} 1"]


def test_several_columns_that_may_be_the_label_are_refused_where_one_is_needed(load):
    with pytest.raises(UserError, match=r"the label may be in 'label' or 'sentiment'.*--label-column"):
        load("text", "sentiment", "label")
    assert load("text", "sentiment", "label", label_column="label").label_names == ["label 0", "label 1"]
    assert load("text", "sentiment", "label", needs_labels=False).labels is None


@pytest.mark.parametrize(
    "given",
    [
        {"text_column": "text", "label_column": "text"},
        {"text_column": "text", "text_pair_column": "text"},
        {"text_pair_column": "label", "label_column": "label"},
    ],
)
def test_a_column_that_is_named_for_two_things_is_refused(load, given):
    with pytest.raises(UserError, match="each needs its own"):
        load("text", "label", **given)


def test_a_column_of_texts_is_no_label_by_convention(load):
    with pytest.raises(UserError, match="no label column found"):
        load("text", "label", text_column="label")
    assert load("text", "sentence", "label", text_pair_column="sentence").pairs == [
        "sentence 0",
        "sentence 1",
    ]


def test_notes_are_shown_and_recorded():
    logged = []

    class Log:
        def log(self, message):
            logged.append(message)

    data = TextData(["a"], None, None, [], "data.csv", notes=("column 1 was left out",))
    log_notes(data, Log())
    assert logged == ["data.csv: column 1 was left out"]
    assert data.record(ColumnsConfig())["notes"] == ["column 1 was left out"]


# the same rows in other files -------------------------------------------------------------------


def delimited(rows, names, separator=",", quoting=csv.QUOTE_MINIMAL, end="\n"):
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=separator, quoting=quoting, lineterminator=end)
    writer.writerows([names, *([row[name] for name in names] for row in rows)])
    return stream.getvalue()


def variants(rows, folder):
    """Files of the same rows: name, bytes and options."""
    names, turned = list(rows[0]), [*rows[0]][::-1]
    plain = delimited(rows, names)
    lines = "\n".join(json.dumps(row) for row in rows)
    yield "plain.csv", plain.encode(), {}
    yield "crlf.csv", delimited(rows, names, end="\r\n").encode(), {}
    yield "mark.csv", plain.encode("utf-8-sig"), {}
    yield "wide.csv", plain.encode("utf-16"), {}
    yield "quoted.csv", delimited(rows, names, quoting=csv.QUOTE_ALL).encode(), {}
    yield "turned.csv", delimited(rows, turned).encode(), {}
    yield "excel.csv", ("sep=;\r\n" + delimited(rows, names, ";", end="\r\n")).encode("utf-8-sig"), {}
    yield "semicolon.csv", delimited(rows, names, ";").encode(), {"delimiter": "semicolon"}
    indexed = [{"": i, **row, "id": f"n{i}"} for i, row in enumerate(rows)]
    yield "index.csv", delimited(indexed, list(indexed[0])).encode(), {}
    yield "lines.jsonl", lines.encode(), {}
    yield "turned.jsonl", "\r\n".join(json.dumps({n: r[n] for n in turned}) for r in rows).encode(), {}
    yield "raw.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode("utf-8-sig"), {}
    yield "list.json", json.dumps(rows, indent=1).encode("utf-16"), {}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows).select(turned), folder / "table")
    yield "turned.parquet", (folder / "table").read_bytes(), {}


def fingerprints(rows, folder):
    found = {}
    for name, content, options in variants(rows, folder):
        path = folder / name
        path.write_bytes(content)
        found[name] = load_text_data(str(path), ColumnsConfig(**options), "train").fingerprint
    return found


# No carriage returns, which begin a new line of their own for some writers, and no escapes.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\\"), max_size=20).filter(
    str.strip
)


@given(
    rows=st.lists(
        st.fixed_dictionaries({"text": texts, "label": st.integers(0, 3), "text_pair": texts}),
        min_size=2,
        max_size=4,
    ).filter(lambda rows: len({row["label"] for row in rows}) > 1)
)
@settings(deadline=None, max_examples=40)
def test_the_same_rows_give_the_same_data_in_every_file(tmp_path_factory, rows):
    folder = tmp_path_factory.getbasetemp() / "variants"
    folder.mkdir(exist_ok=True)
    assert len(set(fingerprints(rows, folder).values())) == 1


def test_tsv_gives_the_same_data_as_csv(tmp_path):
    rows = [{"text": f'"{i}", said "she"', "label": i % 2, "text_pair": "a, b"} for i in range(4)]
    content = "\n".join(["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)])
    (tmp_path / "plain.tsv").write_text(content)
    data = load_text_data(str(tmp_path / "plain.tsv"), ColumnsConfig(), "train")
    assert {data.fingerprint} == set(fingerprints(rows, tmp_path).values())
