"""Words as people misspell and disguise them."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.training.misspelling import (
    EDITS,
    HOMOGLYPHS,
    KEYS_BESIDE,
    deleted,
    disguised,
    inserted,
    misspelt,
    mistyped,
    replaced,
    swapped,
)

WORDS = st.text(alphabet="abcdefghijklmnopqrstuvwxyzABCXYZéß😀ж", min_size=1, max_size=12)
SEEDS = st.integers(0, 999)


def generator(seed=0):
    return np.random.default_rng(seed)


@given(word=WORDS, seed=SEEDS)
def test_each_edit_is_of_one_place_in_the_word(word, seed):
    assert sorted(swapped(word, generator(seed))) == sorted(word)
    shorter = deleted(word, generator(seed))
    assert any(shorter == word[:i] + word[i + 1 :] for i in range(len(word))) or shorter == word == word[:1]
    longer = inserted(word, generator(seed))
    assert any(longer[:i] + longer[i + 1 :] == word for i in range(len(longer)))
    for edit in (replaced, mistyped, disguised):
        other = edit(word, generator(seed))
        assert len(other) == len(word)
        assert sum(a != b for a, b in zip(word, other, strict=True)) <= 1


@given(word=WORDS, seed=SEEDS)
def test_an_edit_depends_on_its_generator_alone(word, seed):
    for edit in (*EDITS, misspelt, disguised):
        assert edit(word, generator(seed)) == edit(word, generator(seed))


def test_all_kinds_of_edits_are_drawn():
    found = {misspelt("house", generator(seed)) for seed in range(200)}
    assert {len(word) for word in found} == {4, 5, 6}
    assert "huose" in found


@given(letter=st.sampled_from("abcdefghijklmnopqrstuvwxyz"))
def test_keys_are_beside_each_other_both_ways(letter):
    assert KEYS_BESIDE[letter]
    assert all(letter in KEYS_BESIDE[other] for other in KEYS_BESIDE[letter])
    assert letter not in KEYS_BESIDE[letter]


@pytest.mark.parametrize(("letter", "beside"), [("a", "qwsz"), ("g", "tyfhvb"), ("p", "ol"), ("m", "njk")])
def test_keys_beside_are_those_of_a_keyboard(letter, beside):
    assert sorted(KEYS_BESIDE[letter]) == sorted(beside)


def test_capitals_stay_where_a_letter_is_replaced():
    assert all(mistyped("AG", generator(seed)).isupper() for seed in range(20))
    assert all(replaced("AG", generator(seed)).isupper() for seed in range(20))


def test_letters_that_look_alike_are_other_letters_of_the_same_case():
    for letter, others in HOMOGLYPHS.items():
        for other in others:
            assert not other.isascii()
            assert unicodedata.category(other) == ("Lu" if letter.isupper() else "Ll") or other in "ⅼⅿ"


@pytest.mark.parametrize(
    ("edit", "word"), [(swapped, "a"), (deleted, "a"), (mistyped, "жé"), (disguised, "ж")]
)
def test_what_cannot_be_edited_stays(edit, word):
    assert edit(word, generator()) == word
