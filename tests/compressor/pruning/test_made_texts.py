"""Texts made of pieces of others: well-formed, as many as are asked for, the same for a seed."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.models.batching import encode_texts
from compressor.models.classifier import load_tokenizer
from compressor.pruning.made_texts import REPLACED_SHARE, fill_up

WORDS = st.lists(st.sampled_from(["a", "quietly", "devastating", "film", "about", "nothing"]), max_size=12)
TEXTS = st.lists(WORDS.map(" ".join), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def tokenizer(small_encoder_dir):
    return load_tokenizer(str(small_encoder_dir))


def count(encoded):
    return sum(len(ids) for ids, _ in encoded)


def filled(tokenizer, encoded, tokens, max_length=32, seed=0):
    return fill_up(encoded, tokens, tokenizer, max_length, np.random.default_rng(seed))


@given(texts=TEXTS, pairs=st.booleans(), tokens=st.integers(0, 600), max_length=st.integers(8, 40))
def test_made_texts_stand_behind_the_others_and_are_well_formed(tokenizer, texts, pairs, tokens, max_length):
    seconds = texts[::-1] if pairs else None
    encoded = encode_texts(tokenizer, texts, seconds, max_length)
    found = filled(tokenizer, encoded, tokens, max_length)
    assert found[: len(encoded)] == encoded
    made = found[len(encoded) :]
    assert count(found) >= tokens
    assert not made or count(found[:-1]) < tokens
    for ids, types in made:
        assert len(ids) == len(types) <= max_length
        assert ids[0] == tokenizer.cls_token_id
        ends = [place for place, token in enumerate(ids) if token == tokenizer.sep_token_id]
        assert len(ends) == 1 + pairs
        assert ends[-1] == len(ids) - 1
        assert types == [int(pairs and place > ends[0]) for place in range(len(ids))]
        assert sum(token in tokenizer.all_special_ids for token in ids) == 2 + pairs


def test_a_seed_gives_the_same_texts_and_another_one_others(tokenizer):
    encoded = encode_texts(tokenizer, ["a quietly devastating film", "nothing happens"], None, 32)
    assert filled(tokenizer, encoded, 500) == filled(tokenizer, encoded, 500)
    assert filled(tokenizer, encoded, 500) != filled(tokenizer, encoded, 500, seed=1)


def test_most_tokens_are_of_the_texts_and_keep_their_order(tokenizer):
    encoded = encode_texts(tokenizer, ["one two three four five six seven eight nine ten"], None, 64)
    made = filled(tokenizer, encoded, 20_000, 64)[1:]
    own = set(encoded[0][0])
    bodies = [ids[1:-1] for ids, _ in made]
    share = np.mean([token not in own for body in bodies for token in body])
    assert share == pytest.approx(REPLACED_SHARE, abs=0.02)
    follows = dict(zip(encoded[0][0][1:-2], encoded[0][0][2:-1], strict=True))
    steps = [follows.get(first) == second for body in bodies for first, second in pairwise(body)]
    # Two neighbours are of the text, and no piece ends between them.
    assert 0.4 < np.mean(steps) < (1 - REPLACED_SHARE) ** 2


def test_each_part_of_a_pair_is_made_of_that_part(tokenizer):
    encoded = encode_texts(tokenizer, ["good good good"] * 3, ["bad bad bad"] * 3, 32)
    good, bad = (tokenizer.convert_tokens_to_ids(word) for word in ("good", "bad"))
    made = filled(tokenizer, encoded, 3000)[3:]
    for word, part in ((good, 0), (bad, 1)):
        parts = [
            type_ for ids, types in made for token, type_ in zip(ids, types, strict=True) if token == word
        ]
        assert np.mean([type_ == part for type_ in parts]) > 0.99
