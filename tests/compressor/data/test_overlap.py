"""Texts that models are made with and tested on are found, counted and refused unless they are allowed."""

import json
from dataclasses import replace

import pytest

from compressor.config.recipe import Recipe
from compressor.data.overlap import check_made_with, check_shared, shared_rows
from compressor.data.texts import TextData, load_text_data
from compressor.errors import UserError
from compressor.options import ColumnsConfig, DataConfig, FinetuneConfig, SoupConfig
from compressor.pipeline import run as pipeline

TEXTS = ["a film", "a second film", "nothing else", "a third one"]


def data(texts, pairs=None, labels=None, source="own.tsv"):
    return TextData(list(texts), pairs, labels, ["n", "p"], source)


@pytest.mark.parametrize(
    ("own", "tested", "expected"),
    [
        (data(TEXTS), data(["others"]), []),
        (data(TEXTS), data(TEXTS), [0, 1, 2, 3]),
        (data(TEXTS), data(["nothing else"]), [2]),
        (data(["x", "x", "y"]), data(["x"]), [0, 1]),
        (data(["a  film", " a\tfilm\n", "a\u00a0film", "A film"]), data(["a film"]), [0, 1, 2]),
        (data(["a film"], labels=[0]), data(["a film"], labels=[1]), [0]),
        (data(["a", "a"], ["b", "c"]), data(["a"], ["b "]), [0]),
        (data(["a b"]), data(["a"], ["b"]), []),
        (data(["a"]), data(["a"], ["b"]), []),
        (data(["a"], ["b"]), data(["b"], ["a"]), []),
    ],
)
def test_texts_and_pairs_are_shared_whatever_their_white_space_and_labels(own, tested, expected):
    assert shared_rows(own, tested) == expected


def test_shared_texts_are_refused_with_count_rows_and_a_way_out():
    own = data([f"text {place}" for place in range(9)])
    tested = data([f"text {place}" for place in range(2, 30)], source="test.tsv")
    with pytest.raises(UserError) as caught:
        check_shared("data.calibration", own, tested, allowed=False)
    text = str(caught.value)
    assert "data.calibration: own.tsv: 7 of its 9 texts are test texts too (test.tsv)" in text
    assert "rows 3, 4, 5, 6, 7, ...," in text
    assert "data.allow_test_texts" in text
    assert check_shared("data.calibration", own, tested, allowed=True) == 7


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Clean data of three kinds; there is no model."""
    # There is no model whose labels could be asked for.
    monkeypatch.setattr(pipeline, "labels_of_run", lambda recipe, task: None)
    for name in ("train", "calibration", "test"):
        lines = [f"{name} text {place}\t{'np'[place % 2]}" for place in range(6)]
        (tmp_path / f"{name}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
    places = {name: str(tmp_path / f"{name}.tsv") for name in ("train", "calibration", "test")}
    return Recipe(model="m", data=DataConfig(**places))


def append(recipe, role, row):
    with open(getattr(recipe.data, role), "a") as file:  # noqa: PTH123
        file.write(row + "\n")


@pytest.mark.parametrize("sections", [{"finetune": FinetuneConfig()}, {"soup": SoupConfig()}])
def test_a_run_counts_the_test_texts_in_all_that_it_makes_models_with(recipe, sections):
    trained = recipe.model_copy(update=sections)
    assert pipeline.check_texts(recipe, "classification") == {"calibration": 0}
    assert pipeline.check_texts(trained, "classification") == {"calibration": 0, "train": 0}
    append(recipe, "train", "test  text 1\tn")
    assert pipeline.check_texts(recipe, "classification") == {"calibration": 0}
    with pytest.raises(UserError, match=r"data\.train: .* 1 of its 7 texts .* in rows 7,"):
        pipeline.check_texts(trained, "classification")
    append(recipe, "calibration", "test text 0\tp")
    with pytest.raises(UserError, match=r"data\.calibration: "):
        pipeline.check_texts(recipe, "classification")
    allowed = trained.model_copy(update={"data": recipe.data.model_copy(update={"allow_test_texts": True})})
    assert pipeline.check_texts(allowed, "classification") == {"calibration": 1, "train": 1}


def test_texts_of_the_vocabulary_are_no_test_texts_either(recipe, tmp_path):
    path = tmp_path / "vocabulary.tsv"
    path.write_text("text\nnew words\n")
    own = recipe.model_copy(update={"data": recipe.data.model_copy(update={"vocabulary": str(path)})})
    assert pipeline.check_texts(own, "classification") == {"calibration": 0, "vocabulary": 0}
    append(own, "vocabulary", "test text 0")
    with pytest.raises(UserError, match=r"data\.vocabulary: .* 1 of its 2 texts"):
        pipeline.check_texts(own, "classification")


def test_the_same_file_twice_is_found(recipe):
    same = recipe.data.model_copy(update={"calibration": recipe.data.test})
    with pytest.raises(UserError, match="6 of its 6 texts"):
        pipeline.check_texts(recipe.model_copy(update={"data": same}), "classification")


@pytest.mark.parametrize(
    ("record", "role"),
    [("training.json", "train"), ("soup.json", "train"), ("pruning.json", "calibration")],
)
def test_a_model_that_was_made_with_the_test_texts_is_found_by_its_record(tmp_path, record, role):
    tested = data(TEXTS, labels=[0, 1, 0, 1], source="test.tsv")
    made_with = replace(tested, labels=None, texts=[f" {text} " for text in TEXTS])
    path = tmp_path / record
    path.write_text(json.dumps({"data": made_with.record(ColumnsConfig())}))
    directories = {"dense": "some/hub-id", "pruned": str(tmp_path)}
    with pytest.raises(UserError, match=rf"test\.tsv: .*{record}.*--allow-test-texts"):
        check_made_with(directories, tested, allowed=False)
    assert check_made_with(directories, tested, allowed=True) == {role: 4}
    assert check_made_with(directories, data(["others"]), allowed=False) == {role: 0}
    path.write_text(json.dumps({"data": {"fingerprint": tested.fingerprint}}))
    with pytest.raises(UserError):
        check_made_with(directories, tested, allowed=False)


@pytest.mark.parametrize("content", ["[]", "{}", '{"data": null}', '{"data": "text"}', '{"data": {}}'])
def test_a_record_without_data_says_nothing(tmp_path, content):
    (tmp_path / "training.json").write_text(content)
    assert check_made_with({"dense": str(tmp_path)}, data(TEXTS), allowed=False) == {"train": 0}


def test_the_texts_of_the_quickstart_are_on_one_side_only(critic_quotes):
    train, test = (
        load_text_data(str(critic_quotes / f"{name}.tsv"), ColumnsConfig(), "train")
        for name in ("train", "test")
    )
    assert shared_rows(train, test) == []
