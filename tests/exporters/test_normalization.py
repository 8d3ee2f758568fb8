"""Artifacts whose tokenizer normalizes texts: every program answers perturbed texts as the clean ones."""

import json
from dataclasses import asdict

import check_host
import numpy as np
import pytest
from families import write_encoder

from cli import execute
from compressor.data.texts import load_text_data
from compressor.models.batching import encode, encode_texts, pad
from compressor.models.classifier import load_classifier
from compressor.models.manifest import read_manifest
from compressor.models.normalization.tokenizers import has_normalization, normalized_classifier
from compressor.models.predictors import OnnxPredictor, TorchPredictor, predict_encoded
from compressor.options import ColumnsConfig, ExportConfig, FinetuneConfig, RunConfig, SoupConfig
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from compressor.training.finetune_stage import finetune_directory
from compressor.training.soup import grid_runs
from exporters.normalization import NormalizationFacts, with_normalized_text
from exporters.stage import export_directory
from exporters.texts import ExportTexts

COLUMNS = ColumnsConfig(max_length=48)
LOOKALIKES = str.maketrans("aceiopxy", "асеіорху")
EXAMPLES = 64


def context(output, columns=COLUMNS):
    run = RunConfig(device="cpu", threads=1)
    return Context(output=output, columns=columns, run=run, progress=SilentProgress())


def perturbed(text):
    """Words but for their first letters in Cyrillic where that looks the same; invisible characters."""
    words = (word[:1] + "\u200b" + word[1:].translate(LOOKALIKES) + "\u00ad" for word in text.split(" "))
    return " ".join(words)


@pytest.fixture(scope="module")
def texts(test_quotes):
    """Clean texts in ASCII, and the same perturbed."""
    clean = [text for text in test_quotes.texts if text.isascii()][:EXAMPLES]
    assert len(clean) == EXAMPLES
    return clean, [perturbed(text) for text in clean]


@pytest.fixture(scope="module")
def data(texts, tmp_path_factory):
    """A file of labelled texts, every other one perturbed."""
    clean, changed = texts
    path = tmp_path_factory.mktemp("mixed") / "mixed.tsv"
    rows = [f"{(clean, changed)[row % 2][row]}\t{('fresh', 'rotten')[row % 2]}" for row in range(EXAMPLES)]
    path.write_text("\n".join(["text\tlabel", *rows]) + "\n", encoding="utf-8")
    return path


def export(model, data, output, columns=COLUMNS, sources=None, **options):
    config = ExportConfig(parity_examples=EXAMPLES, **options)
    return export_directory(str(model), str(data), config, context(output, columns), sources)


@pytest.fixture(scope="module")
def exported(small_classifier_dir, data, tmp_path_factory):
    output = tmp_path_factory.mktemp("normalized") / "artifact"
    return export(small_classifier_dir, data, output, normalize_text=True), output


def labels_of(predictor, texts):
    return predict_encoded(predictor, encode_texts(predictor.tokenizer, texts, None, 48), 16).argmax(axis=1)


def test_perturbed_texts_have_the_labels_of_the_clean_ones(exported, small_classifier_dir, texts):
    """On the artifact, in PyTorch and by a program with nothing but ONNX Runtime and tokenizers."""
    clean, changed = texts
    dense = load_classifier(str(small_classifier_dir))
    expected = labels_of(TorchPredictor(dense), clean)
    assert (labels_of(TorchPredictor(dense), changed) != expected).mean() > 0.2
    assert np.array_equal(labels_of(TorchPredictor(normalized_classifier(dense)), changed), expected)
    assert np.array_equal(labels_of(OnnxPredictor(exported[1], 1), changed), expected)
    tokenizer = check_host.Tokenizer.from_file(str(exported[1] / "tokenizer.json"))
    tokenizer.no_padding()
    session = check_host.open_session(exported[1], "onnxruntime")
    encoded = [tokenizer.encode(text) for text in changed]
    vectors = [
        check_host.Vector(text, None, one.ids, one.type_ids)
        for text, one in zip(changed, encoded, strict=True)
    ]
    found = check_host.run_alone(session, vectors, dense.tokenizer.pad_token_id)
    assert np.array_equal(found.argmax(axis=1), expected)


def test_clean_ascii_texts_have_the_same_logits_bit_for_bit(
    exported, small_classifier_dir, data, texts, tmp_path
):
    export(small_classifier_dir, data, tmp_path / "plain")
    plain, normalized = OnnxPredictor(tmp_path / "plain", 1), OnnxPredictor(exported[1], 1)
    before, after = (encode_texts(one.tokenizer, texts[0], None, 48) for one in (plain, normalized))
    assert before == after
    batch = pad(after[:16], plain.tokenizer.pad_token_id)
    assert np.array_equal(plain.logits(batch), normalized.logits(batch))
    record = read_manifest(tmp_path / "plain")
    assert record["normalization"] is None
    assert record["preprocessing"] == exported[0].preprocessing


def test_the_manifest_says_what_it_changes(exported, small_classifier_dir, data):
    record, output = exported
    facts = read_manifest(output)["normalization"]
    assert facts == record.normalization
    assert facts["unicode"] == "17.0.0"
    assert facts["by_export"]
    assert (facts["examples"], facts["other_tokens"]) == (EXAMPLES, 0.5)
    dense = load_classifier(str(small_classifier_dir))
    drawn = load_text_data(str(data), COLUMNS, "calibration", label_names=dense.label_names)
    found, expected = (
        predict_encoded(TorchPredictor(one), encode(one.tokenizer, drawn, 48), 16).argmax(axis=1)
        for one in (normalized_classifier(dense), dense)
    )
    assert facts["label_agreement"] == (found == expected).mean() < 1
    assert facts["accuracy"] == (found == np.array(drawn.labels)).mean()
    assert "changes the tokens of 50.0% of 64 texts" in NormalizationFacts(**facts).summary
    assert record.parity["label_agreement"] == 1
    assert execute(["verify", "--run", str(output)]) == 0
    bom = (output / "bom.cdx.json").read_text()
    assert "Texts are normalized" in bom


def test_a_normalized_checkpoint_is_exported_as_it_is(exported, small_encoder_dir, data, tmp_path):
    """Fine-tuned with the option: the export needs none, and adds nothing to it."""
    finetune_directory(
        str(small_encoder_dir), str(data), FinetuneConfig(epochs=1, normalize_text=True),
        context(tmp_path / "dense"),
    )  # fmt: skip
    for name, options in (("plain", {}), ("again", {"normalize_text": True})):
        record = export(tmp_path / "dense", data, tmp_path / name, **options)
        assert not record.normalization["by_export"]
        assert record.normalization["other_tokens"] == 0.5
        content = json.loads((tmp_path / name / "tokenizer.json").read_text())
        expected = json.loads((exported[1] / "tokenizer.json").read_text())
        assert content["normalizer"] == expected["normalizer"]


def test_runs_of_a_soup_have_the_option():
    assert all(run.normalize_text for run in grid_runs(SoupConfig(runs=2, normalize_text=True), 0))
    assert not any(run.normalize_text for run in grid_runs(SoupConfig(runs=2), 0))


def test_a_smaller_vocabulary_has_it_too(small_classifier_dir, data, critic_quotes, texts, tmp_path):
    sources = ExportTexts(vocabulary=str(critic_quotes / "small.tsv"))
    record = export(
        small_classifier_dir, data, tmp_path / "out", sources=sources,
        normalize_text=True, vocabulary_agreement=0.5,
    )  # fmt: skip
    assert record.vocabulary["pieces"]["after"] < record.vocabulary["pieces"]["before"]
    tokenizer = OnnxPredictor(tmp_path / "out", 1).tokenizer
    clean, changed = texts
    assert encode_texts(tokenizer, changed, None, 48) == encode_texts(tokenizer, clean, None, 48)


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta"])
def test_other_kinds_of_tokenizers(family, critic_quotes, data, texts, tmp_path):
    clean, changed = texts
    write_encoder(family, clean, tmp_path / "encoder")
    columns = ColumnsConfig(max_length=24)
    finetune_directory(
        str(tmp_path / "encoder"), str(data), FinetuneConfig(epochs=1), context(tmp_path / "dense", columns)
    )
    record = export(tmp_path / "dense", data, tmp_path / "out", columns, normalize_text=True)
    assert record.preprocessing["needs_transformers"] is None
    tokenizer = OnnxPredictor(tmp_path / "out", 1).tokenizer
    assert encode_texts(tokenizer, changed, None, 24) == encode_texts(tokenizer, clean, None, 24)
    assert execute(["verify", "--run", str(tmp_path / "out")]) == 0


def test_an_attack_sees_the_words_and_the_artifact_normalizes_them(exported, data, tmp_path):
    command = [
        *("attack", str(exported[1]), "--data", str(data), "--max-length", "48", "--attack", "deepwordbug"),
        *("--attack-examples", "4", "--query-budget", "20", "--device", "cpu", "--threads", "1"),
        *("--output", str(tmp_path / "attack")),
    ]
    assert execute(command) == 0
    rows = [json.loads(line) for line in (tmp_path / "attack" / "examples.jsonl").read_text().splitlines()]
    assert any("\u200b" in row["text"] for row in rows)


def test_without_the_option_nothing_is_compared(small_classifier, test_quotes):
    found, facts = with_normalized_text(small_classifier, test_quotes, ExportConfig(), context(None))
    assert found is small_classifier
    assert facts is None
    found, facts = with_normalized_text(
        small_classifier, test_quotes.select(range(8)), ExportConfig(normalize_text=True), context(None)
    )
    assert has_normalization(found.tokenizer)
    assert asdict(facts)["examples"] == 8
