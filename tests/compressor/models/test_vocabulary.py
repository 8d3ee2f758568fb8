"""Smaller vocabularies: texts whose pieces are kept are tokenized as before, whatever the tokenizer."""

import copy
import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from compressor.errors import UserError
from compressor.models.vocabulary import choose_pieces, keep_pieces

LETTERS = "abcdé ñ中-"
PADDING, UNKNOWN = "[PAD]", "[UNK]"
SPECIAL = [PADDING, UNKNOWN, "[CLS]", "[SEP]"]
CORPUS = [
    "abacab cabbed daded abba cadab",
    "é abé ñab cañ 中a ab-cd",
    "bad bed cab abab cabcab dabdab aaaa",
    "dabbed baed cedab abcd dcba ébé",
] * 3
PAIR = [("[CLS]", 2), ("[SEP]", 3)]


def wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=SPECIAL)
    return trained(tokenizer, trainer)


def byte_bpe():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    return trained(tokenizer, trainer)


def affixed_bpe():
    """BPE of characters, with marks of the inside and of the end of words."""
    tokenizer = Tokenizer(
        models.BPE(unk_token=UNKNOWN, continuing_subword_prefix="##", end_of_word_suffix="</w>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=90, special_tokens=SPECIAL, continuing_subword_prefix="##", end_of_word_suffix="</w>"
    )
    return trained(tokenizer, trainer)


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=SPECIAL, unk_token=UNKNOWN)
    return trained(tokenizer, trainer)


def trained(tokenizer, trainer):
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=PAIR
    )
    tokenizer.add_tokens([AddedToken("added word")])
    tokenizer.enable_padding(pad_id=0, pad_token=PADDING)
    return json.loads(tokenizer.to_str())


KINDS = {"wordpiece": wordpiece, "byte_bpe": byte_bpe, "affixed_bpe": affixed_bpe, "unigram": unigram}
CONTENTS = {name: make() for name, make in KINDS.items()}


def load(content):
    return Tokenizer.from_str(json.dumps(content))


def smaller(content, counts, coverage=1.0):
    """The smaller tokenizer, and the old ids of its pieces."""
    kept = choose_pieces(content, counts, coverage).kept
    return load(keep_pieces(content, kept)), kept


def ids_of(content, pieces):
    tokenizer = load(content)
    return [tokenizer.token_to_id(piece) for piece in pieces]


texts = st.text(alphabet=LETTERS, max_size=24)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300)
@given(data=st.data())
def test_a_text_whose_pieces_are_kept_has_the_same_pieces(kind, data):
    content = CONTENTS[kind]
    whole = load(content)
    counted = data.draw(st.lists(texts, max_size=4))
    counts = Counter(piece for text in counted for piece in whole.encode(text).ids)
    own, kept = smaller(content, counts, data.draw(st.sampled_from([0.3, 0.7, 1.0])))
    for text in [*counted, *data.draw(st.lists(texts, max_size=3))]:
        before = whole.encode(text)
        # See the module: a word that WordPiece does not know can become known.
        if set(before.ids) <= set(kept) and UNKNOWN not in before.tokens:
            after = own.encode(text)
            assert after.tokens == before.tokens
            assert [kept[new] for new in after.ids] == before.ids


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "wordpiece"])
@given(text=st.text(alphabet="abcxyz é🙂", max_size=12))
def test_unknown_characters_stay_unknown(kind, text):
    content = CONTENTS[kind]
    whole = load(content)
    own, kept = smaller(content, {})
    before = whole.encode(text)
    if set(before.ids) <= set(kept):
        assert own.encode(text).tokens == before.tokens


@pytest.mark.parametrize("kind", KINDS)
def test_without_counted_pieces_all_texts_are_spelled(kind):
    content = CONTENTS[kind]
    whole = load(content)
    own, kept = smaller(content, {})
    assert len(kept) < whole.get_vocab_size()
    for text in ("abacab", "bad cab", "dcba"):
        assert UNKNOWN not in whole.encode(text).tokens
        assert UNKNOWN not in own.encode(text).tokens


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_dense_in_the_old_order_and_special_tokens_follow(kind):
    content = CONTENTS[kind]
    untouched = copy.deepcopy(content)
    whole = load(content)
    own, kept = smaller(content, Counter(whole.encode("abacab added word", "bad").ids))
    assert content == untouched
    assert kept == sorted(kept)
    assert own.get_vocab_size() == len(kept)
    assert [own.id_to_token(new) for new in range(len(kept))] == [whole.id_to_token(old) for old in kept]
    added = json.loads(own.to_str())["added_tokens"]
    assert {token["content"]: token["id"] for token in added} == {
        piece: own.token_to_id(piece) for piece in [*SPECIAL, "added word"]
    }
    before, after = (one.encode("abacab added word", "bad") for one in (whole, own))
    assert before.tokens == after.tokens
    assert before.type_ids == after.type_ids
    assert own.padding["pad_id"] == own.token_to_id(PADDING)


@pytest.mark.parametrize("kind", KINDS)
def test_all_pieces_can_be_kept(kind):
    content = CONTENTS[kind]
    counts = dict.fromkeys(load(content).get_vocab().values(), 1)
    kept = choose_pieces(content, counts, 1.0).kept
    assert keep_pieces(content, kept) == content


def test_special_tokens_of_every_form_of_post_processor_follow():
    content = CONTENTS["wordpiece"]
    # Nothing before them may stay as it is.
    vocabulary = {"abacab": 0, **{piece: new + 1 for piece, new in content["model"]["vocab"].items()}}
    model = {**content["model"], "vocab": vocabulary}
    added = [{**token, "id": token["id"] + 1} for token in content["added_tokens"]]
    own = {**content, "model": model, "added_tokens": added, "padding": None}
    bert = {"type": "BertProcessing", "sep": ["[SEP]", 4], "cls": ["[CLS]", 3]}
    for processor in (bert, {"type": "Sequence", "processors": [bert]}):
        tokenizer, kept = smaller({**own, "post_processor": processor}, {})
        assert kept[0] == 1
        encoded = tokenizer.encode("ab")
        assert (encoded.tokens[0], encoded.tokens[-1]) == ("[CLS]", "[SEP]")
        assert (encoded.ids[0], encoded.ids[-1]) == (2, 3)


def test_coverage_is_that_of_all_occurrences():
    content = CONTENTS["wordpiece"]
    pieces = [piece for piece in content["model"]["vocab"] if len(piece.removeprefix("##")) > 2][4:8]
    numbers = ids_of(content, pieces)
    counts = dict(zip(numbers, [50, 30, 15, 5], strict=True))
    for coverage, expected in ((0.4, 1), (0.5, 1), (0.51, 2), (0.8, 2), (0.95, 3), (1.0, 4)):
        found = choose_pieces(content, counts, coverage)
        assert [number in found.kept for number in numbers] == [place < expected for place in range(4)]
        assert found.coverage == [0.5, 0.8, 0.95, 1.0][expected - 1]
    # Characters count too, and are kept whatever they cost.
    letter = content["model"]["vocab"]["a"]
    assert choose_pieces(content, {letter: 99, numbers[0]: 1}, 0.99).coverage == 0.99


@pytest.mark.parametrize("kind", CONTENTS)
def test_pieces_that_are_frequent_in_general_fill_up(kind):
    content = CONTENTS[kind]
    size = load(content).get_vocab_size()
    fewest = set(choose_pieces(content, {}, 1.0).kept)
    for least in (0, len(fewest), len(fewest) + 5, size, size + 9):
        kept = choose_pieces(content, {}, 1.0, least).kept
        assert set(kept) >= fewest
        # The parts that the last piece of BPE is merged of may be more.
        assert min(least, size) <= len(kept) <= max(least, len(fewest)) + 8
        assert load(keep_pieces(content, kept)).get_vocab_size() == len(kept)
    filled = sorted(set(choose_pieces(content, {}, 1.0, len(fewest) + 5).kept) - fewest)
    others = sorted(set(range(size)) - fewest)
    assert filled[0] == others[0]
    if content["model"]["type"] != "BPE":
        assert filled == others[:5]


def test_places_without_a_piece_are_not_filled_with():
    vocabulary = {"[UNK]": 0, "[unused1]": 1, "a": 2, "film": 3, "[unused2]": 4, "scene": 5}
    content = json.loads(Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN)).to_str())
    assert choose_pieces(content, {5: 1}, 1.0, 4).kept == [0, 2, 3, 5]
    assert choose_pieces(content, {}, 1.0, 6).kept == [0, 2, 3, 5]


def test_every_piece_of_bpe_that_is_kept_can_be_made():
    content = CONTENTS["byte_bpe"]
    longest = max(
        content["model"]["vocab"], key=lambda piece: (len(piece), piece) if piece not in SPECIAL else (0, "")
    )
    own, _ = smaller(content, {content["model"]["vocab"][longest]: 1})
    text = longest.replace("Ġ", " ").strip()
    assert longest in load(content).encode(text).tokens
    assert longest in own.encode(text).tokens
    model = json.loads(own.to_str())["model"]
    assert 0 < len(model["merges"]) < len(content["model"]["merges"])
    assert all("".join(merge) in model["vocab"] for merge in model["merges"])


def test_merges_may_be_written_as_earlier_versions_did():
    content = CONTENTS["byte_bpe"]
    joined = [" ".join(merge) for merge in content["model"]["merges"]]
    counts = {content["model"]["vocab"]["ab"]: 1}
    early = {**content, "model": {**content["model"], "merges": joined}}
    assert choose_pieces(early, counts, 1.0) == choose_pieces(content, counts, 1.0)
    kept = choose_pieces(early, counts, 1.0).kept
    assert keep_pieces(early, kept)["model"]["merges"] == ["a b"]


def test_the_cost_of_unknown_characters_stays():
    """It is measured from the rarest piece, which is kept although no text has it."""
    scores = {UNKNOWN: 0.0, "wx": -9.0, "y": -9.0, "z": -9.0, "xyz": -1.0, "rare": -20.0, "never": -19.0}
    content = json.loads(Tokenizer(models.Unigram(list(scores.items()), unk_id=0)).to_str())
    own, kept = smaller(content, {1: 1, 4: 1})
    assert kept == [0, 1, 2, 3, 4, 5]
    # With a cheaper unknown character it would be that and xyz.
    assert own.encode("wxyz").tokens == load(content).encode("wxyz").tokens == ["wx", "y", "z"]
    assert load(keep_pieces(content, kept[:-1])).encode("wxyz").tokens == ["w", "xyz"]


def test_names_of_bytes_are_kept():
    vocabulary = [("<unk>", 0.0), ("ab", -1.0), *((f"<0x{byte:02X}>", -5.0) for byte in range(256))]
    content = json.loads(Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True)).to_str())
    own, kept = smaller(content, {})
    assert len(kept) == 257
    assert own.encode("é").tokens == ["<0xC3>", "<0xA9>"]


def test_a_word_that_is_not_known_can_become_known():
    """The one exception that the module names."""
    vocabulary = {"[UNK]": 0, "a": 1, "ab": 2, "##bc": 3, "##b": 4}
    content = json.loads(Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN)).to_str())
    assert load(content).encode("abc").tokens == ["[UNK]"]
    own, _ = smaller(content, {3: 1})
    assert own.encode("abc").tokens == ["a", "##bc"]


def test_a_tokenizer_that_cannot_spell_is_refused():
    content = json.loads(Tokenizer(models.WordLevel({"film": 0, "[UNK]": 1}, unk_token=UNKNOWN)).to_str())
    with pytest.raises(
        UserError, match=r"tokenizer.json: model: type WordLevel: only WordPiece, BPE, Unigram"
    ):
        choose_pieces(content, {}, 1.0)
