"""What may replace a word: kinds of substitutions with weights."""

from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

from compressor.errors import UserError
from compressor.lexicon.synonyms import Synonyms
from compressor.lexicon.word_vectors import WordVectors
from compressor.options import AdaptiveConfig, FinetuneConfig, parse_mixture
from compressor.system.console import SilentProgress
from compressor.training.mixture import (
    Mixture,
    SubstitutionWords,
    close_words,
    load_substitution_words,
    mixture_of,
    written_as,
)


def generator(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def vectors():
    """Five words: two that are close, an opposite, one at a cosine of 0.6 of the first, and a stop word."""
    table = np.array([[1, 0], [0.96, 0.28], [-1, 0], [0.6, 0.8], [1, 0]], dtype=np.float32)
    order = np.argsort(-(table @ table.T) - 10 * np.eye(5), axis=1)
    return WordVectors(["good", "fine", "bad", "able", "the"], table, order, "made here")


def mixture(text, vectors=None, synonyms=None):
    words = SubstitutionWords(vectors, synonyms and Synonyms(synonyms, "made here"))
    return mixture_of(FinetuneConfig(substitution_mixture=text), words)


def drawn(found, word, count=200):
    return {other for seed in range(count) for other in found.replacements(word, generator(seed))}


def test_close_words_are_neighbours_from_textfoolers_cosine_on(vectors):
    close = close_words(vectors)
    assert sorted(close("good")) == ["able", "fine", "the"]
    assert close("bad") == []
    assert close("unheard") == ()


def test_each_kind_has_its_own_replacements(vectors):
    synonyms = {"good": ["sound"]}
    assert drawn(mixture("words", vectors), "Good") == {"Able", "Fine", "The"}
    assert drawn(mixture("synonyms", None, synonyms), "GOOD") == {"SOUND"}
    assert drawn(mixture("casing"), "good") == {"GOOD", "Good"}
    assert drawn(mixture("dropped"), "good") == {""}
    assert all(other.isascii() and other != "good" for other in drawn(mixture("letters"), "good"))
    assert all(not other.isascii() for other in drawn(mixture("homoglyphs"), "good"))


def test_stop_words_stay(vectors):
    whole = "words,synonyms,letters,homoglyphs,casing,dropped"
    for word in ("the", "The", "NOT"):
        assert drawn(mixture(whole, vectors, {"not": ["never"]}), word) == set()


def test_kinds_are_drawn_by_weight_among_those_that_have_something():
    kinds = [(3.0, lambda word, _: ["a"]), (1.0, lambda word, _: ["b"] if word == "both" else [])]
    found = Mixture(kinds)
    counts = Counter(found.replacements("both", generator(seed))[0] for seed in range(4000))
    assert counts["a"] / 4000 == pytest.approx(0.75, abs=0.03)
    assert {tuple(found.replacements("one", generator(seed))) for seed in range(50)} == {("a",)}
    assert Mixture(kinds[1:]).replacements("one", generator()) == ()


@pytest.mark.parametrize(
    ("word", "other", "expected"),
    [("film", "movie", "movie"), ("Film", "movie", "Movie"), ("FILM", "movie", "MOVIE"), ("A", "b", "B")],
)
def test_a_replacement_is_written_as_the_word_was(word, other, expected):
    assert written_as(word, other) == expected


def test_a_mixture_is_read_in_a_fixed_order():
    assert parse_mixture(" letters:2, words ") == {"words": 1.0, "letters": 2.0}
    assert list(parse_mixture("dropped,casing,words")) == ["words", "casing", "dropped"]


@pytest.mark.parametrize(
    "text", ["", "word", "letters:0", "letters:-1", "letters:x", "letters:inf", "letters:nan"]
)
def test_an_unknown_kind_or_weight_is_named(text):
    with pytest.raises(ValidationError, match="is no kind with a weight above 0"):
        FinetuneConfig(substitution_mixture=text)


def test_a_kind_is_given_once():
    with pytest.raises(ValidationError, match="letters occurs twice"):
        AdaptiveConfig(robust=True, substitution_mixture="letters,letters:2")


def test_only_what_a_mixture_needs_is_loaded(vectors_file):
    def loaded(**options):
        config = FinetuneConfig(substitution_vectors=vectors_file, **options)
        return load_substitution_words(config, SilentProgress())

    assert loaded(substitution_mixture="letters,casing").record() == {
        "substitution_vectors": None,
        "substitution_synonyms": None,
    }
    assert loaded().record()["substitution_vectors"].startswith("words.npz (sha256 ")
    found = loaded(substitution_mixture="synonyms")
    assert found.vectors is not None
    assert found.synonyms.description.startswith("Roget's thesaurus")
    with pytest.raises(UserError, match="cannot be read as WordNet's database files"):
        loaded(substitution_mixture="synonyms", substitution_wordnet="nowhere")


def test_vectors_come_from_the_packaged_encoder_if_no_file_is_named():
    found = load_substitution_words(FinetuneConfig(), SilentProgress()).vectors
    assert "words encoded by" in found.description
    assert "terrible" in close_words(found)("awful")
