"""Texts that an export works with: which of a source are not those of its proof."""

from types import SimpleNamespace

import pytest

from compressor.data.texts import TextData
from compressor.errors import UserError
from compressor.options import ColumnsConfig, ExportConfig, RunConfig
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from exporters import texts as module
from exporters.texts import places_of_others, texts_to_fit


def texts(*rows):
    firsts = [row[0] for row in rows]
    pairs = [row[1] for row in rows] if len(rows[0]) == 2 else None
    return TextData(firsts, pairs, None, [], "texts")


@pytest.mark.parametrize(
    ("drawn", "proof", "expected"),
    [
        (texts("a", "b", "c"), texts("b"), [0, 2]),
        # One text of a pair may be that of another pair.
        (texts("ab", "ac", "cb"), texts("ac"), [0, 2]),
        (texts("ab", "cd", "ef"), texts("d"), [0, 2]),
        (texts("a", "b", "c", "d"), texts("ac"), [1, 3]),
        (texts("a", "a"), texts("a"), []),
    ],
)
def test_others_are_in_no_example_of_the_proof(drawn, proof, expected):
    assert places_of_others(drawn, proof) == expected


OTHERS = texts(("others",))


@pytest.fixture
def fit(tmp_path, monkeypatch):
    """What int8 is fitted to, for options and sources, of a model whose record names a file, or nothing."""
    made_with, given = tmp_path / "made.tsv", tmp_path / "given.tsv"
    made_with.write_text("text\nmade with\n")
    given.write_text("text\ngiven\n")

    def found(precision="int8", rounding="fitted", data_source="proof.tsv", source=None, recorded=made_with):
        record = recorded and {"data": {"source": str(recorded), "columns": ColumnsConfig().model_dump()}}
        monkeypatch.setattr(module, "stage_record", lambda _: record)
        classifier = SimpleNamespace(source="model", label_names=["a", "b"])
        config = ExportConfig(precision=precision, rounding=rounding)
        context = Context(
            output=tmp_path / "out", columns=ColumnsConfig(), run=RunConfig(), progress=SilentProgress()
        )
        source = given if source else None
        return texts_to_fit(classifier, OTHERS, data_source, source and str(source), config, context).texts

    return found


@pytest.mark.parametrize("precision", ["int8", "int8-static"])
def test_texts_that_are_given_come_first(fit, precision):
    assert fit(precision, source=True) == ["given"]


def test_texts_that_the_model_was_made_with_come_before_those_of_the_proof(fit, tmp_path):
    assert fit() == ["made with"]
    # The proof takes some of the same file, the others are not among them.
    assert fit(data_source=None) == ["others"]
    assert fit(recorded=None) == ["others"]
    assert fit(recorded=tmp_path / "gone.tsv") == ["others"]
    assert fit(recorded="a/hub-id") == ["others"]


def test_int8_static_never_takes_texts_of_the_proof(fit, tmp_path):
    assert fit("int8-static") == ["made with"]
    for recorded in (None, tmp_path / "gone.tsv"):
        with pytest.raises(UserError, match="--calibration where int8-static needs them"):
            fit("int8-static", recorded=recorded)


def test_nothing_is_read_where_nothing_is_fitted(fit):
    assert fit("fp32", source=True) == fit("int8-dynamic") == fit(rounding="nearest") == ["others"]
    assert fit("int8-static", rounding="nearest") == ["made with"]
