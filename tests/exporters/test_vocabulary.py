"""Exports with a smaller vocabulary: answers to texts without lost pieces stay, the others are measured."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
from other_family import install_family, make_other_checkpoint
from tokenizer_kinds import KINDS, TEXTS, make_kind

import compressor
from cli import execute
from compressor.config.recipe import Recipe
from compressor.data.texts import load_text_data
from compressor.errors import UserError
from compressor.models.batching import encode, pad
from compressor.models.classifier import load_classifier, load_tokenizer
from compressor.models.encoders.inputs import INPUTS
from compressor.models.encoders.layout import EncoderLayout
from compressor.models.manifest import read_manifest
from compressor.models.predictors import OnnxPredictor, TorchPredictor, predict_encoded
from compressor.models.preprocessing import write_tokenizer
from compressor.options import ColumnsConfig, DataConfig, ExportConfig, RunConfig
from compressor.pipeline.keys import ARTIFACT, Stage
from compressor.pipeline.stage_runs import run_stage
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from exporters import vocabulary as module
from exporters.stage import export_directory
from exporters.texts import ExportTexts
from exporters.vocabulary import check_agreement, smaller_tokenizer, with_smaller_vocabulary

COLUMNS = ColumnsConfig(max_length=48)
FEW = 2000


def context(output):
    return Context(
        output=output,
        columns=COLUMNS,
        run=RunConfig(device="cpu", threads=1),
        progress=SilentProgress(),
    )


def export(model, output, data, vocabulary, **options):
    config = ExportConfig(**{"parity_examples": 96, "vocabulary_agreement": 0.5, **options})
    sources = ExportTexts(vocabulary=str(vocabulary))
    return export_directory(str(model), str(data), config, context(output), sources)


@pytest.fixture(scope="module")
def few(critic_quotes, tmp_path_factory):
    """Texts that have a part of the test texts' words."""
    lines = (critic_quotes / "train.tsv").read_text(encoding="utf-8").splitlines()
    path = tmp_path_factory.mktemp("few") / "few.tsv"
    path.write_text("\n".join(lines[: 1 + FEW]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def exported(small_pruned_dir, critic_quotes, few, tmp_path_factory):
    """The record of an export with the pieces of few texts, and its directory."""
    output = tmp_path_factory.mktemp("smaller") / "artifact"
    return export(small_pruned_dir, output, critic_quotes / "test.tsv", few), output


def by_tokens(whole, own, data):
    """Texts as both tokenizers encode them, and which of them have the same tokens."""
    before, after = (encode(one.tokenizer, data, COLUMNS.max_length) for one in (whole, own))
    tokens = [
        [one.tokenizer.convert_ids_to_tokens(ids) for ids, _ in encoded]
        for one, encoded in ((whole, before), (own, after))
    ]
    return before, after, np.array([old == new for old, new in zip(*tokens, strict=True)])


def test_texts_without_lost_pieces_have_the_same_logits(exported, small_pruned_dir, few, test_quotes):
    """Bit for bit, in PyTorch and from the graphs."""
    whole = load_classifier(str(small_pruned_dir), attention="eager")
    proof = test_quotes.select(range(96))
    config = ExportConfig(vocabulary_agreement=0.0)
    own, facts = with_smaller_vocabulary(whole, str(few), proof, config, context(None))
    before, after, is_same = by_tokens(whole, own, test_quotes)
    same = np.flatnonzero(is_same).tolist()
    assert 0 < len(same) < len(test_quotes)
    batches = [
        pad([encoded[place] for place in same], one.tokenizer.pad_token_id)
        for one, encoded in ((whole, before), (own, after))
    ]
    expected, found = (
        TorchPredictor(one).logits(batch) for one, batch in zip((whole, own), batches, strict=True)
    )
    assert np.array_equal(expected, found)
    assert facts.other_tokens == 1 - is_same[:96].mean()
    assert whole.model.config.vocab_size == facts.pieces["before"]


def test_the_graph_answers_as_that_with_the_whole_vocabulary(
    exported, small_pruned_dir, critic_quotes, few, test_quotes, tmp_path
):
    _, output = exported
    everything = ExportConfig(parity_examples=32)
    export_directory(
        str(small_pruned_dir), str(critic_quotes / "test.tsv"), everything, context(tmp_path / "w")
    )
    whole, own = OnnxPredictor(tmp_path / "w", 1), OnnxPredictor(output, 1)
    before, after, is_same = by_tokens(whole, own, test_quotes)
    same = np.flatnonzero(is_same).tolist()
    assert len(same) > 20
    logits = [
        predict_encoded(one, [encoded[place] for place in same], 16)
        for one, encoded in ((whole, before), (own, after))
    ]
    assert np.array_equal(*logits)


def test_the_record_has_what_was_measured(exported, small_pruned_dir, critic_quotes, few, test_quotes):
    record, output = exported
    found = record.vocabulary
    whole, own = load_classifier(str(small_pruned_dir)), OnnxPredictor(output, 1)
    assert read_manifest(output)["vocabulary"] == found
    assert found["pieces"] == {"before": len(whole.tokenizer), "after": len(own.tokenizer)}
    assert found["pieces"]["after"] < 0.7 * found["pieces"]["before"]
    assert 0.999 <= found["coverage"] < 1
    assert (found["texts"], found["examples"]) == (FEW, 96)
    proof = load_text_data(
        str(critic_quotes / "test.tsv"), COLUMNS, "test", label_names=own.label_names
    ).sample(96, 0)
    before, after, is_same = by_tokens(whole, own, proof)
    assert 0 < found["other_tokens"] == 1 - is_same.mean() < 1
    assert found["tokens"] == {
        "before": sum(len(ids) for ids, _ in before),
        "after": sum(len(ids) for ids, _ in after),
    }
    assert found["tokens"]["after"] > found["tokens"]["before"]
    labels = [
        predict_encoded(one, encoded, 32).argmax(axis=1)
        for one, encoded in ((TorchPredictor(whole), before), (own, after))
    ]
    assert found["label_agreement"] == (labels[0] == labels[1]).mean()
    assert found["reference_accuracy"] == (labels[0] == proof.labels).mean()
    assert found["accuracy"] == (labels[1] == proof.labels).mean() == record.parity["accuracy"]
    assert found["mean_divergence"] > 0
    assert found["variance_kept"] is None


def test_all_of_the_artifact_has_the_smaller_vocabulary(exported, small_artifact_dir):
    record, output = exported
    after = record.vocabulary["pieces"]["after"]
    config = json.loads((output / "config.json").read_text())
    tokenizer = json.loads((output / "tokenizer.json").read_text())
    assert config["vocab_size"] == after == len(tokenizer["model"]["vocab"])
    assert config["pad_token_id"] == record.preprocessing["pad_token_id"] == tokenizer["padding"]["pad_id"]
    assert tokenizer["model"]["vocab"]["[PAD]"] == config["pad_token_id"]
    vectors = json.loads((output / "reference.json").read_text())["vectors"]
    assert max(token for vector in vectors for token in vector["tokens"]) < after
    whole = read_manifest(small_artifact_dir)["size"]
    assert record.size["embeddings"] < 0.7 * whole["embeddings"]
    assert record.size["encoder"] == whole["encoder"]
    assert record.size["tokenizer"] < whole["tokenizer"]
    assert record.size["size_ratio"] < whole["size_ratio"]


def test_the_host_gives_the_recorded_answers(exported):
    assert execute(["verify", "--run", str(exported[1])]) == 0


@pytest.mark.parametrize("precision", ["int8", "int8-static"])
def test_int8_has_fewer_rows_too(precision, small_pruned_dir, critic_quotes, few, tmp_path):
    data = critic_quotes / "test.tsv"
    config = ExportConfig(
        precision=precision, parity_examples=64, vocabulary_agreement=0.5, parity_agreement=0.9
    )
    sources = ExportTexts(calibration=str(few), vocabulary=str(few))
    found = export_directory(str(small_pruned_dir), str(data), config, context(tmp_path / "out"), sources)
    assert found.vocabulary["pieces"]["after"] < 0.7 * found.vocabulary["pieces"]["before"]
    assert OnnxPredictor(tmp_path / "out", 1).label_names == ["fresh", "rotten"]


def test_structured_models_have_fewer_rows_too(half_as_wide_dir, critic_quotes, few, tmp_path):
    found = export(half_as_wide_dir, tmp_path / "narrow", critic_quotes / "test.tsv", few)
    assert found.widths[0].neurons == 128
    assert found.vocabulary["label_agreement"] > 0.5


def test_numbers_are_compared_and_validated(regression_dir, numbered_pairs, tmp_path):
    """Latency and memory are measured on each variant's own tokens."""
    artifact, data = tmp_path / "artifact", numbered_pairs / "test.tsv"
    found = export(
        regression_dir, artifact, data, numbered_pairs / "train.tsv", vocabulary_agreement=0.0
    ).vocabulary  # fmt: skip
    assert found["label_agreement"] is found["accuracy"] is None
    assert 0.2 < found["variance_kept"] < 1
    report = tmp_path / "report"
    shapes = ["--batch-sizes", "1", "--sequence-lengths", "16", "--latency-rounds", "3"]
    command = [
        *("validate", str(regression_dir), str(artifact), "--data", str(data), "--max-length", "48", *shapes),
        *("--task-metric", "pearson", "--gates", "task_score_drop <= 2"),
        *("--device", "cpu", "--threads", "1", "--output", str(report)),
    ]
    assert execute(command) == 0
    variants = json.loads((report / "report.json").read_text())["variants"]
    assert variants["artifact"]["latency"]
    assert variants["artifact"]["footprint"]


def test_texts_of_the_check_are_not_counted(small_pruned_dir, critic_quotes, few, tmp_path):
    with pytest.raises(
        UserError, match=r"few.tsv: all of its 2000 texts are those that answers are compared on.*--data"
    ):
        export(small_pruned_dir, tmp_path / "out", few, few, parity_examples=FEW)
    assert not (tmp_path / "out").exists()
    found = export(small_pruned_dir, tmp_path / "out", few, few, parity_examples=96)
    assert found.vocabulary["texts"] == FEW - 96


def test_a_bound_that_does_not_hold_fails_the_export(small_pruned_dir, critic_quotes, few, tmp_path):
    with pytest.raises(UserError) as caught:
        export(
            small_pruned_dir, tmp_path / "out", critic_quotes / "test.tsv", few,
            vocabulary_coverage=0.3, vocabulary_agreement=1.0,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
    message = str(caught.value)
    assert message.startswith("vocabulary: ")
    assert "less than 100.0%; give a larger --vocabulary-coverage" in message
    assert "\n" not in message


def test_the_bound_is_on_what_there_is(exported):
    record, _ = exported
    facts = module.VocabularyFacts(**record.vocabulary)
    assert asdict(facts) == record.vocabulary
    check_agreement(replace(facts, least_agreement=facts.label_agreement))
    number = replace(facts, label_agreement=None, variance_kept=0.5, least_agreement=0.5)
    check_agreement(number)
    assert "50.0% of the variance" in number.summary
    with pytest.raises(UserError, match=r"less than 60\.0%"):
        check_agreement(replace(number, least_agreement=0.6))
    check_agreement(replace(number, variance_kept=None))


@pytest.mark.parametrize("option", [{"vocabulary_coverage": 0.9}, {"vocabulary_agreement": 0.5}])
def test_its_options_are_of_nothing_else(option, small_pruned_dir, few, tmp_path):
    [name] = option
    with pytest.raises(UserError, match=rf"^{name}: is an option of --vocabulary alone"):
        export_directory(str(small_pruned_dir), str(few), ExportConfig(**option), context(tmp_path / "out"))


def test_a_slow_tokenizer_is_refused(small_classifier, few, test_quotes):
    class Slow:
        is_fast = False

    small_classifier.tokenizer = Slow()
    with pytest.raises(UserError, match=r"its tokenizer, Slow, has no tokenizer\.json"):
        with_smaller_vocabulary(
            small_classifier, str(few), test_quotes.select([0]), ExportConfig(), context(None)
        )


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tokenizer_is_built_anew_as_it_is_loaded(kind, tmp_path):
    make_kind(kind, tmp_path / "source")
    whole = load_tokenizer(str(tmp_path / "source"))
    content = json.loads(whole.backend_tokenizer.to_str())
    kept = module.choose_pieces(content, module.count_pieces(content, TEXTS[:3]), 1.0).kept
    assert len(kept) < len(whole)
    own = smaller_tokenizer(whole, kept)
    assert own.special_tokens_map == whole.special_tokens_map
    assert [kept[number] for number in own.all_special_ids] == whole.all_special_ids
    (tmp_path / "written").mkdir()
    write_tokenizer(own, tmp_path / "written", 16, INPUTS)
    again = load_tokenizer(str(tmp_path / "written"))
    for text in TEXTS[:3]:
        expected = whole(text, text)["input_ids"]
        for one in (own, again):
            assert [kept[number] for number in one(text, text)["input_ids"]] == expected


def test_ids_that_do_not_fit_are_refused(small_classifier, monkeypatch):
    kept = list(range(50, len(small_classifier.tokenizer)))
    monkeypatch.setattr(module, "rewritten_tokenizer", lambda *_: small_classifier.tokenizer)
    monkeypatch.setattr(module, "keep_pieces", lambda content, kept: content)
    with pytest.raises(UserError, match=r"have gaps or do not fit its added tokens.*keep it whole"):
        smaller_tokenizer(small_classifier.tokenizer, kept)


def test_a_layout_that_forgets_what_depends_on_ids_is_found_out(
    small_classifier, few, test_quotes, monkeypatch
):
    def keep_others(layout, model, kept, padding):
        keep_words(layout, model, [*kept[:-1][::-1], kept[-1]], padding)

    keep_words = EncoderLayout.keep_words
    monkeypatch.setattr(EncoderLayout, "keep_words", keep_others)
    with pytest.raises(RuntimeError, match="the layout's keep_words misses what else depends on ids"):
        with_smaller_vocabulary(
            small_classifier, str(few), test_quotes.select(range(64)), ExportConfig(), context(None)
        )


def test_another_family_has_a_smaller_vocabulary_too(tmp_path, monkeypatch):
    install_family(monkeypatch)
    model = make_other_checkpoint(tmp_path / "model")
    rows = ["text\tlabel", "a fine film\tneg", "a dull story\tpos", "great charm of film\tneg"]
    (tmp_path / "data.tsv").write_text("\n".join(rows) + "\n")
    (tmp_path / "words.tsv").write_text("text\na film of great charm\n")
    own = replace(context(tmp_path / "artifact"), columns=ColumnsConfig(max_length=16))
    config = ExportConfig(vocabulary_agreement=0.0)
    sources = ExportTexts(vocabulary=str(tmp_path / "words.tsv"))
    found = export_directory(str(model), str(tmp_path / "data.tsv"), config, own, sources)
    assert found.vocabulary["pieces"] == {"before": 15, "after": 10}
    assert found.vocabulary["other_tokens"] == pytest.approx(2 / 3)


def test_a_recipe_and_a_program_ask_for_it_too(small_pruned_dir, critic_quotes, few, tmp_path):
    data = {"test": str(critic_quotes / "test.tsv"), "vocabulary": str(few), "max_length": 48}
    options = {"parity_examples": 32, "vocabulary_agreement": 0.5}
    recipe = Recipe(
        model="unused",
        data=DataConfig(**data, calibration=str(few)),
        run=RunConfig(device="cpu", threads=1),
        export=ExportConfig(**options),
    )
    shutil.copytree(small_pruned_dir, tmp_path / "pruned")
    run_stage(Stage("export", (ARTIFACT,), (), {}), recipe, context(tmp_path))
    found = read_manifest(tmp_path / ARTIFACT)["vocabulary"]
    own = compressor.export(
        small_pruned_dir, output=tmp_path / "own", data=data["test"], vocabulary=few, max_length=48,
        device="cpu", threads=1, **options,
    )  # fmt: skip
    assert own.vocabulary == found
    assert found["texts"] == FEW


def test_the_command_says_what_is_kept(small_pruned_dir, critic_quotes, few, tmp_path, capsys):
    copy = shutil.copy(few, tmp_path / "texts.tsv")
    command = [
        *("export", str(small_pruned_dir), "--data", str(critic_quotes / "test.tsv"), "--max-length", "48"),
        *("--vocabulary", str(copy), "--vocabulary-agreement", "0.5", "--parity-examples", "32"),
        *("--device", "cpu", "--threads", "1", "--output", str(tmp_path / "out")),
    ]
    assert execute(command) == 0
    found = capsys.readouterr()
    pieces = read_manifest(tmp_path / "out")["vocabulary"]["pieces"]
    assert f"{pieces['after']:,} of {pieces['before']:,} pieces of the vocabulary" in found.out
    assert "of 32 texts are tokenized otherwise, labels agree with those of the whole vocabulary" in found.err
