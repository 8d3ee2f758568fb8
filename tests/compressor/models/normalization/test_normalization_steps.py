"""Text normalization: what goes, what is folded, and which texts never change."""

import json
import unicodedata

import pytest
from families import FAMILIES, train_tokenizer
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers

from compressor.attacks.resources import import_textattack
from compressor.models.normalization import steps
from compressor.models.normalization.steps import (
    homoglyphs,
    is_normalized,
    normalization_steps,
    normalized_content,
    plain_content,
)

WORDS = ["a fine film of great charm", "a dull and empty story", "42 films in 2026, of 90 minutes"]
# Characters that have no other form in ASCII: these stay as they are.
SENTENCES = [
    "Привет, мир! Дом № 5, 10б класс; я б хотел iPhone с WiFi и IT-компанию у метро.",
    "Καλημέρα κόσμε, 5 μm και 3 kΩ στην Ἀθήνα.",
    "Բարեւ աշխարհ, ինչպես ես։",
    "中文句子没有空格，也能读！（真的）……「对」 葛\U000e0100 1,000 元",
    "日本語のカタカナとひらがな。ｶﾀｶﾅ",
    "한국어 문장입니다.",
    "مرحبا بالعالم، كيف حالك؟ ٣٤٥",
    "می\u200cخواهم خانه\u200cها را ببینم",
    "नमस्ते दुनिया, क्\u200dष और श्री\u200cमान १२३",
    "ক্\u200dষ বাংলা ৭৮৯, ශ්\u200dරී ලංකා, മലയാള\u200cം, தமிழ்",
    "ภาษาไทยทำได้",
    "ᠮᠣᠩᠭᠣᠯ\u180eᠠ ᠠ\u180b",
    "שלום עולם",
    "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ",
    "İstanbul ışık, straße, þing, Łódź, naïve façade, Ewe ɖɔɖɔɖɔ, ʋu kple ɣe",
    "“quoted” – dash — ‘single’ … 3×4, 12 °C, 5 €, m², ½, ①",
    "👍🏽 😀 🇫🇷 👩\u200d👩\u200d👧 ❤\ufe0f\u200d🔥 1\ufe0f\u20e3 🏳\ufe0f\u200d🌈 ℹ\ufe0f ©\ufe0f ™\ufe0f",
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
]
# Where swaps are looked for in words and numbers: what cannot be told from what it looks like stays.
AMBIGUOUS = {"1": "l", "0": "O", "'": "`"}
PARTS = [
    *(glyph.character for glyph in homoglyphs()),
    *"abcxyz019 -×˗бжωи.\u0301\u0308\u200b\u200c\u200d\ufe0f\ufe0e\u202e\b\u00ad😀👩❤\u180b🏴Ⓜℹअבक्ति中ا",
    "\U000e0061",
]


@pytest.fixture(scope="module")
def normalize():
    tokenizer = Tokenizer(models.BPE())
    content = normalized_content(json.loads(tokenizer.to_str()))
    return Tokenizer.from_str(json.dumps(content)).normalizer.normalize_str


@pytest.fixture(scope="module", params=["roberta", "xlm-roberta", "electra", "mpnet", "camembert"])
def both_tokenizers(request):
    """A tokenizer of a family and the same with text normalization."""
    plain = train_tokenizer(FAMILIES[request.param], WORDS)
    return plain, Tokenizer.from_str(json.dumps(normalized_content(json.loads(plain.to_str()))))


@given(text=st.text(st.sampled_from([*map(chr, range(0x20, 0x7F)), "\t", "\n", "\r"])))
@example("a film [MASK] <mask> 0O1lI |`' rn m")
def test_ascii_texts_have_the_same_tokens(both_tokenizers, text):
    plain, normalized = both_tokenizers
    assert normalized.encode(text).ids == plain.encode(text).ids
    assert normalized.encode(text).offsets == plain.encode(text).offsets


def test_tokens_of_every_kind_of_tokenizer_are_those_of_the_clean_text(both_tokenizers):
    plain, normalized = both_tokenizers
    text = "а fi\u200blm ｏf gr\u202eеat сha\u00adrm"
    clean = "а film of great charm"
    assert normalized.encode(text).ids == plain.encode(clean).ids
    assert plain.encode(text).ids != plain.encode(clean).ids
    # Offsets are in the text as it was given.
    start, end = normalized.encode("сharm").offsets[1][0], normalized.encode("сharm").offsets[-2][1]
    assert "сharm"[start:end] == "сharm"


@given(text=st.text(st.one_of(st.sampled_from(PARTS), st.characters(exclude_categories=["Cs"])), max_size=12))
@example("1\u180b\u200cа")
@example("××a")
@example("ⅆеⅇ")
@example("ɡρо")
@example("ab\b\b\b\bc")
def test_normalizing_twice_changes_nothing_more(normalize, text):
    once = normalize(text)
    assert normalize(once) == once


def homoglyph_swaps():
    """TextAttack's homoglyphs by what they stand for."""
    swaps = import_textattack().transformations

    class Swap(swaps.WordSwapHomoglyphSwap):
        def __init__(self):
            try:
                super().__init__()
            except OSError:  # its package lacks a table for whole texts
                self.homos_intentional = {}

    return Swap().homos


@pytest.mark.parametrize(("written", "swapped"), homoglyph_swaps().items())
def test_every_homoglyph_swap_of_textattack_is_undone(normalize, written, swapped):
    words = ["5{}7", "{}7"] if written.isdigit() else ["mo{}ter", "{}other", "moo{}"]
    for word in words:
        clean, changed = word.format(written), word.format(swapped)
        if AMBIGUOUS.get(written) == swapped or (written, word) == ("6", "{}7"):
            assert normalize(changed) == changed
        else:
            assert normalize(changed) == clean


@given(
    word=st.text(st.sampled_from("abcdefghijklmnopqrstuvwyz"), min_size=2, max_size=12),
    swapped=st.data(),
)
def test_any_letters_of_a_word_may_be_swapped(normalize, word, swapped):
    """As long as one is left that is Latin."""
    others = homoglyph_swaps()
    places = swapped.draw(st.sets(st.integers(1, len(word) - 1)))
    changed = "".join(others[letter] if place in places else letter for place, letter in enumerate(word))
    assert normalize(f"one {changed}, two") == f"one {word}, two"


@given(text=st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1), data=st.data())
def test_invisible_characters_go(normalize, text, data):
    invisible = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\u202a\u202e\u2066\u2069\ufe0f\x01\x7f\x9f"
    hidden = "".join(data.draw(st.text(st.sampled_from(invisible), max_size=2)) + letter for letter in text)
    assert normalize(hidden) == text


def test_backspaces_delete_what_is_before_them(normalize):
    assert normalize("fix\blm and ab\b\b\bdull \b") == "film anddull"


def test_reordered_letters_stay_reordered(normalize):
    """The order is drawn by the controls: without them the letters stand as they are stored."""
    assert normalize("f\u202dli\u202cm") == "flim"


@pytest.mark.parametrize("text", SENTENCES)
def test_texts_that_are_written_in_other_scripts_stay(normalize, text):
    assert normalize(text) == text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("саt соре", "cat соре"),  # the second word has no Latin letter
        ("iPhoneом", "iPhoneом"),  # m has no homoglyph: a word of two scripts
        ("ВКонтакте", "ВКонтакте"),
        ("10б, 1б5", "10б, 165"),
        ("ﬁne ﬂow", "fine flow"),
        ("Ⓕⓘⓛⓜ ｗｉｄｅ 𝐛𝐨𝐥𝐝 Ⅹ", "Film wide bold X"),
        ("cafe\u0301", "café"),
        ("Іt іs", "It is"),
        ("a×b 3×4 2×", "axb 3×4 2×"),
        ("e˗mail ˗ x", "e-mail ˗ x"),
    ],
)
def test_what_is_folded_depends_on_the_word(normalize, text, found):
    assert normalize(text) == found


@pytest.mark.parametrize("text", ["о" * 40_000, "a" + "о" * 40_000, "×" * 40_000, "\u200b" * 40_000])
def test_words_of_any_length_are_looked_at_near_a_character_alone(normalize, text):
    """A pattern that looks at whole words takes minutes for these."""
    assert len(normalize(text)) in (len(text), 0)


def test_the_table_folds_into_ascii_and_what_it_folds_is_none():
    found = homoglyphs()
    assert len({glyph.character for glyph in found}) == len(found) > 1000
    for glyph in found:
        assert not glyph.character.isascii()
        assert glyph.looks_like.isascii()
        # Composed first, so that each is found.
        assert unicodedata.normalize("NFC", glyph.character) == glyph.character
        if glyph.folded == "word":
            assert glyph.looks_like.isalpha()
        if glyph.folded == "number":
            assert glyph.looks_like in set("23456789")


def test_classes_of_what_always_becomes_ascii_have_it():
    """Otherwise the order of replacements would decide."""
    kinds = {"isalpha": steps._LATIN, "isdigit": f"[{steps._DIGITS}]"}
    for glyph in homoglyphs():
        if glyph.folded == "always":
            [kind] = [of for name, of in kinds.items() if getattr(glyph.looks_like, name)()]
            for pattern in (kind, f"[{steps._IN_WORDS}]"):
                assert normalizers.Replace(Regex(pattern), "").normalize_str(glyph.character) == ""


@pytest.mark.parametrize(
    "own", [None, {"type": "NFKC"}, {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "NFC"}]}]
)
def test_steps_are_added_once_and_can_be_left_out_again(own):
    content = {"normalizer": own, "model": {}}
    found = normalized_content(content)
    assert is_normalized(found)
    assert not is_normalized(content)
    assert normalized_content(found) == found
    count = len(normalization_steps())
    following = found["normalizer"]["normalizers"][count:]
    assert following == ([] if own is None else own.get("normalizers", [own]))
    assert plain_content(found)["normalizer"] in (own, {"type": "Sequence", "normalizers": [own]})
    assert plain_content(found)["model"] == {}
