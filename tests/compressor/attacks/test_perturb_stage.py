"""Perturbations: the same texts for every model, and figures that follow from the answers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.attacks import perturbations
from compressor.attacks.perturb_stage import perturb_directory
from compressor.attacks.perturbations import CASES, PIECE, changed_share, perturbed_texts, pieces
from compressor.data.texts import TextData
from compressor.errors import UserError
from compressor.models.classifier import load_classifier
from compressor.models.predictors import TorchPredictor, predict
from compressor.options import ColumnsConfig, PerturbConfig, RunConfig
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from compressor.system.files import read_json

COLUMNS = ColumnsConfig(max_length=48)
RUN = RunConfig(device="cpu", threads=2)
EXAMPLES = 24


@pytest.fixture(scope="module")
def config(wordnet):
    return PerturbConfig(wordnet=str(wordnet), perturbed_examples=EXAMPLES)


def perturbed(data, config, seed=0):
    return perturbed_texts(data, config, seed, SilentProgress())[0]


def test_the_same_seed_and_text_give_the_same_perturbation(test_quotes, config):
    data = test_quotes.select(range(EXAMPLES))
    found = perturbed(data, config)
    assert {kind: texts.texts for kind, texts in found.items()} == {
        kind: texts.texts for kind, texts in perturbed(data, config).items()
    }
    assert found["typos"].texts != perturbed(data, config, seed=1)["typos"].texts
    # A text's form depends on its place alone, not on those before it.
    other = test_quotes.select([30, *range(1, EXAMPLES)])
    assert perturbed(other, config)["typos"].texts[1:] == found["typos"].texts[1:]


def test_typos_and_synonyms_change_their_share_of_the_words(test_quotes, config):
    data = test_quotes.select(range(EXAMPLES))
    found = perturbed(data, config)
    for kind in ("typos", "synonyms"):
        for before, after in zip(data.texts, found[kind].texts, strict=True):
            words, others = before.split(), after.split()
            if len(words) == len(others):
                changed = sum(a != b for a, b in zip(words, others, strict=True))
                assert changed <= max(1, int(0.15 * len(words))) + 1
    assert changed_share(data, found)["typos"] == 1.0
    assert changed_share(data, found)["synonyms"] > 0.3


def test_casing_changes_case_alone(test_quotes, config):
    data = test_quotes.select(range(EXAMPLES))
    for before, after in zip(data.texts, perturbed(data, config)["casing"].texts, strict=True):
        assert after in {case(before) for case in CASES}
        assert after.casefold() == before.casefold()


def test_of_a_pair_the_second_text_is_perturbed(config):
    data = TextData(["a good film"], ["a wonderful movie"], [0], ["0", "1"], "here")
    for texts in perturbed(data, config).values():
        assert texts.texts == data.texts
        assert len(texts.pairs) == 1


@pytest.mark.parametrize("text", ["", " ", "...", "\0", "😀", "x" * 2000])
def test_odd_texts_are_perturbed_or_left_as_they_are(text, config):
    data = TextData([text, text], None, [0, 1], ["0", "1"], "here")
    assert all(len(texts) == 2 for texts in perturbed(data, config).values())


def test_only_what_was_asked_for(test_quotes):
    data = test_quotes.select(range(3))
    found, resources = perturbed_texts(data, PerturbConfig(perturbations=["casing"]), 0, SilentProgress())
    assert list(found) == ["casing"]
    assert resources == {}


# the stage --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stage(critic_quotes, config, tmp_path_factory):
    def run(model, config=config, against=None):
        output = tmp_path_factory.mktemp("perturbed") / "out"
        data = str(critic_quotes / "test.tsv")
        record = perturb_directory(
            str(model),
            data,
            config,
            Context(output=output, columns=COLUMNS, run=RUN, progress=SilentProgress()),
            against,
        ).model_dump()
        return output, record

    return run


@pytest.fixture(scope="module")
def dense(stage, small_classifier_dir):
    return stage(small_classifier_dir)


def test_figures_are_those_of_the_texts_that_are_written(dense, small_classifier_dir):
    output, record = dense
    lines = [json.loads(line) for line in (output / "perturbed.jsonl").read_text().rstrip("\n").split("\n")]
    predictor = TorchPredictor(load_classifier(str(small_classifier_dir)))
    labels = [line["label"] for line in lines]
    rights = []
    for row in record["perturbations"][:-1]:
        texts = [line["texts"][row["kind"]][0] for line in lines]
        answers = predict(predictor, TextData(texts, None, None, ["0", "1"], "here"), 48).argmax(axis=1)
        rights.append([int(a) == b for a, b in zip(answers, labels, strict=True)])
        assert row["accuracy"] == sum(rights[-1]) / EXAMPLES
        assert rights[-1] == [line["right"][row["kind"]] for line in lines]
    assert record["perturbations"][-1]["kind"] == "all"
    assert record["perturbations"][-1]["accuracy"] == sum(map(all, zip(*rights, strict=True))) / EXAMPLES
    assert read_json(output / "perturbations.json")["perturbations"] == record["perturbations"]


def test_two_models_are_compared_on_the_same_texts(dense, stage, small_artifact_dir):
    _, record = stage(small_artifact_dir, against=dense[0])
    before = {row["kind"]: row["accuracy"] for row in dense[1]["perturbations"]}
    for row in record["perturbations"]:
        drop = record["against"]["accuracy_drop"][row["kind"]]
        assert drop["difference"] == pytest.approx(before[row["kind"]] - row["accuracy"])


def test_other_texts_do_not_compare(dense, stage, small_classifier_dir, config):
    with pytest.raises(UserError, match="other texts were perturbed"):
        stage(small_classifier_dir, config.model_copy(update={"perturbed_share": 0.5}), against=dense[0])


def test_a_folder_without_perturbations_is_one_line(stage, small_classifier_dir, tmp_path):
    with pytest.raises(UserError, match=r"perturbations\.json: no such file"):
        stage(small_classifier_dir, against=tmp_path)


def test_a_long_text_is_changed_in_its_share_of_the_words(config):
    text = " ".join(f"word{number}" for number in range(1_050)) + "\n"
    data = TextData([text], None, [0], ["a", "b"], "texts")
    found = perturbed(data, config.model_copy(update={"perturbations": ["typos"]}))["typos"].texts[0]
    changed = [a != b for a, b in zip(text.split(), found.split(), strict=True)]
    share = config.perturbed_share
    assert sum(changed) == 4 * int(share * 200) + int(share * 250)
    assert all(any(changed[start : start + PIECE]) for start in range(0, 1_000, PIECE))
    assert found.endswith("\n")


@given(st.text(" \n\u2028ab"), st.integers(1, 4))
def test_pieces_are_the_text(text, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perturbations, "PIECE", size)
        found = pieces(text)
    assert "".join(found) == text
    counts = [len(piece.split()) for piece in found]
    assert set(counts[:-1]) <= {size}
    assert counts[-1] < 2 * size
