"""What is kept of the dense model: measures against plain float64, texts of both kinds, plots."""

import copy
import dataclasses
import json
import math
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import torch

from compressor.attacks.records import AttackedExample
from compressor.errors import UserError
from compressor.inspection.comparison import (
    attention_map,
    cls_distances,
    compare_directories,
    compare_models,
    squared_error_sums,
)
from compressor.inspection.plots import knowledge_plots
from compressor.inspection.texts import KnowledgeOptions, knowledge_options, load_sets
from compressor.models.batching import encode, pad
from compressor.models.classifier import encoder_linears, load_classifier, save_classifier
from compressor.models.structure import remove_heads
from compressor.options import ColumnsConfig, RunConfig
from compressor.system.console import SilentProgress

COLUMNS = ColumnsConfig(max_length=48)
CPU = torch.device("cpu")
ORIGINALS = ["a fine film", "a dull and endless film", "one of the best films of the year"]
PERTURBED = ["a fiine film", "a dlul and endless fiml", "one of the bset films of\u2028the year"]


@pytest.fixture
def encoded(small_classifier, quotes):
    return encode(small_classifier.tokenizer, quotes.select(range(20)), COLUMNS.max_length)


@pytest.fixture
def drifted(small_classifier, drifted_copy):
    """A copy whose encoder weights are all off, as in a pruned model."""
    return drifted_copy(small_classifier.model, 0.02)


def example_line(text, changed, outcome):
    example = AttackedExample(text, None, changed, None, 0, outcome, 3, 3, 10, 0.1, 0.5)
    return json.dumps(dataclasses.asdict(example), ensure_ascii=False)


@pytest.fixture
def attack_dir(tmp_path):
    """What the attack stage writes: the second example was skipped, the fourth withstood."""
    outcomes = ["succeeded", "skipped", "succeeded", "failed", "succeeded"]
    originals, perturbed = iter(ORIGINALS), iter(PERTURBED)
    lines = []
    for outcome in outcomes:
        text = next(originals) if outcome == "succeeded" else "left alone"
        changed = next(perturbed) if outcome == "succeeded" else text
        lines.append(example_line(text, changed, outcome))
    folder = tmp_path / "attack"
    folder.mkdir()
    (folder / "examples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "robustness.json").write_text('{"attack": "deepwordbug", "model": "dense"}')
    return folder


def batches_of(encoded, size, length=None):
    return [pad(encoded[i : i + size], 0, length=length) for i in range(0, len(encoded), size)]


def seen_text_by_text(model, encoded):
    """[CLS] of each hidden state, and each linear layer's outputs, float64, texts alone and unpadded."""
    model = copy.deepcopy(model).double()
    outputs: dict[str, list[np.ndarray]] = {}
    for name, linear in encoder_linears(model).items():
        linear.register_forward_hook(
            lambda _, __, output, name=name: outputs.setdefault(name, []).append(output[0].numpy())
        )
    firsts = []
    with torch.no_grad():
        for text in encoded:
            states = model.bert(**pad([text], 0), output_hidden_states=True).hidden_states
            firsts.append([state[0, 0].numpy() for state in states])
    return np.array(firsts), {name: np.concatenate(rows) for name, rows in outputs.items()}


def test_cls_distances_of_known_vectors():
    dense = torch.tensor([[3.0, 4.0], [1.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    sparse = torch.tensor([[3.0, 4.0], [0.0, 2.0], [-1.0, 0.0], [3.0, 0.0]])
    cosine, euclidean = cls_distances(dense, sparse)
    assert cosine.dtype == euclidean.dtype == torch.float64
    assert cosine.tolist() == [0.0, 1.0, 2.0, 0.0]
    assert euclidean.tolist() == pytest.approx([0.0, math.sqrt(5), 2.0, 0.5], abs=1e-15)


def test_small_cosine_distances_are_not_lost_to_cancellation():
    angle = 1e-9
    cosine, _ = cls_distances(
        torch.tensor([[1.0, 0.0]], dtype=torch.float64),
        torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64),
    )
    assert float(cosine) == pytest.approx(angle**2 / 2, rel=1e-6, abs=0)


def test_squared_errors_are_summed_in_float64():
    generator = torch.Generator().manual_seed(0)
    dense = 1000 + torch.randn(2000, 50, generator=generator)
    sparse = dense + 1e-3 * torch.randn(2000, 50, generator=generator)
    error, size = squared_error_sums(dense, sparse).tolist()
    exact, other = dense.numpy().astype(np.float64), sparse.numpy().astype(np.float64)
    assert error == pytest.approx(np.square(exact - other).sum(), rel=1e-12)
    assert size == pytest.approx(np.square(exact).sum(), rel=1e-12)


def test_comparison_is_that_of_single_texts_in_float64(small_classifier, drifted, encoded):
    found = compare_models(small_classifier.model, drifted, batches_of(encoded, 7))
    dense_cls, dense_outputs = seen_text_by_text(small_classifier.model, encoded)
    cls, outputs = seen_text_by_text(drifted, encoded)
    norms, dense_norms = np.linalg.norm(cls, axis=2), np.linalg.norm(dense_cls, axis=2)
    cosine = 1 - (cls * dense_cls).sum(axis=2) / norms / dense_norms
    euclidean = np.linalg.norm(cls - dense_cls, axis=2) / dense_norms
    assert found.texts == len(encoded)
    assert found.tokens == sum(len(ids) for ids, _ in encoded)
    assert len(found.cosine) == 3
    assert found.cosine == pytest.approx(cosine.mean(axis=0), rel=1e-3, abs=1e-9)
    assert found.euclidean == pytest.approx(euclidean.mean(axis=0), rel=1e-3, abs=1e-9)
    assert found.euclidean[2] > 0.05
    assert list(found.squared_errors) == list(dense_outputs)
    for name, sums in found.squared_errors.items():
        error = np.square(outputs[name] - dense_outputs[name]).sum()
        assert sums == pytest.approx((error, np.square(dense_outputs[name]).sum()), rel=1e-3), name


def test_padding_and_other_batches_change_nothing(small_classifier, drifted, encoded):
    plain = compare_models(small_classifier.model, drifted, batches_of(encoded, 1))
    padded = compare_models(small_classifier.model, drifted, batches_of(encoded[::-1], 20, length=100))
    assert padded.tokens == plain.tokens
    assert padded.cosine == pytest.approx(plain.cosine, rel=1e-3, abs=1e-9)
    assert padded.euclidean == pytest.approx(plain.euclidean, rel=1e-3, abs=1e-9)
    for name, sums in plain.squared_errors.items():
        assert padded.squared_errors[name] == pytest.approx(sums, rel=1e-4), name


def test_a_model_keeps_all_of_itself(small_classifier, encoded):
    found = compare_models(
        small_classifier.model, copy.deepcopy(small_classifier.model), batches_of(encoded, 8)
    )
    assert found.cosine == found.euclidean == [0.0, 0.0, 0.0]
    assert {error for error, _ in found.squared_errors.values()} == {0.0}
    assert min(size for _, size in found.squared_errors.values()) > 0


def test_attention_is_the_mean_over_the_heads(small_classifier_dir, encoded):
    model = load_classifier(str(small_classifier_dir), attention="eager").model
    found = attention_map(model, encoded[0], 2)
    layer, heads = model.bert.encoder.layer[1].attention.self, model.config.num_attention_heads
    with torch.no_grad():
        states = model.bert(**pad([encoded[0]], 0), output_hidden_states=True).hidden_states[1][0]
        query, key = (part(states).double().unflatten(1, (heads, -1)) for part in (layer.query, layer.key))
    scores = torch.einsum("qhd,khd->hqk", query, key) / math.sqrt(query.shape[2])
    assert found.shape == (len(encoded[0][0]),) * 2
    assert float((found - scores.softmax(dim=2).mean(dim=0)).abs().max()) < 1e-5


@pytest.fixture
def removed_dir(small_classifier, tmp_path):
    """The small classifier without two heads of its second layer."""
    remove_heads(small_classifier.model, 1, [0, 3])
    save_classifier(small_classifier, tmp_path / "removed")
    return tmp_path / "removed"


def test_layers_of_another_width_are_skipped_and_said_so(small_classifier_dir, removed_dir, attack_dir):
    options = KnowledgeOptions(str(small_classifier_dir), attacked=attack_dir)
    found = compare_directories(str(removed_dir), options, COLUMNS, RunConfig(), CPU, SilentProgress())
    for entry in found["sets"].values():
        rows = {row["name"]: row for row in entry["reconstruction"]}
        skipped = [name for name, row in rows.items() if row["skipped"]]
        assert skipped == [f"bert.encoder.layer.1.attention.self.{m}" for m in ("query", "key", "value")]
        assert {rows[name]["relative_error"] for name in skipped} == {None}
        assert rows["bert.encoder.layer.0.output.dense"]["relative_error"] == 0.0
        assert rows["bert.encoder.layer.1.attention.output.dense"]["relative_error"] > 0
        assert [row["cosine"] > 0 for row in entry["cls_distance"]] == [False, False, True]
    assert "or no error" in knowledge_plots(found)["reconstruction-error.svg"]


def test_record_holds_pairs_and_maps_and_is_json(small_classifier_dir, half_as_wide_dir, attack_dir):
    options = KnowledgeOptions(str(small_classifier_dir), attacked=attack_dir, attention_layer=1)
    found = compare_directories(str(half_as_wide_dir), options, COLUMNS, RunConfig(), CPU, SilentProgress())
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["attacks"] == {
        "path": str(attack_dir),
        "attack": "deepwordbug",
        "victim": "dense",
        "succeeded": 3,
    }
    assert [entry["texts"] for entry in found["sets"].values()] == [3, 3]
    assert found["attention"]["layer"] == 1
    maps = found["attention"]["maps"]
    assert maps["clean"]["tokens"] == ["[CLS]", "a", "fine", "film", "[SEP]"]
    for entry in maps.values():
        for model in ("dense", "sparse"):
            assert np.sum(entry[model], axis=1) == pytest.approx(np.ones(len(entry["tokens"])), abs=1e-4)
    plots = knowledge_plots(found)
    with matplotlib.rc_context({"font.size": 20, "svg.fonttype": "path"}):
        assert knowledge_plots(found) == plots
    for svg in plots.values():
        root = ElementTree.fromstring(svg)  # noqa: S314 -- made by this test
        assert root[0].tag.endswith("title")
    assert ">attacked (3 texts)<" in plots["cls-distance.svg"]
    assert "the output widths differ" in plots["reconstruction-error.svg"]
    assert ">fine<" in plots["attention.svg"]


def test_attacked_texts_come_with_their_own_originals(attack_dir):
    texts = load_sets(KnowledgeOptions("dense", attacked=attack_dir), COLUMNS, 0)
    assert texts.sets["clean"].texts == ORIGINALS
    assert texts.sets["attacked"].texts == PERTURBED
    few = load_sets(KnowledgeOptions("dense", attacked=attack_dir, examples=2), COLUMNS, 3).sets
    pairs = list(zip(few["clean"].texts, few["attacked"].texts, strict=True))
    assert len(pairs) == 2
    assert set(pairs) < set(zip(ORIGINALS, PERTURBED, strict=True))
    assert {name: data.texts for name, data in texts.sentences.items()} == {
        "clean": ORIGINALS[:1],
        "attacked": PERTURBED[:1],
    }


def test_clean_texts_of_their_own(attack_dir, tmp_path):
    data = tmp_path / "data.tsv"
    data.write_text("text\nunlabelled one\nunlabelled two\n")
    both = KnowledgeOptions("dense", data=str(data), attacked=attack_dir, sentence="look at this")
    texts = load_sets(both, COLUMNS, 0)
    assert texts.sets["clean"].texts == ["unlabelled one", "unlabelled two"]
    assert texts.sets["attacked"].texts == PERTURBED
    assert {name: data.texts for name, data in texts.sentences.items()} == {"clean": ["look at this"]}
    alone = load_sets(KnowledgeOptions("dense", data=str(data)), COLUMNS, 0)
    assert list(alone.sets) == list(alone.sentences) == ["clean"]


@pytest.mark.parametrize(
    ("against", "columns", "values", "says"),
    [
        (None, COLUMNS, {}, "--max-length: .*--against DENSE"),
        (None, ColumnsConfig(), {"data": None, "attention_layer": 1}, "--attention-layer: .*--against DENSE"),
        ("dense", COLUMNS, {"sentence": "a"}, "--data FILE, or --attacked DIR"),
        ("dense", COLUMNS, {"data": "d", "attacked_sentence": "a"}, "--attacked-sentence: .*--sentence TEXT"),
        ("dense", COLUMNS, {"data": "d", "sentence": " "}, "--sentence: is empty"),
    ],
)
def test_options_that_another_is_missing_for(against, columns, values, says):
    with pytest.raises(UserError, match=says):
        knowledge_options(against, columns, values)


def test_a_directory_without_successful_attacks(attack_dir, tmp_path):
    with pytest.raises(UserError, match=r"has no robustness\.json"):
        load_sets(KnowledgeOptions("dense", attacked=tmp_path), COLUMNS, 0)
    (attack_dir / "examples.jsonl").write_text(example_line("kept", "kept", "failed") + "\n")
    with pytest.raises(UserError, match="no attack succeeded there"):
        load_sets(KnowledgeOptions("dense", attacked=attack_dir), COLUMNS, 0)
    (attack_dir / "examples.jsonl").write_text('{"outcome": "succeeded"}\n')
    with pytest.raises(UserError, match=r"examples\.jsonl: is no record of attacked examples"):
        load_sets(KnowledgeOptions("dense", attacked=attack_dir), COLUMNS, 0)


def test_models_that_have_nothing_in_common(small_classifier_dir, writable_copy, attack_dir):
    def compare(layer=None):
        options = KnowledgeOptions(str(small_classifier_dir), attacked=attack_dir, attention_layer=layer)
        compare_directories(str(writable_copy), options, COLUMNS, RunConfig(), CPU, SilentProgress())

    with pytest.raises(UserError, match="--attention-layer 3: the models have layers 1 to 2"):
        compare(3)
    classifier = load_classifier(str(writable_copy))
    classifier.tokenizer.add_tokens(["unheardof"])
    classifier.model.resize_token_embeddings(len(classifier.tokenizer))
    save_classifier(classifier, writable_copy)
    with pytest.raises(UserError, match="different vocabulary"):
        compare()
    classifier.model.bert.encoder.layer = classifier.model.bert.encoder.layer[:1]
    classifier.model.config.num_hidden_layers = 1
    save_classifier(classifier, writable_copy)
    with pytest.raises(UserError, match=r"has 2 encoder layers, and .* has 1"):
        compare()
    (writable_copy / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="is an exported artifact"):
        compare()
