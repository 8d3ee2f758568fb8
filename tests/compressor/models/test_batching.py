"""Padding, truncation and the order of batches."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressor.data.texts import TextData
from compressor.models.batching import (
    encode,
    encode_texts,
    encode_windows,
    pad,
    shuffled_batches,
    sorted_batches,
)

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=60)


def texts_of(lengths):
    return [(list(range(1, n + 1)), [n % 2] * n) for n in lengths]


@given(LENGTHS, st.integers(0, 99), st.integers(0, 50))
def test_padding_holds_each_text_and_marks_the_rest(lengths, pad_token_id, length):
    batch = pad(texts_of(lengths), pad_token_id, length=length)
    width = max(max(lengths), length)
    for row, n in enumerate(lengths):
        assert batch["input_ids"][row].tolist() == [*range(1, n + 1), *[pad_token_id] * (width - n)]
        assert batch["attention_mask"][row].tolist() == [1] * n + [0] * (width - n)
        assert batch["token_type_ids"][row].tolist() == [n % 2] * n + [0] * (width - n)
    assert {value.dtype for value in batch.values()} == {torch.int64}


@given(LENGTHS, st.integers(1, 10))
def test_sorted_batches_hold_each_text_once_shortest_first(lengths, batch_size):
    batches = sorted_batches(texts_of(lengths), batch_size)
    order = [i for batch in batches for i in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[i] for i in order] == sorted(lengths)
    assert all(len(batch) == batch_size for batch in batches[:-1])


@given(LENGTHS, st.integers(1, 10), st.integers(0, 1000))
def test_shuffled_batches_hold_each_text_once(lengths, batch_size, seed):
    batches = shuffled_batches(texts_of(lengths), batch_size, np.random.default_rng(seed))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert max(map(len, batches)) <= batch_size
    assert len(batches) == -(-len(lengths) // batch_size)
    assert batches == shuffled_batches(texts_of(lengths), batch_size, np.random.default_rng(seed))


def test_shuffled_batches_differ_between_epochs_and_group_by_length():
    lengths = np.random.default_rng(0).integers(1, 200, 320).tolist()
    generator = np.random.default_rng(1)
    first, second = (shuffled_batches(texts_of(lengths), 16, generator) for _ in range(2))
    assert first != second
    spread = np.mean([max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in first])
    assert spread < 30


def test_texts_are_cut_to_the_longest_input(small_classifier):
    encoded = encode_texts(small_classifier.tokenizer, ["word " * 100, "short"], None, 16)
    assert [len(ids) for ids, _ in encoded] == [16, 3]
    assert encoded[0][0][0] == small_classifier.tokenizer.cls_token_id
    assert encoded[0][0][-1] == small_classifier.tokenizer.sep_token_id


def test_the_longer_of_a_pair_is_cut_and_segments_are_marked(small_classifier):
    ((ids, segments),) = encode_texts(small_classifier.tokenizer, ["long " * 100], ["two words"], 16)
    assert len(ids) == len(segments) == 16
    words = small_classifier.tokenizer.convert_ids_to_tokens(ids)
    assert words[-3:] == ["two", "words", "[SEP]"]
    assert segments == [0] * 13 + [1] * 3


@pytest.mark.parametrize("max_length", [8, 48])
def test_data_is_encoded_as_its_texts(small_classifier, quotes, max_length):
    data = quotes.select(range(5))
    found = encode(small_classifier.tokenizer, data, max_length)
    assert found == encode_texts(small_classifier.tokenizer, data.texts, data.pairs, max_length)
    expected = small_classifier.tokenizer(data.texts, truncation=True, max_length=max_length).input_ids
    assert [ids for ids, _ in found] == expected


@pytest.mark.parametrize("max_length", [4, 5, 16, 48])
def test_windows_hold_all_of_a_text_and_overlap_by_half(small_classifier, quotes, max_length):
    tokenizer = small_classifier.tokenizer
    inside = max_length - 2
    for index in range(20):
        data = quotes.select([index])
        whole = tokenizer(data.texts[0], add_special_tokens=False).input_ids
        windows = encode_windows(tokenizer, data, max_length)
        assert windows[:1] == encode(tokenizer, data, max_length)
        bodies = [ids[1:-1] for ids, _ in windows]
        assert all(len(body) == inside for body in bodies[:-1])
        step = inside - inside // 2
        assert bodies == [whole[start : start + inside] for start in range(0, step * len(bodies), step)]
        assert step * (len(bodies) - 1) + len(bodies[-1]) == len(whole)
        for ids, segments in windows:
            assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
            assert segments == [0] * len(ids)


def test_of_pairs_there_are_no_windows(small_classifier):
    tokenizer = small_classifier.tokenizer
    data = TextData(["long " * 100], ["two words"], [0], ["no", "yes"], "pairs")
    assert encode_windows(tokenizer, data, 16) == encode(tokenizer, data, 16)
