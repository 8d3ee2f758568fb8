"""One rule maps the labels of a column to a model's classes, for the column as a whole."""

import datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.data.labels import (
    Column,
    LabelMapping,
    LabelValues,
    absent_classes,
    number_labels,
    read_classes,
)
from compressor.errors import UserError

STARS = ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"]
DEFAULT = ["LABEL_0", "LABEL_1"]
SENTIMENT = ["negative", "neutral", "positive"]


def read(values, names=None, label_map=None, *, declared=None, from_hub=False, learns=False):
    column = LabelValues(Column("here.csv", "label"), values, declared, from_hub)
    return read_classes(column, names, label_map, learns=learns)


# a model's classes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "names", "rule", "labels"),
    [
        (["a", "b", "a"], ["a", "b"], "name", [0, 1, 0]),
        (["b", "b"], ["a", "b"], "name", [1, 1]),
        (["negative", " Positive "], ["NEGATIVE", "POSITIVE"], "name", [0, 1]),
        (["STRASSE"], ["straße", "weg"], "name", [0]),
        (["Cafe\u0301"], ["CAF\u00c9", "bar"], "name", [0]),
        (["US", "us"], ["us", "US"], "name", [1, 0]),
        ([1, 0], ["1", "0"], "name", [0, 1]),
        (["1.0", "2.0"], ["1", "2"], "name", [0, 1]),
        ([1.0, 2.0], ["1.0", "2.0"], "name", [0, 1]),
        ([-1, 0, 1], ["-1", "0", "1"], "name", [0, 1, 2]),
        (["+1", "-1"], ["-1", "1"], "name", [1, 0]),
        ([True, False], ["False", "True"], "name", [1, 0]),
        (["TRUE", "false"], ["false", "true"], "name", [1, 0]),
        (["label_1", "LABEL_0"], DEFAULT, "name", [1, 0]),
        (["1 STAR", "5 Stars"], STARS, "name", [0, 4]),
        (["nan", "en"], ["en", "nan"], "name", [1, 0]),
        (["[x]", "[1]"], ["[1]", "[x]"], "name", [1, 0]),
        ([0, 1, 2], SENTIMENT, "index", [0, 1, 2]),
        ([2, 2], SENTIMENT, "index", [2, 2]),
        (["0.0", "1.0"], ["NEGATIVE", "POSITIVE"], "index", [0, 1]),
        (["0", "1.0"], ["NEGATIVE", "POSITIVE"], "index", [0, 1]),
        ([0.0, 1.0], ["NEGATIVE", "POSITIVE"], "index", [0, 1]),
        ([Decimal("1.00"), Decimal("0")], ["no", "yes"], "index", [1, 0]),
        (["LABEL_1", "LABEL_0"], ["no", "yes"], "index", [1, 0]),
        ([0, 1], DEFAULT, "index", [0, 1]),
        ([1, 0], ["class 0", "class 1"], "index", [1, 0]),
    ],
)
def test_labels_are_names_of_classes_or_else_indices(values, names, rule, labels):
    found = read(values, names)
    assert (found.mapping.rule, found.labels, found.names) == (rule, labels, names)
    assert set(found.mapping.map.values()) == {names[label] for label in labels}


@pytest.mark.parametrize(
    ("values", "names", "row", "label"),
    [
        ([2, 3, 0], ["1", "2", "3", "4"], 3, "'0'"),
        (["2", "3", "0"], ["1", "2", "3", "4"], 3, "'0'"),
        ([1, 2, 3, 4], STARS, 1, "'1'"),
        ([1, 2, 3, 4, 5], STARS, 1, "'1'"),
        ([0, 1], ["1 star", "2 stars"], 1, "'0'"),
        ([1, 2], ["one star", "two_stars", "three stars"], 1, "'1'"),
        ([1, 1], ["class1", "class2"], 1, "'1'"),
        ([1, 0], ["LABEL_1", "LABEL_0"], 1, "'1'"),
        ([1, 2], ["2 stars", "1 star", "0 stars"], 1, "'1'"),
        ([0, 1, 2], ["0", "1"], 3, "'2'"),
        ([0, 1, 2], ["a", "b"], 3, "'2'"),
        ([0, -1, 1], ["a", "b"], 2, "'-1'"),
        (["a", "0"], ["a", "b"], 2, "'0'"),
        (["0", "a"], ["a", "b"], 1, "'0'"),
        (["LABEL_0", "a"], ["a", "b"], 1, "'LABEL_0'"),
        (["00", "01"], ["a", "b"], 1, "'00'"),
        (["negative", "positive"], DEFAULT, 1, "'negative'"),
        ([True, False], DEFAULT, 1, "'true'"),
        (["Us"], ["US", "us"], 1, "'Us'"),
        ([0.5, 1.0], ["a", "b"], 1, "'0.5'"),
        (["1,0"], ["a", "b"], 1, "'1,0'"),
        (["9" * 5000], ["a", "b"], 1, "'999"),
        ([10**30], ["a", "b"], 1, "'1000"),
    ],
)
def test_a_column_that_no_step_reads_whole_is_refused_with_a_way_out(values, names, row, label):
    with pytest.raises(UserError) as caught:
        read(values, names)
    message = str(caught.value)
    assert message.startswith(f"here.csv: row {row}: column 'label': label {label}")
    assert "is not one of the model's: " + ", ".join(names) in message
    assert "--label-map" in message
    assert "\n" not in message


def test_a_name_that_contradicts_its_index_is_named():
    with pytest.raises(UserError, match="class 0 is named '1 star', so that it is no index"):
        read([1, 2], STARS)


@given(st.lists(st.integers(-2, 6), min_size=1), st.permutations(["0", "1", "2", "3"]))
def test_a_column_is_read_by_name_or_by_index_and_never_by_both(values, names):
    try:
        found = read(values, names)
    except UserError:
        assert not set(map(str, values)) <= set(names)
        return
    assert [names[label] for label in found.labels] == list(map(str, values))


@given(st.lists(st.sampled_from(["x", "Y", "z"]), min_size=1), st.permutations(["X", "y", "Z"]))
def test_the_order_of_the_models_classes_does_not_matter_to_names(values, names):
    found = read(values, names)
    assert [names[label].casefold() for label in found.labels] == [value.casefold() for value in values]


# declared classes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "declared", "names", "rule", "labels"),
    [
        ([1, 0], ["negative", "positive"], DEFAULT, "order", [1, 0]),
        ([1, 1], ["1", "2"], DEFAULT, "order", [1, 1]),
        ([1, 0], ["1", "0"], DEFAULT, "order", [1, 0]),
        ([1, 0], ["negative", "positive"], ["POSITIVE", "NEGATIVE"], "name", [0, 1]),
        ([1, 0], ["0", "1"], ["no", "yes"], "index", [1, 0]),
        ([1, 0], ["0", "1"], ["LABEL_0", "LABEL_1", "LABEL_2"], "index", [1, 0]),
        ([1.0, 0.0], ["negative", "positive"], DEFAULT, "order", [1, 0]),
    ],
)
def test_declared_classes_are_matched_by_name_or_by_their_own_order(values, declared, names, rule, labels):
    found = read(values, names, declared=declared)
    assert (found.mapping.rule, found.labels) == (rule, labels)


@pytest.mark.parametrize(
    ("declared", "names"),
    [
        (["neg", "pos"], ["negative", "positive"]),
        (["negative", "positive"], ["LABEL_0", "LABEL_1", "LABEL_2"]),
        (["1", "0"], ["no", "yes"]),
        (["1", "2"], ["no", "yes", "maybe"]),
    ],
)
def test_declared_classes_that_are_not_the_models_are_refused(declared, names):
    with pytest.raises(UserError, match=r"row 1: .* is not one of the model's.*--label-map"):
        read([0, 1], names, declared=declared)


def test_a_class_that_is_not_declared_is_refused():
    with pytest.raises(UserError, match=r"row 2: .*7 is none of the 2 classes"):
        read([0, 7], declared=["a", "b"])


@pytest.mark.parametrize("missing", [None, -1, -1.0, float("nan")])
def test_no_label_in_declared_classes_is_named_with_its_row(missing):
    with pytest.raises(UserError, match="row 3: column 'label' has no label"):
        read([0, 1, missing], declared=["a", "b"])


def test_minus_one_is_no_label_in_data_of_the_hub_unless_someone_named_it():
    with pytest.raises(
        UserError, match=r"row 2: .* has no label \(-1 in a data set of the hub\).*--label-map"
    ):
        read([0, -1], from_hub=True)
    assert read([0, -1], ["-1", "0"], from_hub=True).labels == [1, 0]
    assert read([0, -1], label_map={"-1": "bad", "0": "good"}, from_hub=True).names == ["bad", "good"]


# the data's own classes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["b", "a", "c"], ["a", "b", "c"]),
        (["10", "2", "1"], ["1", "2", "10"]),
        ([10, 2, 1], ["1", "2", "10"]),
        (["1.0", "0.0"], ["0", "1"]),
        ([1, -1, 0], ["-1", "0", "1"]),
        (["-1", "0", "1"], ["-1", "0", "1"]),
        (["+1", "-1"], ["-1", "1"]),
        ([True, False], ["false", "true"]),
        (["10", "b"], ["10", "b"]),
        (["01", "10", "02"], ["01", "02", "10"]),
        (["1.5", "mixed"], ["1.5", "mixed"]),
    ],
)
def test_without_a_model_whole_numbers_ascend_and_names_are_sorted(values, names):
    found = read(values, learns=True)
    assert (found.names, found.mapping.rule) == (names, "own")
    assert sorted(set(found.labels)) == list(range(len(names)))


def test_declared_classes_are_all_there_in_their_order():
    found = read([2, 0], declared=["b", "a", "c"], learns=True)
    assert (found.names, found.labels) == (["b", "a", "c"], [2, 0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", "a"], r"one class only \(a\)"),
        (["Good", "bad", "good"], "row 3: .*'good' differs from label 'Good' by case alone"),
        ([f"id{i}" for i in range(24)] + ["id0"], "24 different labels in 25 texts.*--label-column"),
        ([f"c{i % 1200}" for i in range(6000)], "1,200 different labels"),
        (["3.5", "2", "1.0"], "row 1: .*numbers such as 3.5.*--task regression"),
        ([1.0, 2.5], "row 2: .*numbers such as 2.5"),
        (["1,5", "2,5"], "row 1: .*numbers such as 1,5"),
        (["x", "nan"], "row 2: .*'nan', which pandas writes.*--label-map"),
    ],
)
def test_what_cannot_be_learnt_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        read(values, learns=True)


def test_one_class_and_many_can_be_measured():
    assert read(["a", "a"]).labels == [0, 0]
    assert read(["a"], ["a", "b"]).labels == [0]
    assert len(read([f"id{i}" for i in range(24)]).names) == 24


# what is no label ------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [None, ["a", "b"]])
@pytest.mark.parametrize("missing", [None, "", "  ", float("nan")])
def test_a_missing_label_is_named_with_its_row(missing, names):
    with pytest.raises(UserError, match="row 2: column 'label' has no label; drop the row or fill it"):
        read(["a", missing], names)


@pytest.mark.parametrize("names", [None, ["a", "b"]])
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (["funny", "sad"], "a list"),
        ([0, 1], "a list"),
        ([], "a list"),
        ({"a": 1}, "an object"),
        (b"a", "bytes"),
        (datetime.date(2024, 1, 1), "a date"),
        (datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), "a date"),
        (1j, "a complex"),
        ("['funny', 'sad']", "a list"),
        ('["funny"]', "a list"),
        ("[0, 1]", "a list"),
        ("[0 1 0]", "a list"),
        ("[]", "a list"),
        ("{'a': 1}", "a list"),
        ("(0, 1)", "a list"),
    ],
)
def test_several_labels_a_text_and_other_types_are_refused_by_row(value, kind, names):
    with pytest.raises(UserError, match=rf"row 2: .*holds {kind}.*one label a text"):
        read(["a", value], names)


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), Decimal("NaN")])
def test_what_is_no_finite_number_is_no_label(value):
    with pytest.raises(UserError, match=r"row 1: .* is no label"):
        read([value, 1.0])


# a label map -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "names", "label_map", "labels"),
    [
        (["neg", "POS"], DEFAULT, {"neg": "LABEL_0", "pos": "label_1"}, [0, 1]),
        (["neg", "pos"], DEFAULT, {"neg": "0", "pos": "1"}, [0, 1]),
        ([1, 5], STARS, {str(n): name for n, name in enumerate(STARS, 1)}, [0, 4]),
        (["1.0", "2.0"], ["a", "b"], {"1": "b", "2": "a"}, [1, 0]),
        ([True, False], ["no", "yes"], {"true": "yes", "false": "no"}, [1, 0]),
        ([1, 2, 3], ["bad", "good"], {"1": "bad", "2": "bad", "3": "good"}, [0, 0, 1]),
        (["nan"], ["a", "b"], {"nan": "b"}, [1]),
    ],
)
def test_a_label_map_comes_first(values, names, label_map, labels):
    found = read(values, names, label_map)
    assert (found.mapping.rule, found.labels) == ("map", labels)


@pytest.mark.parametrize(
    ("values", "names", "label_map", "message"),
    [
        (
            ["a", "c"],
            ["x", "y"],
            {"a": "x", "b": "y"},
            "row 2: .*'c' is not in the label map, which has a, b",
        ),
        (["x"], ["x", "y"], {"a": "x"}, "row 1: .*'x' is not in the label map"),
        (["a"], ["x", "y"], {"a": "x", "b": "z"}, "class 'z' of label 'b' is not one of the model's: x, y"),
        (["a"], ["x", "y"], {"a": "2"}, "class '2' of label 'a'"),
        (["a", "b"], ["x", "y"], {"a": "0", "b": "x"}, "class '0' of label 'a'"),
        ([1], STARS, {"1": "0"}, "class '0' of label '1'"),
    ],
)
def test_a_label_map_that_does_not_fit_is_refused(values, names, label_map, message):
    with pytest.raises(UserError, match=message):
        read(values, names, label_map)


def test_declared_names_are_labels_whatever_they_look_like():
    found = read([0, 1, 2, 3], declared=["-1", "nan", "[1]", "x"], from_hub=True)
    assert found.labels == [0, 1, 2, 3]


def test_a_label_map_with_a_class_that_is_not_declared_is_refused():
    with pytest.raises(UserError, match="declares no class 'c'; it has a, b"):
        read([0, 1], label_map={"a": "x", "c": "y"}, declared=["a", "b"])


def test_in_training_a_label_map_renames_and_keeps_the_order_of_the_labels():
    found = read([1, 0, 2], label_map={"0": "worst", "1": "fine", "2": "best"}, learns=True)
    assert (found.names, found.labels) == (["worst", "fine", "best"], [1, 0, 2])
    assert read([1, 0], found.names).labels == [1, 0]
    merged = read([5, 1, 2, 4], label_map={"1": "bad", "2": "bad", "4": "good", "5": "good"}, learns=True)
    assert (merged.names, merged.labels) == (["bad", "good"], [1, 0, 0, 1])


# what is recorded ------------------------------------------------------------------------------------


def test_a_mapping_is_recorded_in_the_order_of_the_classes():
    mapping = read([1, 0, 1], ["negative", "positive"]).mapping
    assert mapping.record() == {"rule": "index", "map": {"0": "negative", "1": "positive"}}
    assert mapping.line == "labels: 0 -> negative, 1 -> positive (by index)"


def test_labels_that_are_the_names_need_no_line():
    assert read(["b", "a"], ["a", "b"]).mapping.line is None
    assert read(["b", "a"], ["A", "B"]).mapping.line == "labels: a -> A, b -> B (by name)"


def test_the_line_of_many_labels_is_short():
    line = read(list(range(100)), [f"c{i}" for i in range(100)]).mapping.line
    assert line.startswith("labels: 0 -> c0, ")
    assert line.endswith(" and 80 more (by index)")


def test_unread_labels_have_their_reason():
    mapping = LabelMapping("unread", reason="row 3 has none")
    assert mapping.record() == {"rule": "unread", "map": {}, "reason": "row 3 has none"}
    assert mapping.line == "labels: not used: row 3 has none"


def test_absent_classes_are_named():
    assert absent_classes([0, 2, 0], ["a", "b", "c", "d"]) == ["b", "d"]


# numbers ---------------------------------------------------------------------------------------------


def test_numbers_are_read_from_numbers_and_texts():
    values = [1, 2.5, " 3.5 ", "-1e1", Decimal("0.5")]
    assert number_labels(LabelValues(Column("x", "y"), values)) == [1.0, 2.5, 3.5, -10.0, 0.5]


@pytest.mark.parametrize("bad", [b"1", True, [1.0], {"a": 1}, "1,5", "1_000", "", "inf", 10**400, "١"])
def test_what_is_no_number_is_refused_by_row(bad):
    with pytest.raises(UserError, match=r"row 2: .* is no number"):
        number_labels(LabelValues(Column("x", "y"), [1.0, bad, 3.0]))
