"""Every encoder family goes through the stages, with a small model and a tokenizer of the family's kind.

The models are trained from scratch on a task that such a model learns in seconds, which of two words is in a
critic's quote: sentiment takes them minutes.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from families import FAMILIES, LENGTH, write_encoder
from made_latency_tables import table_for
from project import ROOT

from compressor.attacks.stage import attack_directory
from compressor.data.texts import load_text_data
from compressor.inspection.comparison import attention_map
from compressor.models.batching import encode, encode_texts, inputs_of, pad
from compressor.models.classifier import encoder_weights, load_classifier, load_tokenizer
from compressor.models.encoders.registry import BUILT_IN, layout_of_type
from compressor.models.latency_table import Widths
from compressor.models.portable.check_host import check_host
from compressor.models.predictors import OnnxPredictor, TorchPredictor, predict
from compressor.options import (
    AdaptiveConfig,
    AttackConfig,
    ColumnsConfig,
    ExportConfig,
    FinetuneConfig,
    PruneConfig,
    RunConfig,
    VocabularyConfig,
)
from compressor.pruning.interface import prune_directory
from compressor.search.micro_models import MicroArtifacts, micro_classifier, random_texts, read_shape
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from compressor.training.finetune_stage import finetune_directory
from exporters.onnx import encoder_initializers, export_graph
from exporters.shrink import layer_widths
from exporters.stage import export_directory
from exporters.tensorrt.checks import static_checks
from exporters.tensorrt.profile import Profile
from exporters.vocabulary import smaller_classifier

pytestmark = pytest.mark.model

COLUMNS, RUN = ColumnsConfig(max_length=LENGTH), RunConfig(device="cpu", threads=1)
LABELS = ["film", "movie"]
TRAINED, TESTED, ATTACKED = 800, 300, 20
PRUNED = {
    "whole": {"sparsity": 0.0},
    "half": {"sparsity": 0.5},
    "narrow": {"sparsity": 0.5, "pattern": "structured"},
}
# The same modules as RoBERTa's: only what depends on names and tokenizers is shown of them.
TWINS = ("xlm-roberta", "camembert")
OWN = [name for name in FAMILIES if name not in TWINS]


def context(output):
    return Context(output=output, columns=COLUMNS, run=RUN, progress=SilentProgress())


@dataclass(frozen=True)
class Made:
    """A family's models, each made once: `encoder`, `dense`, and those of `PRUNED`."""

    model_type: str
    folder: Path
    texts: Path

    @property
    def test(self):
        return load_text_data(str(self.texts / "test.tsv"), COLUMNS, "test", label_names=LABELS)

    def load(self, name, **options):
        return load_classifier(str(self.folder / name), **options)

    def logits(self, name):
        return predict(TorchPredictor(self.load(name)), self.test, LENGTH)

    def prune(self, output, adaptive=None, **options):
        adaptive = AdaptiveConfig(iterations=4, **adaptive or {})
        config = PruneConfig(calibration_examples=48, adaptive=adaptive, **options)
        texts = str(self.texts / "train.tsv")
        prune_directory(str(self.folder / "dense"), texts, config, context(output))

    def export(self, name, output, **options):
        config = ExportConfig(parity_examples=40, **options)
        return export_directory(
            str(self.folder / name), str(self.texts / "test.tsv"), config, context(output)
        )


@pytest.fixture(scope="session")
def film_texts(critic_quotes, made_once):
    """A folder with `train.tsv`, `test.tsv` and `few.tsv`: quotes that say either film or movie."""

    def fill(folder):
        quotes = (critic_quotes / "train.tsv").read_text(encoding="utf-8").splitlines()[1:]
        rows = []
        for text in (quote.split("\t")[0] for quote in quotes):
            said = {word for word in re.findall("[a-z]+", text.lower()) if word in LABELS}
            if len(said) == 1:
                rows.append(f"{text}\t{said.pop()}")
        tested = rows[TRAINED : TRAINED + TESTED]
        for name, part in (("train", rows[:TRAINED]), ("test", tested), ("few", tested[:ATTACKED])):
            (folder / f"{name}.tsv").write_text("\n".join(["text\tlabel", *part]) + "\n", encoding="utf-8")

    return made_once("film texts", fill)


@pytest.fixture(scope="session")
def made(request, film_texts, made_once):
    """The models of a family, which is the fixture's parameter."""
    model_type = request.param
    texts = load_text_data(str(film_texts / "train.tsv"), COLUMNS, "train", label_names=LABELS).texts

    def fill(folder):
        write_encoder(model_type, texts, folder / "encoder")
        config = FinetuneConfig(epochs=3, learning_rate=1e-3, batch_size=16)
        finetune_directory(
            str(folder / "encoder"), str(film_texts / "train.tsv"), config, context(folder / "dense")
        )
        own = Made(model_type, folder, film_texts)
        for name, options in PRUNED.items():
            own.prune(folder / name, **options)

    return Made(model_type, made_once(f"family {model_type}", fill), film_texts)


@pytest.fixture(scope="session")
def artifact(made, made_once):
    """The structured model of the family, exported."""
    folder = made_once(
        f"artifact {made.model_type}", lambda folder: made.export("narrow", folder / "artifact")
    )
    return folder / "artifact"


def of(families):
    return pytest.mark.parametrize("made", families, indirect=True)


def accuracy(logits, data):
    return float((logits.argmax(axis=1) == np.array(data.labels)).mean())


@of(FAMILIES)
def test_a_trained_model_answers_better_than_the_majority_and_so_do_pruned_ones(made):
    data, dense = made.test, made.logits("dense")
    majority = np.bincount(data.labels).max() / len(data)
    assert accuracy(dense, data) > majority + 0.1
    assert np.abs(made.logits("whole") - dense).max() < 1e-4
    assert accuracy(made.logits("half"), data) > accuracy(dense, data) - 0.02
    assert accuracy(made.logits("narrow"), data) > accuracy(dense, data) - 0.05


@of(FAMILIES)
def test_a_structured_model_loads_with_transformers_alone(made):
    from transformers import AutoModelForSequenceClassification

    own = made.load("narrow")
    plain = AutoModelForSequenceClassification.from_pretrained(made.folder / "narrow").eval()
    encoded = encode(own.tokenizer, made.test, LENGTH)[:40]
    batch = inputs_of(own.model, pad(encoded, own.tokenizer.pad_token_id))
    with torch.no_grad():
        assert torch.equal(plain(**batch).logits, own.model(**batch).logits)
    wide = encoder_weights(made.load("dense").model)
    names = own.layout.linears
    for name, weight in encoder_weights(own.model).items():
        axis = int(name.endswith((names.attention_output, names.neurons_out)))
        assert 0 < weight.shape[axis] < wide[name].shape[axis], name


@of(OWN)
def test_the_graph_of_a_structured_model_is_as_small_and_answers_alike(made, artifact):
    own, graph = made.load("narrow"), artifact / "model.onnx"
    found = predict(OnnxPredictor(artifact, 1), made.test, LENGTH)
    assert np.abs(found - made.logits("narrow")).max() < 1e-4
    shapes = {name: weight.shape for name, weight in encoder_weights(own.model).items()}
    assert {n: w.shape for n, w in encoder_initializers(graph, own.layout).items()} == shapes
    inputs = [entry.name for entry in onnx.load(graph).graph.input]
    assert inputs == list(own.layout.inputs)
    written = json.loads((artifact / "tokenizer_config.json").read_text())
    assert written["model_input_names"] == inputs


@of(OWN)
def test_a_graph_in_half_precision_passes_the_checks_for_tensorrt(made, tmp_path):
    export_graph(made.load("narrow", attention="eager"), tmp_path / "model.onnx", torch.float16)
    graph = onnx.load(tmp_path / "model.onnx")
    checks = static_checks(graph, Profile(1, 4, 8, 1, 16, LENGTH), LENGTH)
    assert [check.findings for check in checks if check.status == "fail"] == []


@of(FAMILIES)
def test_an_int8_artifact_keeps_zeros_labels_and_recorded_answers(made, tmp_path):
    artifact = tmp_path / "artifact"
    record = made.export("half", artifact, precision="int8", shrink=False)
    weights = encoder_weights(made.load("half").model)
    stored = encoder_initializers(artifact / "model.onnx", layout_of_type(made.model_type))
    assert stored.keys() == weights.keys()
    for name, weight in weights.items():
        assert int((weight == 0).sum()) >= weight.numel() // 4
        assert not stored[name][weight == 0].any()
    found = predict(OnnxPredictor(artifact, 1), made.test, LENGTH)
    assert (found.argmax(axis=1) == made.logits("half").argmax(axis=1)).mean() >= 0.98
    assert record.invariance["batch_disagreement"] == 0
    assert record.preprocessing["needs_transformers"] is None
    checked = check_host(artifact)
    assert checked.problems == []
    assert (checked.other_tokens, checked.changed_labels) == (0, 0)


@of(["deberta-v2"])
@pytest.mark.parametrize("precision", ["int8-dynamic", "bf16"])
def test_other_forms_of_a_graph_with_constants_for_each_head_answer_alike(made, tmp_path, precision):
    # int8-dynamic has one scale for a whole batch, and some texts are close to the bound between the labels.
    record = made.export("half", tmp_path / "artifact", precision=precision, parity_agreement=0.9)
    assert record.parity["label_agreement"] >= 0.9


@of(OWN)
def test_an_attack_ends_alike_on_pytorch_and_on_the_artifact(made, artifact, tmp_path):
    config = AttackConfig(attack="deepwordbug", attack_examples=ATTACKED)
    outcomes = []
    for number, source in enumerate((made.folder / "narrow", artifact)):
        output = tmp_path / f"attack{number}"
        attack_directory(str(source), str(made.texts / "few.tsv"), config, context(output))
        lines = (output / "examples.jsonl").read_text(encoding="utf-8").splitlines()
        outcomes.append([json.loads(line)["outcome"] for line in lines])
    assert len(outcomes[0]) == ATTACKED
    assert "succeeded" in outcomes[0]
    assert np.mean([one == other for one, other in zip(*outcomes, strict=True)]) >= 0.95


@of(FAMILIES)
def test_a_smaller_vocabulary_leaves_the_answers_to_texts_whose_pieces_stay(made):
    classifier, data = made.load("dense"), made.test
    options = VocabularyConfig(vocabulary_coverage=0.97, vocabulary_agreement=0.5)
    source = str(made.texts / "train.tsv")
    smaller, facts = smaller_classifier(classifier, source, data, options, context(Path()))
    assert facts.pieces["after"] < facts.pieces["before"]
    assert 0 < facts.other_tokens < 1
    assert smaller.model.config.pad_token_id == smaller.tokenizer.pad_token_id


@of(["roberta"])
def test_a_tokenizer_of_a_vocabulary_and_merges_is_read(made, tmp_path):
    model = json.loads((made.folder / "encoder" / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    for name in ("config.json", "tokenizer_config.json"):
        shutil.copy(made.folder / "encoder" / name, tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = [" ".join(merge) for merge in model["merges"]]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    whole, found = (load_tokenizer(str(folder)) for folder in (made.folder / "encoder", tmp_path))
    assert [found(text)["input_ids"] for text in made.test.texts] == [
        whole(text)["input_ids"] for text in made.test.texts
    ]


@of(OWN)
def test_a_model_is_pruned_for_a_speed(made, tmp_path):
    table = tmp_path / "table.json"
    table.write_text(table_for(made.load("dense")).model_dump_json())
    goal = {"speedup": 4.0, "latency_table": str(table)}
    made.prune(tmp_path / "fast", adaptive=goal, pattern="structured")
    folders = (made.folder / "dense", tmp_path / "fast")
    dense, fast = (layer_widths(load_classifier(str(folder)).model) for folder in folders)
    count = [sum(own.heads + own.neurons for own in widths) for widths in (dense, fast)]
    assert count[1] < 0.8 * count[0]


@of(OWN)
def test_micro_models_are_exported_for_a_latency_table(made, tmp_path):
    shape = read_shape(str(made.folder / "dense"))
    assert shape.longest == LENGTH
    artifacts = MicroArtifacts(shape, ExportConfig(), random_texts(4, 8, 0), 0)
    # The second graph is cut out of the first, if there is nothing but linear layers to cut.
    for heads in (3, 2):
        directory = tmp_path / f"micro{heads}"
        directory.mkdir()
        artifacts.write(Widths(heads=heads, neurons=0), directory)
        own = micro_classifier(shape, heads, 0, seed=0)
        batch = pad(random_texts(3, LENGTH, 1), own.tokenizer.pad_token_id)
        expected = TorchPredictor(own).logits(batch)
        assert np.abs(OnnxPredictor(directory, 1).logits(batch) - expected).max() < 1e-4


@of(FAMILIES)
def test_attention_is_read_for_an_inspection(made):
    classifier = made.load("narrow", attention="eager")
    [encoded] = encode_texts(classifier.tokenizer, ["a fine film"], None, LENGTH)
    found = attention_map(classifier.model, encoded, 2)
    assert found.shape == (len(encoded[0]), len(encoded[0]))
    torch.testing.assert_close(found.sum(dim=1), torch.ones(len(found)))


# The table of docs/reference/families.md: what is shown of a family, by the test that shows it.
STAGES = {
    "fine-tune, prune": test_a_trained_model_answers_better_than_the_majority_and_so_do_pruned_ones,
    "heads and neurons removed": test_a_structured_model_loads_with_transformers_alone,
    "export": test_the_graph_of_a_structured_model_is_as_small_and_answers_alike,
    "fp16, TensorRT's checks": test_a_graph_in_half_precision_passes_the_checks_for_tensorrt,
    "int8, recorded answers": test_an_int8_artifact_keeps_zeros_labels_and_recorded_answers,
    "attack": test_an_attack_ends_alike_on_pytorch_and_on_the_artifact,
    "smaller vocabulary": test_a_smaller_vocabulary_leaves_the_answers_to_texts_whose_pieces_stay,
    "prune for a speed": test_a_model_is_pruned_for_a_speed,
    "latency table": test_micro_models_are_exported_for_a_latency_table,
    "inspect": test_attention_is_read_for_an_inspection,
}


def support(model_type, shown):
    """What the table says: all other tests show BERT, and what is not shown of a twin is shown of RoBERTa."""
    [mark] = [mark for mark in shown.pytestmark if mark.name == "parametrize"]
    if model_type == "bert" or model_type in mark.args[1]:
        return "tested"
    assert model_type in TWINS
    return "as RoBERTa"


def test_the_documentation_says_what_is_tested_of_each_family():
    lines = [f"| family | `model_type` | {' | '.join(STAGES)} |", "| --- " * (2 + len(STAGES)) + "|"]
    for model_type in BUILT_IN:
        cells = [support(model_type, shown) for shown in STAGES.values()]
        title = layout_of_type(model_type).title
        lines.append(f"| {title} | `{model_type}` | {' | '.join(cells)} |")
    page = (ROOT / "docs" / "reference" / "families.md").read_text(encoding="utf-8")
    assert "\n".join(lines) + "\n" in page
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(layout_of_type(model_type).title in readme.split("## ")[0] for model_type in BUILT_IN)
