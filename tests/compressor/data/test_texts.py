"""Data files become texts, pairs and labels, literally; every flaw is one clear line."""

import csv
import dataclasses
import json
import time

import pyarrow
import pyarrow.parquet
import pytest

from compressor.data.texts import TextData, load_text_data
from compressor.errors import UserError
from compressor.options import ColumnsConfig

TEXTS = [
    'say "cheese", please',
    "it's ; a\\b 'quote'",
    "NA",
    "null",
    "nan",
    "größe 日本 🎬",
    "3.50",
    "007",
    "True",
]
LABELS = ["bad", "good"] * 4 + ["bad"]


def write(folder, kind, rows):
    """Write rows (dicts) as a file of that kind."""
    path = folder / f"data.{kind}"
    names = list(rows[0])
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif kind == "csv":
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, names)
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "tsv":
        lines = ["\t".join(names), *("\t".join(str(row[name]) for name in names) for row in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif kind == "json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return path


def load(path, role="train", label_names=None, needs_labels=True, **columns):
    return load_text_data(
        str(path), ColumnsConfig(**columns), role, label_names=label_names, needs_labels=needs_labels
    )


def rows_of(texts=TEXTS, labels=LABELS, **extra):
    return [
        {"text": text, "label": label, **{key: values[i] for key, values in extra.items()}}
        for i, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]


# formats ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_texts_and_labels_come_back_as_they_are(tmp_path, kind):
    data = load(write(tmp_path, kind, rows_of()))
    assert data.texts == TEXTS
    assert data.label_names == ["bad", "good"]
    assert data.labels == [0, 1] * 4 + [0]
    assert data.pairs is None


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_texts_that_all_look_like_numbers_stay_as_written(tmp_path, kind):
    data = load(write(tmp_path, kind, rows_of(["007", "1.50"], ["a", "b"])))
    assert data.texts == ["007", "1.50"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet"])
def test_line_breaks_within_a_text_are_kept(tmp_path, kind):
    texts = ['one\ntwo, "three"', "a\tb"]
    assert load(write(tmp_path, kind, rows_of(texts, ["a", "b"]))).texts == texts


def test_quotes_in_tsv_are_part_of_the_text(tmp_path):
    texts = ['"quoted"', '"opened', 'closed"', '""', "'"]
    data = load(write(tmp_path, "tsv", rows_of(texts, ["a", "b", "a", "b", "a"])))
    assert data.texts == texts


def test_a_changed_file_of_the_same_name_is_read_anew(tmp_path):
    first = load(write(tmp_path, "csv", rows_of(["one", "two"], ["a", "b"])))
    second = load(write(tmp_path, "csv", rows_of(["six", "ten"], ["a", "b"])))
    assert (first.texts, second.texts) == (["one", "two"], ["six", "ten"])


def test_suffixes_in_capitals_are_known(tmp_path):
    path = write(tmp_path, "csv", rows_of()).rename(tmp_path / "DATA.CSV")
    assert load(path).texts == TEXTS


# columns ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["text", "sentence", "review", "content"])
@pytest.mark.parametrize("label", ["label", "labels", "target", "sentiment"])
def test_columns_are_found_by_convention(tmp_path, text, label):
    path = write(tmp_path, "jsonl", [{"id": i, label: i % 2, text: f"t{i}"} for i in range(4)])
    data = load(path)
    assert (data.texts, data.labels) == (["t0", "t1", "t2", "t3"], [0, 1, 0, 1])


@pytest.mark.parametrize(
    ("first", "second"),
    [("premise", "hypothesis"), ("sentence1", "sentence2"), ("question", "sentence"), ("text", "text_pair")],
)
def test_pairs_are_found_by_convention(tmp_path, first, second):
    path = write(tmp_path, "csv", [{first: f"a{i}", second: f"b{i}", "label": i} for i in range(3)])
    data = load(path)
    assert (data.texts, data.pairs) == (["a0", "a1", "a2"], ["b0", "b1", "b2"])


def test_columns_that_are_given_win(tmp_path):
    rows = [{"text": "x", "label": 0, "body": f"b{i}", "title": f"t{i}", "stars": i} for i in range(3)]
    path = write(tmp_path, "jsonl", rows)
    data = load(path, text_column="title", text_pair_column="body", label_column="stars")
    assert (data.texts, data.pairs, data.labels) == (["t0", "t1", "t2"], ["b0", "b1", "b2"], [0, 1, 2])


def test_a_given_text_column_takes_no_second_one_by_convention(tmp_path):
    path = write(tmp_path, "csv", [{"premise": "a", "hypothesis": "b", "label": i} for i in range(2)])
    assert load(path, text_column="premise").pairs is None


def test_labels_may_be_absent_where_they_are_not_needed(tmp_path):
    path = write(tmp_path, "jsonl", [{"text": "a"}, {"text": "b"}])
    data = load(path, "calibration", label_names=["x", "y"], needs_labels=False)
    assert data.labels is None
    assert data.label_names == ["x", "y"]
    with pytest.raises(UserError, match="has no labels"):
        _ = data.class_labels


# labels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels", [["fresh", "rotten", "fresh"], [0, 1, 0], ["0", "1", "0"], [0.0, 1.0, 0.0]]
)
def test_names_and_numbers_are_matched_to_the_models_classes(tmp_path, labels):
    path = write(tmp_path, "jsonl", rows_of(["a", "b", "c"], labels))
    data = load(path, label_names=["fresh", "rotten"])
    assert data.labels == [0, 1, 0]
    assert data.label_names == ["fresh", "rotten"]


def test_names_are_matched_by_name_and_not_by_order(tmp_path):
    path = write(tmp_path, "csv", rows_of(["a", "b", "c"], ["fresh", "rotten", "fresh"]))
    assert load(path, label_names=["rotten", "fresh"]).labels == [1, 0, 1]


def test_numbers_that_are_names_are_matched_by_name(tmp_path):
    path = write(tmp_path, "csv", rows_of(["a", "b"], [1, 0]))
    assert load(path, label_names=["1", "0"]).labels == [0, 1]


def test_numbers_are_ordered_as_numbers(tmp_path):
    path = write(tmp_path, "csv", rows_of([f"t{i}" for i in range(11)], list(range(11))))
    data = load(path)
    assert data.label_names == [str(i) for i in range(11)]
    assert data.labels == list(range(11))


@pytest.mark.parametrize("label", ["stale", 2])
def test_a_label_that_the_model_does_not_know_is_named_with_its_row(tmp_path, label):
    good = ["fresh", "rotten"] if isinstance(label, str) else [0, 1]
    path = write(tmp_path, "jsonl", rows_of(["a", "b", "c"], [*good, label]))
    with pytest.raises(UserError, match=rf"row 3: column 'label': label '{label}' .* fresh, rotten"):
        load(path, label_names=["fresh", "rotten"])


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("labels", [["good", "bad", None], [0, 1, None]], ids=["names", "numbers"])
def test_a_missing_label_is_no_class_of_its_own(tmp_path, kind, labels):
    path = write(tmp_path, kind, rows_of(["a", "b", "c"], labels))
    with pytest.raises(UserError, match="row 3: column 'label'"):
        load(path)


def test_numbers_that_are_no_class_indices_are_no_million_classes(tmp_path):
    path = write(tmp_path, "jsonl", rows_of(["a", "b"], [1, 1_000_000]))
    try:
        data = load(path)
    except UserError:
        return
    assert len(data.label_names) == 2


def test_one_class_only_is_an_error_that_names_it(tmp_path):
    path = write(tmp_path, "csv", rows_of(["a", "b"], ["good", "good"]))
    with pytest.raises(UserError, match=r"column 'label' has one class only \(good\)"):
        load(path)


# errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_a_missing_file_is_named(tmp_path, kind):
    with pytest.raises(UserError, match=rf"none\.{kind}: no such file"):
        load(tmp_path / f"none.{kind}")


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_an_empty_file_is_an_error(tmp_path, kind):
    (tmp_path / f"data.{kind}").touch()
    with pytest.raises(UserError, match=rf"data\.{kind}: is empty"):
        load(tmp_path / f"data.{kind}")


@pytest.mark.parametrize(
    ("kind", "content"), [("csv", "text,label\n"), ("tsv", "text\tlabel\n"), ("json", "[]")]
)
def test_a_file_without_rows_is_an_error(tmp_path, kind, content):
    (tmp_path / f"data.{kind}").write_text(content)
    with pytest.raises(UserError, match=rf"data\.{kind}: "):
        load(tmp_path / f"data.{kind}")


@pytest.mark.parametrize("key", ["text_column", "text_pair_column", "label_column"])
def test_an_unknown_column_lists_those_that_are_there(tmp_path, key):
    path = write(tmp_path, "csv", rows_of())
    with pytest.raises(UserError, match=rf"{key}: no column 'x'; it has 'text', 'label'"):
        load(path, **{key: "x"})


def test_no_column_by_convention_tells_how_to_name_one(tmp_path):
    path = write(tmp_path, "csv", [{"a": "x", "label": 0}])
    with pytest.raises(UserError, match=r"no text column found; it has 'a', 'label'.*--text-column"):
        load(path)
    path = write(tmp_path, "csv", [{"text": "x", "b": 0}])
    with pytest.raises(UserError, match=r"no label column found; it has 'text', 'b'.*--label-column"):
        load(path)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("empty", ["", "  \n ", None])
def test_an_empty_text_is_named_with_its_row(tmp_path, kind, empty):
    path = write(tmp_path, kind, rows_of(["a", empty, "c"], ["x", "y", "x"]))
    with pytest.raises(UserError, match="row 2: column 'text' is empty"):
        load(path)


def test_an_empty_second_text_is_named_with_its_column(tmp_path):
    path = write(tmp_path, "jsonl", [{"premise": "a", "hypothesis": h, "label": 0} for h in ("b", "")])
    with pytest.raises(UserError, match="row 2: column 'hypothesis' is empty"):
        load(path)


def test_a_directory_and_an_unknown_kind_are_errors(tmp_path):
    with pytest.raises(UserError, match="is not a file"):
        load(tmp_path)
    (tmp_path / "data.xlsx").write_text("x")
    with pytest.raises(UserError, match=r"unknown kind of file; known are \.csv"):
        load(tmp_path / "data.xlsx")


@pytest.mark.parametrize(
    ("kind", "content"),
    [("jsonl", b"{not json\n"), ("parquet", b"PAR1 but not really"), ("csv", b"text,label\n\xff\xfe,1\n")],
)
def test_a_broken_file_is_an_error_of_one_line(tmp_path, kind, content):
    (tmp_path / f"data.{kind}").write_bytes(content)
    with pytest.raises(UserError, match=rf"data\.{kind}: cannot be read as") as caught:
        load(tmp_path / f"data.{kind}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["glue/sst2", "glue/sst2:validation", "some/where", "a b", "x/y/z:test"])
def test_a_hub_id_without_network_fails_fast(source):
    start = time.monotonic()
    with pytest.raises(UserError, match="no such file, and it could not be loaded from the hub") as caught:
        load(source)
    assert time.monotonic() - start < 20
    assert "\n" not in str(caught.value)


# in memory --------------------------------------------------------------------------------------


@pytest.fixture
def data():
    return TextData([f"t{i}" for i in range(20)], None, [i % 2 for i in range(20)], ["a", "b"], "here")


def test_fingerprint_is_of_the_content_alone(data):
    assert dataclasses.replace(data, source="there").fingerprint == data.fingerprint
    assert data.select(range(20)).fingerprint == data.fingerprint


def test_fingerprint_changes_with_texts_pairs_labels_and_order(data):
    changed = [
        dataclasses.replace(data, texts=["x", *data.texts[1:]]),
        dataclasses.replace(data, labels=[1, *data.class_labels[1:]]),
        dataclasses.replace(data, labels=None),
        dataclasses.replace(data, pairs=["p"] * 20),
        data.select(range(19, -1, -1)),
        data.select(range(19)),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in changed)}) == 1 + len(changed)


def test_fingerprint_tells_where_a_text_ends():
    one = TextData(["ab", "c"], ["d", "e"], None, [], "")
    other = TextData(["a", "c"], ["bd", "e"], None, [], "")
    assert one.fingerprint != other.fingerprint


def test_a_sample_is_drawn_with_the_seed_and_without_repeats(data):
    sample = data.sample(8, seed=1)
    assert sample == data.sample(8, seed=1)
    assert sample != data.sample(8, seed=2)
    assert len(set(sample.texts)) == 8
    for text, label in zip(sample.texts, sample.class_labels, strict=True):
        assert data.class_labels[data.texts.index(text)] == label


@pytest.mark.parametrize("count", [20, 21])
def test_a_sample_of_all_keeps_their_order(data, count):
    assert data.sample(count, seed=1) == data


def test_select_keeps_texts_pairs_and_labels_together(data):
    paired = dataclasses.replace(data, pairs=[f"p{i}" for i in range(20)]).select([3, 0, 3])
    assert (paired.texts, paired.pairs, paired.labels) == (["t3", "t0", "t3"], ["p3", "p0", "p3"], [1, 0, 1])


def test_majority_share_is_that_of_the_most_frequent_label(data):
    assert dataclasses.replace(data, labels=[0] * 15 + [1] * 5).majority_share() == 0.75


# numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_numbers_of_a_regression_come_back_as_they_are(tmp_path, kind):
    numbers = [3.25, -1.0, 0.0, 5.0]
    path = write(tmp_path, kind, rows_of(["a", "b", "c", "d"], numbers))
    data = load(path, label_names=["score"])
    assert (data.task, data.numbers, data.labels) == ("regression", numbers, None)
    assert data.targets == numbers
    assert data.select([2, 0]).numbers == [0.0, 3.25]
    with pytest.raises(UserError, match="has numbers and no classes"):
        _ = data.class_labels


def test_numbers_are_part_of_the_fingerprint(tmp_path):
    one = load(write(tmp_path, "csv", rows_of(["a", "b"], [0.5, 1.5])), label_names=["score"])
    other = load(write(tmp_path, "csv", rows_of(["a", "b"], [0.5, 1.25])), label_names=["score"])
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize("bad", ["good", "", "nan", "inf", None])
def test_what_is_no_number_is_named_with_its_row(tmp_path, bad):
    path = write(tmp_path, "csv", rows_of(["a", "b", "c"], [0.5, 1.5, bad]))
    with pytest.raises(UserError, match=r"row 3: column 'label': .* is no number"):
        load(path, label_names=["score"])
    assert load(path, label_names=["score"], needs_labels=False).numbers is None


def test_one_number_only_is_nothing_to_learn(tmp_path):
    path = write(tmp_path, "csv", rows_of(["a", "b"], [-1.0, -1.0]))
    with pytest.raises(UserError, match=r"one number only \(-1\)"):
        load(path, label_names=["score"])


def test_numbers_are_not_taken_for_classes(tmp_path):
    path = write(tmp_path, "csv", rows_of(["a", "b", "c"], [3.2, 4.0, 1.0]))
    with pytest.raises(UserError, match=r"numbers such as 3\.2.*--task regression"):
        load(path)
    assert load(path, needs_labels=False).labels is None


@pytest.mark.parametrize("labels", [["v1.5", "v2"], ["1.5", "mixed"], [0.0, 1.0], ["1", "2"]])
def test_names_and_whole_numbers_are_classes(tmp_path, labels):
    data = load(write(tmp_path, "csv", rows_of(["a", "b"], labels)))
    assert (data.task, data.labels) == ("classification", [0, 1])
