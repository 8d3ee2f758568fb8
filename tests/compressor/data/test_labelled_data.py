"""Labels of files: declared classes, none that are needed, one class, and what is recorded of them."""

import json

import datasets
import pytest

from compressor.data.texts import load_text_data, log_notes
from compressor.errors import UserError
from compressor.options import ColumnsConfig
from compressor.system.console import SilentProgress

NAMES = ["negative", "positive"]


def write(path, labels, kind="jsonl"):
    rows = [{"text": f"text {place}", "label": label} for place, label in enumerate(labels)]
    if kind == "csv":
        lines = ["text,label", *(f"{row['text']},{row['label']}" for row in rows)]
    else:
        lines = map(json.dumps, rows)
    path = path / f"data.{kind}"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def declared(folder, labels, names=NAMES, feature=None):
    feature = feature or datasets.ClassLabel(names=list(names))
    features = datasets.Features({"text": datasets.Value("string"), "label": feature})
    rows = {"text": [f"text {place}" for place in range(len(labels))], "label": labels}
    path = folder / "data.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    return str(path)


def load(path, names=None, role="test", needs_labels=True, **columns):
    columns = ColumnsConfig(**columns)
    return load_text_data(path, columns, role, label_names=names, needs_labels=needs_labels)


def logged(data):
    lines = []

    class Lines(SilentProgress):
        def log(self, message):
            lines.append(message)

    log_notes(data, Lines())
    return lines


def test_a_null_among_declared_classes_is_named_with_its_row(tmp_path):
    path = declared(tmp_path, [1, 0, 1, None])
    with pytest.raises(UserError, match="row 4: column 'label' has no label"):
        load(path, role="train")
    data = load(path, NAMES, "calibration", needs_labels=False)
    assert (len(data), data.labels, data.label_names) == (4, None, NAMES)
    assert data.record(ColumnsConfig())["labels"]["rule"] == "unread"
    assert logged(data) == [f"labels: not used: {data.mapping.reason}"]


def test_declared_classes_are_read_by_the_default_names_order(tmp_path):
    path = declared(tmp_path, [1, 0, 1])
    data = load(path, ["LABEL_0", "LABEL_1"])
    assert data.labels == [1, 0, 1]
    assert data.record(ColumnsConfig())["labels"] == {
        "rule": "order",
        "map": {"negative": "LABEL_0", "positive": "LABEL_1"},
    }
    assert logged(data) == ["labels: negative -> LABEL_0, positive -> LABEL_1 (by the data set's own order)"]
    assert load(path, ["POSITIVE", "NEGATIVE"]).labels == [0, 1, 0]


def test_declared_classes_that_are_several_a_text_are_refused(tmp_path):
    feature = datasets.Sequence(datasets.ClassLabel(names=NAMES))
    path = declared(tmp_path, [[0, 1], [1]], feature=feature)
    with pytest.raises(UserError, match=r"row 1: .*holds a list .*one label a text"):
        load(path, role="train")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_minus_one_is_a_class_of_a_file(tmp_path, kind):
    path = write(tmp_path, [-1, 0, 1, -1], kind)
    assert load(path, role="train").label_names == ["-1", "0", "1"]
    assert load(path, ["1", "0", "-1"]).labels == [2, 1, 0, 2]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("label", ["stale", 2, "", ["a"], 0.5])
def test_labels_that_are_not_needed_are_left_out_if_they_cannot_be_read(tmp_path, kind, label):
    path = write(tmp_path, ["fresh", label, "rotten"] if isinstance(label, str) else [label] * 3, kind)
    data = load(path, ["fresh", "rotten"], "calibration", needs_labels=False)
    assert (len(data), data.labels) == (3, None)
    with pytest.raises(UserError, match="data"):
        load(path, ["fresh", "rotten"], "calibration")


def test_a_label_column_that_is_not_there_is_refused_where_it_is_needed(tmp_path):
    path = write(tmp_path, ["a", "b"])
    assert load(path, needs_labels=False, label_column="stars").labels is None
    with pytest.raises(UserError, match="label_column: no column 'stars'; it has 'text', 'label'"):
        load(path, label_column="stars")


def test_one_class_can_be_measured_and_not_learnt(tmp_path):
    path = write(tmp_path, ["b", "b"])
    data = load(path, ["a", "b", "c"])
    assert (data.labels, data.majority_share(), data.absent_classes()) == ([1, 1], 1.0, ["a", "c"])
    assert load(path).task == "classification"
    for role in ("train", "calibration"):
        with pytest.raises(UserError, match=r"one class only \(b\)"):
            load(path, ["a", "b"], role)


def test_a_label_map_reads_and_renames(tmp_path):
    path = write(tmp_path, [1, 2, 1])
    label_map = {"1": "bad", "2": "good"}
    assert load(path, ["good", "bad"], label_map=label_map).labels == [1, 0, 1]
    data = load(path, role="train", label_map=label_map)
    assert data.label_names == ["bad", "good"]
    assert data.record(ColumnsConfig(label_map=label_map))["columns"]["label_map"] == label_map
    with pytest.raises(UserError, match="label_map: is of classes, and the model gives a number"):
        load(path, ["score"], label_map=label_map)


def test_numbers_are_recorded_as_such(tmp_path):
    path = write(tmp_path, [1.5, 2.0])
    data = load(path, ["score"])
    assert data.record(ColumnsConfig())["labels"] == {"rule": "number", "map": {}}
    assert logged(data) == []
