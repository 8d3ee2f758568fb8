"""Texts whose words are replaced by close ones while a model is trained."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stopping import StopBefore, StoppedError

from compressor.data.texts import TextData
from compressor.errors import UserError
from compressor.lexicon.word_vectors import WordVectors
from compressor.models.batching import encode, pad
from compressor.models.classifier import weights_fingerprint
from compressor.options import ColumnsConfig, FinetuneConfig, RunConfig
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from compressor.system.files import read_json
from compressor.training import checkpoint as training_checkpoint
from compressor.training import loop as training_module
from compressor.training.finetune_stage import finetune_directory
from compressor.training.loop import TrainingSet, train
from compressor.training.mixture import SubstitutionWords, mixture_of, written_as
from compressor.training.schedule import Schedule
from compressor.training.substitution import WORD, with_words
from compressor.training.word_substitution import (
    DrawnSubstitution,
    substituted,
)

CLOSE = {"good": ["fine", "decent"], "film": ["movie"], "dull": ["boring"]}
LENGTH = 32


def close_to(word, generator):
    """Close words, written as the replaced one."""
    return [written_as(word, other) for other in CLOSE.get(word.lower(), ())]


def generator(seed=0):
    return np.random.default_rng(seed)


def neighbours(vectors):
    return mixture_of(FinetuneConfig(), SubstitutionWords(vectors)).replacements


@pytest.fixture
def vectors():
    """Five words: two that are close, an opposite, one at a cosine of 0.6 of the first, and a stop word."""
    table = np.array([[1, 0], [0.96, 0.28], [-1, 0], [0.6, 0.8], [1, 0]], dtype=np.float32)
    order = np.argsort(-(table @ table.T) - 10 * np.eye(5), axis=1)
    return WordVectors(["good", "fine", "bad", "able", "the"], table, order, "made here")


@given(text=st.text(alphabet="godfilmDUL .,'\n😀é1", max_size=60), seed=st.integers(0, 99))
def test_what_is_no_word_stays_and_words_are_replaced_by_close_ones(text, seed):
    found = substituted(text, close_to, 1.0, generator(seed))
    assert WORD.split(found) == WORD.split(text)
    for before, after in zip(WORD.findall(text), WORD.findall(found), strict=True):
        assert after.lower() in (CLOSE.get(before.lower()) or [before.lower()])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("film", "movie"), ("Film", "Movie"), ("FILM", "MOVIE"), ("a filmed Film.", "a filmed Movie.")],
)
def test_a_replacement_is_written_as_the_word_was(text, expected):
    assert substituted(text, close_to, 1.0, generator()) == expected


def test_share_is_that_of_the_words_with_close_ones():
    text = "film so " * 5000
    found = substituted(text, close_to, 0.3, generator())
    assert found.count("movie") / 5000 == pytest.approx(0.3, abs=0.03)
    assert found.count("so") == 5000
    assert substituted(text, close_to, 0.0, generator()) == text


@given(
    parts=st.lists(
        st.tuples(st.sampled_from(["film", "x"]), st.text(alphabet=" .,😀é1'", max_size=3), st.booleans())
    )
)
def test_replacing_changes_these_words_and_nothing_else(parts):
    text = "".join(word + between for word, between, _ in parts)
    expected, replaced, at = "", [], 0
    for word, between, is_replaced in parts:
        if is_replaced:
            replaced.append((at, at + len(word), "movie"))
        expected += ("movie" if is_replaced else word) + between
        at += len(word) + len(between)
    assert with_words(text, replaced) == expected


@pytest.mark.parametrize(
    ("text", "dropped", "expected"),
    [
        ("a good film", (2, 6), "a film"),
        ("good film", (0, 4), "film"),
        ("a film.", (2, 6), "a."),
        ("(film)s", (1, 5), "()s"),
        ("film", (0, 4), "film"),
    ],
)
def test_with_a_dropped_word_goes_a_space_and_something_is_left(text, dropped, expected):
    assert with_words(text, [(*dropped, "")]) == expected


def test_each_step_sees_others_and_a_repeated_one_the_same(small_classifier, vectors):
    data = TextData(["good good good good good good", "so"] * 2, None, [0, 1, 0, 1], ["a", "b"], "here")
    tokenizer = small_classifier.tokenizer
    substitution = DrawnSubstitution(tokenizer, data, LENGTH, neighbours(vectors), 0.5, 3)
    steps = [substitution.encoded([0, 1, 2], step) for step in range(4)]
    again = DrawnSubstitution(tokenizer, data, LENGTH, neighbours(vectors), 0.5, 3)
    assert steps[2] == again.encoded([0, 1, 2], 2)
    # What a text becomes depends on nothing that is beside it in a batch.
    assert substitution.encoded([2], 1) == steps[1][2:]
    assert len({str(step[0]) for step in steps}) == 4
    assert steps[0][0] != steps[0][2]
    words = tokenizer.convert_ids_to_tokens(steps[0][0][0])
    assert set(words) <= {"[CLS]", "[SEP]", "good", "fine", "able", "the"}


def test_both_texts_of_a_pair_are_varied(small_classifier, vectors):
    data = TextData(["good " * 9], ["good " * 9], [0], ["a", "b"], "here")
    close = neighbours(vectors)
    substitution = DrawnSubstitution(small_classifier.tokenizer, data, LENGTH, close, 1.0, 0)
    [(ids, types)] = substitution.encoded([0], 0)
    words = small_classifier.tokenizer.convert_ids_to_tokens(ids)
    assert "good" not in words
    assert len(words) == 21
    assert sum(types) == 10


def test_without_substitution_a_step_sees_the_texts(small_classifier):
    data = TrainingSet([([1], [0]), ([2], [0])], torch.tensor([0, 1]))
    seen = data.texts_at([1, 0], 5, small_classifier.model, torch.tensor([1, 0]))
    assert seen == [([2], [0]), ([1], [0])]


def test_of_several_draws_each_text_is_trained_on_as_the_model_does_worst_on_it(small_classifier, vectors):
    data = TextData(["good " * 6, "bad good good", "so", "good bad"], None, [0, 1, 0, 1], ["a", "b"], "here")
    tokenizer, close, model = small_classifier.tokenizer, neighbours(vectors), small_classifier.model
    labels = torch.tensor(data.class_labels)
    substitution = DrawnSubstitution(tokenizer, data, LENGTH, close, 0.5, 0, draws=5)
    places = [2, 0, 3, 1]
    draws = [substitution.encoded(places, 0, draw) for draw in range(5)]
    once = DrawnSubstitution(tokenizer, data, LENGTH, close, 0.5, 0)
    assert once.seen(places, 0, model, labels[places]) == draws[0]
    losses = {}
    for draw in draws:
        for place, text in zip(places, draw, strict=True):
            loss = loss_on(small_classifier, text, labels[[place]])
            losses[place] = max(losses.get(place, (-1.0, None)), (loss, str(text[0])))
    seen = substitution.seen(places, 0, model, labels[places])
    assert [str(ids) for ids, _ in seen] == [losses[place][1] for place in places]


def test_a_step_trains_on_what_the_substitution_gives(small_classifier, vectors, monkeypatch):
    data = TextData(["good " * 6, "bad good good", "so", "good bad"], None, [0, 1, 0, 1], ["a", "b"], "here")
    tokenizer = small_classifier.tokenizer
    labels = torch.tensor(data.class_labels)
    substitution = DrawnSubstitution(tokenizer, data, LENGTH, neighbours(vectors), 0.5, 0, draws=5)
    training = TrainingSet(encode(tokenizer, data, LENGTH), labels, substitution=substitution)
    places, seen = [2, 0, 3, 1], []
    expected = substitution.seen(places, 0, small_classifier.model, labels[places])
    monkeypatch.setattr(training_module, "_endless_batches", lambda *_: iter([places]))
    monkeypatch.setattr(training_module, "pad", lambda *a, **k: seen.append(a[0]) or pad(*a, **k))
    train(small_classifier, training, Schedule(steps=1, learning_rate=1e-4, batch_size=4), seed=0)
    assert seen == [expected]


@pytest.mark.parametrize("count", [1, 2, 7, 32])
def test_half_of_a_batch_is_also_seen_perturbed_and_the_other_half_next(count):
    first, second = (training_module.perturbed_rows(count, step) for step in (0, 1))
    assert sorted({*first, *second}) == list(range(count))
    assert abs(len(first) - len(second)) <= 1
    assert count == 1 or not set(first) & set(second)


def loss_on(classifier, text, label):
    with torch.no_grad():
        logits = classifier.model(**pad([text], classifier.tokenizer.pad_token_id)).logits
    return torch.nn.functional.cross_entropy(logits, label).item()


def finetuned(encoder, quotes_folder, output, vectors_file, progress=None, resume=False, **options):
    config = {"epochs": 1, "batch_size": 64, "substituted_share": 0.3, "substitution_vectors": vectors_file}
    return finetune_directory(
        str(encoder),
        str(quotes_folder / "small.tsv"),
        FinetuneConfig.model_validate(config | options),
        Context(
            output=output,
            columns=ColumnsConfig(max_length=LENGTH),
            run=RunConfig(device="cpu", threads=2),
            resume=resume,
            progress=progress or SilentProgress(),
        ),
    ).model_dump()


@pytest.mark.parametrize("choice", ["drawn", "gradient"])
def test_a_training_with_it_goes_on_to_the_same_bits(
    small_encoder_dir, critic_quotes, tmp_path, vectors_file, monkeypatch, choice
):
    lines = (critic_quotes / "small.tsv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "small.tsv").write_text("\n".join(lines[:193]), encoding="utf-8")
    training = partial(finetuned, small_encoder_dir, tmp_path, substitution_choice=choice)
    whole = training(tmp_path / "whole", vectors_file)
    assert whole["substitution_vectors"].startswith("words.npz (sha256 ")
    assert read_json(tmp_path / "whole" / "training.json")["options"]["substituted_share"] == 0.3
    # The state is large: to keep it at each step takes longer than the step.
    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(training_checkpoint, "SECONDS_BETWEEN", 0.0)
        training(tmp_path / "parts", vectors_file, StopBefore(2, "Fine-tuning"))
    training(tmp_path / "parts", vectors_file, resume=True)
    assert weights_fingerprint(str(tmp_path / "parts")) == whole["sha256"]
    plain = training(tmp_path / "plain", None, substituted_share=0.0)
    assert plain["substitution_vectors"] is None
    assert plain["sha256"] != whole["sha256"]


def test_missing_vectors_are_told_before_training(small_encoder_dir, critic_quotes, tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.npz: cannot be read as word vectors"):
        finetuned(small_encoder_dir, critic_quotes, tmp_path / "out", "nowhere.npz")
    assert not (tmp_path / "out").exists()
