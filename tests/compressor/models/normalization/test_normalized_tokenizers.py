"""Tokenizers with text normalization, as the versions of transformers and plain programs load them."""

import json

import pytest
from tokenizer_kinds import KINDS, TEXTS, make_kind

from compressor.errors import UserError
from compressor.models.classifier import Classifier, load_classifier, load_tokenizer, save_classifier
from compressor.models.encoders.inputs import INPUTS
from compressor.models.normalization import tokenizers as module
from compressor.models.normalization.tokenizers import (
    has_normalization,
    normalized_classifier,
    plain_classifier,
)
from compressor.models.preprocessing import write_tokenizer

CHANGED = "a gr\u200beаt сharm"
CLEAN = "a great charm"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tokenizer_normalizes_as_it_is_loaded(kind, tmp_path):
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    make_kind(kind, tmp_path / "source")
    plain = load_tokenizer(str(tmp_path / "source"))
    found = normalized_classifier(Classifier(None, plain, "source")).tokenizer
    assert has_normalization(found)
    assert not has_normalization(plain)
    assert found.special_tokens_map == plain.special_tokens_map
    written = tmp_path / "written"
    written.mkdir()
    write_tokenizer(found, written, 16, INPUTS)
    loaded = [found, load_tokenizer(str(written)), AutoTokenizer.from_pretrained(str(written))]
    alone = Tokenizer.from_file(str(written / "tokenizer.json"))
    assert plain(CHANGED)["input_ids"] != plain(CLEAN)["input_ids"]
    for text, clean in [(CHANGED, CLEAN), *((text, text) for text in TEXTS if text and text.isascii())]:
        expected = plain(clean, clean)["input_ids"]
        assert [one(text, text)["input_ids"] for one in loaded] == [expected] * len(loaded)
        assert alone.encode(text, text).ids == expected


def test_a_classifier_keeps_it_when_it_is_saved_and_has_it_once(small_classifier, tmp_path):
    found = normalized_classifier(small_classifier)
    assert found.model is small_classifier.model
    assert normalized_classifier(found) is found
    save_classifier(found, tmp_path)
    again = load_classifier(str(tmp_path))
    assert has_normalization(again.tokenizer)
    assert normalized_classifier(again) is again
    content = json.loads(again.tokenizer.backend_tokenizer.to_str())
    assert content["normalizer"] == json.loads(found.tokenizer.backend_tokenizer.to_str())["normalizer"]
    plain = plain_classifier(again).tokenizer
    own = small_classifier.tokenizer
    assert plain(CHANGED)["input_ids"] == own(CHANGED)["input_ids"] != again.tokenizer(CHANGED)["input_ids"]


def test_a_slow_tokenizer_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(
        UserError, match=r"^model: its tokenizer, Slow, has no tokenizer\.json.*--normalize-text"
    ):
        normalized_classifier(Classifier(None, Slow(), "model"))
    assert not has_normalization(Slow())


def test_one_that_transformers_reads_otherwise_is_refused(small_classifier, monkeypatch):
    monkeypatch.setattr(module, "rewritten_tokenizer", lambda *_: small_classifier.tokenizer)
    with pytest.raises(UserError, match=r"reads another tokenizer from it.*--normalize-text"):
        normalized_classifier(small_classifier)
