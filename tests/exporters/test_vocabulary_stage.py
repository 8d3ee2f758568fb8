"""Checkpoints with a smaller vocabulary: plain transformers load them; same tokens have the same logits."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import compressor
from cli import execute
from compressor.errors import UserError
from compressor.models.classifier import encoder_weights, load_classifier, weights_fingerprint
from compressor.pruning.interface import PRUNING_RECORD
from exporters.vocabulary_stage import VOCABULARY_RECORD

OPTIONS = {"max_length": 48, "device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def few(critic_quotes, tmp_path_factory):
    """Texts that have a part of the test texts' words."""
    lines = (critic_quotes / "train.tsv").read_text(encoding="utf-8").splitlines()
    path = tmp_path_factory.mktemp("few") / "few.tsv"
    path.write_text("\n".join(lines[:1001]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def written(small_pruned_dir, critic_quotes, few, tmp_path_factory):
    """The record of a pruned classifier with the pieces of few texts."""
    return compressor.vocabulary(
        small_pruned_dir,
        vocabulary=few,
        data=critic_quotes / "test.tsv",
        output=tmp_path_factory.mktemp("vocabulary") / "model",
        vocabulary_agreement=0.5,
        **OPTIONS,
    )


def plain(directory):
    """What transformers load of a directory without this program."""
    model = AutoModelForSequenceClassification.from_pretrained(directory)
    return model.eval(), AutoTokenizer.from_pretrained(directory)


def logits_of(model, tokenizer, text):
    with torch.inference_mode():
        return model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=48)).logits


def test_texts_that_keep_their_pieces_have_the_same_logits(written, small_pruned_dir, test_quotes):
    whole, own = plain(small_pruned_dir), plain(written.path)
    same = [text for text in test_quotes.texts[:100] if whole[1].tokenize(text) == own[1].tokenize(text)]
    assert 10 < len(same) < 100
    for text in same:
        assert torch.equal(logits_of(*whole, text), logits_of(*own, text))


def test_the_checkpoint_has_the_pieces_and_no_others(written, small_pruned_dir):
    model, tokenizer = plain(written.path)
    pieces = written.vocabulary["pieces"]
    assert pieces["after"] < pieces["before"] == len(AutoTokenizer.from_pretrained(small_pruned_dir))
    assert pieces["after"] == len(tokenizer) == model.config.vocab_size
    assert model.get_input_embeddings().weight.shape[0] == pieces["after"]
    assert model.config.pad_token_id == tokenizer.pad_token_id
    sizes = [(path / "model.safetensors").stat().st_size for path in (small_pruned_dir, written.path)]
    assert sizes[0] - sizes[1] == 4 * model.config.hidden_size * (pieces["before"] - pieces["after"])


def test_the_encoder_and_its_record_stay(written, small_pruned_dir):
    before, after = (
        encoder_weights(load_classifier(str(path)).model) for path in (small_pruned_dir, written.path)
    )
    assert all(torch.equal(before[name], weight) for name, weight in after.items())
    name = PRUNING_RECORD
    assert (written.path / name).read_bytes() == (small_pruned_dir / name).read_bytes()
    record = json.loads((written.path / VOCABULARY_RECORD).read_text(encoding="utf-8"))
    assert record == {
        key: value for key, value in written.model_dump().items() if key not in ("path", "sha256")
    }
    assert record["model"]["sha256"] == weights_fingerprint(str(small_pruned_dir))
    assert written.sha256 == weights_fingerprint(str(written.path))


def test_it_is_exported_like_any_other(written, critic_quotes, tmp_path):
    artifact = compressor.export(
        written, data=critic_quotes / "test.tsv", output=tmp_path / "artifact", parity_examples=20, **OPTIONS
    )
    assert artifact.parity["max_difference"] <= 1e-4
    assert artifact.lineage["pruning"] is not None


def test_structured_models_keep_their_width(half_as_wide_dir, critic_quotes, few, tmp_path):
    data = critic_quotes / "test.tsv"
    record = compressor.vocabulary(
        half_as_wide_dir,
        vocabulary=few,
        data=data,
        output=tmp_path / "m",
        vocabulary_agreement=0.5,
        **OPTIONS,
    )
    before, after = (
        encoder_weights(load_classifier(str(path)).model) for path in (half_as_wide_dir, record.path)
    )
    assert {name: weight.shape for name, weight in before.items()} == {
        name: weight.shape for name, weight in after.items()
    }
    text = "a good film"
    found = [logits_of(*plain(path), text).numpy() for path in (half_as_wide_dir, record.path)]
    np.testing.assert_array_equal(*found)


def test_the_command_says_what_is_kept(small_pruned_dir, critic_quotes, few, tmp_path, capsys):
    data = str(critic_quotes / "test.tsv")
    command = [
        "vocabulary", str(small_pruned_dir), "--vocabulary", str(few), "--data", data,
        "--vocabulary-agreement", "0", "--max-length", "48", "--output", str(tmp_path / "model"),
    ]  # fmt: skip
    assert execute(command) == 0
    out = capsys.readouterr().out
    assert "pieces of the vocabulary" in out
    assert f"classifier in {tmp_path / 'model'}" in " ".join(out.split())


def test_too_few_equal_labels_write_nothing(small_pruned_dir, critic_quotes, tmp_path):
    (tmp_path / "texts.tsv").write_text("text\nonly these words\n")
    with pytest.raises(UserError, match=r"labels agree with those of .*, less than 100"):
        compressor.vocabulary(
            small_pruned_dir, vocabulary=tmp_path / "texts.tsv", data=critic_quotes / "test.tsv",
            output=tmp_path / "model", vocabulary_agreement=1.0, **OPTIONS,
        )  # fmt: skip
    assert not (tmp_path / "model").exists()


def test_texts_that_are_compared_are_not_counted(small_pruned_dir, critic_quotes, tmp_path):
    data = critic_quotes / "test.tsv"
    with pytest.raises(UserError, match="are those that answers are compared on"):
        compressor.vocabulary(
            small_pruned_dir, vocabulary=data, data=data, output=tmp_path / "model", **OPTIONS
        )
