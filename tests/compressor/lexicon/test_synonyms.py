"""Synonyms: WordNet's files read by their manual, and the thesaurus that stands in for them."""

import pytest

from compressor.errors import UserError
from compressor.lexicon.synonyms import WordNet, thesaurus_synonyms, wordnet_synonyms
from compressor.lexicon.word_vectors import load_word_vectors
from compressor.system.console import SilentProgress

SYNSETS = {
    "noun": [["film", "movie", "motion_picture"], ["film", "membrane"], ["woman", "adult_female"]],
    "verb": [["film", "shoot"], ["go", "travel", "move"], ["shine", "beam"]],
    "adj": [["good", "fine(a)"], ["nice", "good(p)", "Pleasing"]],
    "adv": [["well", "good"]],
}


@pytest.fixture
def files(tmp_path, write_wordnet):
    return write_wordnet(tmp_path, SYNSETS, {"went": "go", "gone": "go"})


@pytest.mark.parametrize(
    ("word", "synonyms"),
    [
        ("film", ["membrane", "movie", "shoot"]),  # each sense of each part of speech, no phrases
        ("films", ["film", "membrane", "movie", "shoot"]),  # a detached ending
        ("women", ["woman"]),
        ("filming", ["film", "shoot"]),
        ("shining", ["beam", "shine"]),  # ing gives way to e
        ("went", ["go", "move", "travel"]),  # an exception
        ("good", ["Pleasing", "fine", "nice", "well"]),  # markers of adjectives are no part of the word
        ("fines", []),  # adjectives have no plural
        ("unheard", []),
    ],
)
def test_synonyms_are_those_of_all_senses_of_the_base_forms(files, word, synonyms):
    assert WordNet(files).get(word, []) == synonyms


def test_the_description_names_the_file(files):
    assert "sha256 of data.noun" in wordnet_synonyms(files).description


@pytest.mark.parametrize("damage", ["missing", "foreign", "empty folder"])
def test_no_wordnet_is_one_line_with_the_way_out(files, tmp_path, damage):
    folder = files
    if damage == "missing":
        (files / "data.adv").unlink()
    elif damage == "foreign":
        (files / "index.noun").write_text("not a database\n")
    else:
        folder = tmp_path / "none"
    with pytest.raises(UserError, match="wordnet-base") as caught:
        wordnet_synonyms(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_thesaurus_has_near_words_under_a_common_head(word_vectors):
    vectors = load_word_vectors(word_vectors, SilentProgress())
    found = thesaurus_synonyms(vectors)
    places = {word: place for place, word in enumerate(vectors.words)}
    assert found.of
    for word, synonyms in found.of.items():
        assert synonyms == sorted(synonyms)
        assert word not in synonyms
        assert all(vectors.vectors[places[word]] @ vectors.vectors[places[s]] >= 0.6 for s in synonyms)
