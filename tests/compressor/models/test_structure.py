"""Heads and neurons taken out: the smaller model against zeroed columns, on disk, and exported."""

import json

import numpy as np
import onnx
import pytest
import torch
from needs import NEEDS_OPTIMUM
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
)

from compressor.errors import UserError
from compressor.models.classifier import Classifier, load_classifier, load_tokenizer, save_classifier
from compressor.models.predictors import OnnxPredictor, TorchPredictor, predict
from compressor.models.structure import (
    classifier_class,
    head_size,
    remove_heads,
    remove_neurons,
    set_neuron_count,
)
from compressor.options import AdaptiveConfig, ColumnsConfig, ExportConfig, PruneConfig, RunConfig
from compressor.pruning.interface import PruningJob, prune_classifier, prune_directory
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from exporters.stage import export_directory

LENGTH = 32
HEADS, HEAD_SIZE, NEURONS = 12, 32, 256
ALGORITHMS = ("adaptive", "magnitude")
RUN = RunConfig(device="cpu", threads=2)


def prune(directory, data, algorithm, sparsity, pattern="structured", **adaptive):
    classifier = load_classifier(str(directory))
    config = PruneConfig(
        algorithm=algorithm,
        pattern=pattern,
        sparsity=sparsity,
        calibration_examples=48,
        adaptive=AdaptiveConfig(iterations=2, **adaptive),
    )
    job = PruningJob(config, LENGTH, seed=0)
    return classifier, prune_classifier(classifier, data, job, SilentProgress())


def logits(classifier, data):
    return predict(TorchPredictor(classifier), data, LENGTH)


@pytest.fixture(scope="module")
def few_quotes(test_quotes):
    return test_quotes.select(range(60))


# what is taken out ------------------------------------------------------------------------------


def zero_heads(model, index, heads):
    weight = model.bert.encoder.layer[index].attention.output.dense.weight
    for head in heads:
        weight.data[:, head * HEAD_SIZE : (head + 1) * HEAD_SIZE] = 0.0


def test_a_model_without_heads_and_neurons_is_the_one_with_their_outputs_zeroed(
    small_classifier_dir, small_classifier, few_quotes
):
    zeroed = load_classifier(str(small_classifier_dir))
    for index, (heads, neurons) in enumerate([([0, 5], [3, 255]), ([11], [0, 1])]):
        remove_heads(small_classifier.model, index, heads)
        remove_neurons(small_classifier.model, index, neurons)
        zero_heads(zeroed.model, index, heads)
        zeroed.model.bert.encoder.layer[index].output.dense.weight.data[:, neurons] = 0.0
    set_neuron_count(small_classifier.model)
    assert small_classifier.model.config.intermediate_size == NEURONS - 2
    expected = logits(zeroed, few_quotes)
    assert np.abs(expected - logits(small_classifier, few_quotes)).max() < 1e-4


def test_listed_heads_are_cut_where_transformers_does_not_heed_them(monkeypatch):
    """As in version 5, which has not the method and does not call it."""
    monkeypatch.delattr(PreTrainedModel, "prune_heads", raising=False)
    monkeypatch.setattr(PreTrainedModel, "init_weights", lambda _: None)
    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=8
    )
    model = BertForSequenceClassification(config).eval()
    assert classifier_class(config) is BertForSequenceClassification
    remove_heads(model, 1, [0, 2])
    again = BertConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    narrowed = classifier_class(again)(again).eval()
    narrowed.load_state_dict(model.state_dict())
    ids = torch.arange(12).reshape(2, 6)
    assert torch.equal(narrowed(input_ids=ids).logits, model(input_ids=ids).logits)
    assert narrowed.bert.encoder.layer[1].attention.self.query.out_features == 16


def test_heads_are_numbered_as_the_layer_has_them_now(small_classifier_dir, small_classifier, few_quotes):
    zeroed = load_classifier(str(small_classifier_dir))
    remove_heads(small_classifier.model, 0, [1, 3])
    # Now 0, 2, 4, 5, ...: the second and the third are heads 2 and 4 of the whole layer.
    remove_heads(small_classifier.model, 0, [1, 2])
    zero_heads(zeroed.model, 0, [1, 2, 3, 4])
    assert sorted(small_classifier.model.config.pruned_heads[0]) == [1, 2, 3, 4]
    assert np.abs(logits(zeroed, few_quotes) - logits(small_classifier, few_quotes)).max() < 1e-4


def test_taking_nothing_out_changes_nothing(small_classifier_dir, small_classifier, few_quotes):
    before = logits(small_classifier, few_quotes)
    remove_heads(small_classifier.model, 0, [])
    remove_neurons(small_classifier.model, 0, [])
    set_neuron_count(small_classifier.model)
    assert np.array_equal(logits(small_classifier, few_quotes), before)


def test_the_size_of_a_head_stays_when_heads_go(small_classifier):
    assert head_size(small_classifier.model) == HEAD_SIZE
    remove_heads(small_classifier.model, 0, [0, 1, 2])
    assert head_size(small_classifier.model) == HEAD_SIZE


# whole prunes -----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[(a, s) for a in ALGORITHMS for s in (0.25, 0.5)], ids=str)
def smaller(request, small_classifier_dir, quotes):
    algorithm, sparsity = request.param
    return sparsity, *prune(small_classifier_dir, quotes, algorithm, sparsity)


def test_every_layer_is_smaller_by_its_share(smaller, small_classifier):
    sparsity, classifier, result = smaller
    stay = 1 - sparsity
    for layer in classifier.model.bert.encoder.layer:
        attention = layer.attention
        assert attention.self.num_attention_heads == HEADS * stay
        assert attention.self.query.weight.shape == (HEADS * stay * HEAD_SIZE, 384)
        assert attention.output.dense.weight.shape == (384, HEADS * stay * HEAD_SIZE)
        assert layer.intermediate.dense.weight.shape == (NEURONS * stay, 384)
        assert layer.output.dense.weight.shape == (384, NEURONS * stay)
    sizes = [
        sum(p.numel() for p in c.model.bert.encoder.parameters()) for c in (classifier, small_classifier)
    ]
    assert sizes[0] < (stay + 0.02) * sizes[1]
    assert result.masks == {}
    assert len(result.layers) == 12


def test_the_configuration_tells_what_is_gone(smaller):
    sparsity, classifier, _ = smaller
    config = classifier.model.config
    assert config.intermediate_size == NEURONS * (1 - sparsity)
    assert config.num_attention_heads == HEADS
    assert set(config.pruned_heads) == {0, 1}
    assert all(len(set(heads)) == HEADS * sparsity for heads in config.pruned_heads.values())


def test_saved_and_loaded_it_gives_identical_logits(smaller, few_quotes, tmp_path):
    _, classifier, _ = smaller
    save_classifier(classifier, tmp_path)
    again = load_classifier(str(tmp_path))
    assert np.array_equal(logits(again, few_quotes), logits(classifier, few_quotes))


def plainly_loaded(folder):
    """The model as programs without this one load it."""
    model, report = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(report[name] for name in ("missing_keys", "mismatched_keys", "unexpected_keys"))
    return Classifier(model.eval(), load_tokenizer(str(folder)), "plain")


def test_transformers_alone_loads_a_checkpoint_with_the_same_answers(smaller, few_quotes, tmp_path):
    sparsity, classifier, _ = smaller
    save_classifier(classifier, tmp_path)
    plain = plainly_loaded(tmp_path)
    assert np.abs(logits(plain, few_quotes) - logits(classifier, few_quotes)).max() < 1e-5
    for layer in plain.model.bert.encoder.layer:
        assert layer.attention.self.query.weight.shape == (384, 384)
        gone = [
            (weight == 0).all(1).sum()
            for weight in (layer.attention.self.value.weight, layer.attention.output.dense.weight.T)
        ]
        assert gone == [HEADS * sparsity * HEAD_SIZE] * 2
        assert layer.intermediate.dense.weight.shape == (NEURONS * (1 - sparsity), 384)


def test_what_transformers_alone_loads_and_saves_is_small_again(smaller, few_quotes, tmp_path):
    _, classifier, _ = smaller
    save_classifier(classifier, tmp_path / "saved")
    plain = plainly_loaded(tmp_path / "saved")
    plain.model.save_pretrained(tmp_path / "again")
    plain.tokenizer.save_pretrained(tmp_path / "again")
    again = load_classifier(str(tmp_path / "again"))
    assert again.model.config.pruned_heads == classifier.model.config.pruned_heads
    assert np.array_equal(logits(again, few_quotes), logits(classifier, few_quotes))


def test_a_checkpoint_lists_its_zero_heads_under_a_key_that_transformers_does_not_read(smaller, tmp_path):
    _, classifier, _ = smaller
    save_classifier(classifier, tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert not written.get("pruned_heads")
    assert written["removed_heads"] == {
        str(index): heads for index, heads in classifier.model.config.pruned_heads.items()
    }
    # Saving leaves the model as it was.
    assert not hasattr(classifier.model.config, "removed_heads")
    assert classifier.model.bert.encoder.layer[0].attention.self.query.out_features < 384


def test_checkpoints_without_the_weights_of_their_pruned_heads_are_still_read(smaller, few_quotes, tmp_path):
    """As transformers 4 writes them, and earlier versions of this program did."""
    _, classifier, _ = smaller
    classifier.model.save_pretrained(tmp_path)
    classifier.tokenizer.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["pruned_heads"]
    again = load_classifier(str(tmp_path))
    assert np.array_equal(logits(again, few_quotes), logits(classifier, few_quotes))


def test_listed_heads_with_weights_are_refused(smaller, tmp_path):
    _, classifier, _ = smaller
    save_classifier(classifier, tmp_path)
    plain = plainly_loaded(tmp_path)
    head = classifier.model.config.pruned_heads[1][0]
    plain.model.bert.encoder.layer[1].attention.output.dense.weight.data[5, head * HEAD_SIZE] = 0.1
    plain.model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"removed_heads: heads that it lists of layer 1 .* not zero"):
        load_classifier(str(tmp_path))


def test_heads_that_go_later_are_numbered_as_the_whole_layer_had_them(small_classifier, few_quotes, tmp_path):
    """A checkpoint may list heads that its weights have as zeros, and others that they do not have."""
    remove_heads(small_classifier.model, 0, [0, 5])
    save_classifier(small_classifier, tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    whole = load_file(tmp_path / "model.safetensors")
    prefix = "bert.encoder.layer.0.attention."
    for name in ("self.query", "self.key", "self.value"):
        for part in ("weight", "bias"):
            whole[f"{prefix}{name}.{part}"] = whole[f"{prefix}{name}.{part}"][HEAD_SIZE:].clone()
    output = f"{prefix}output.dense.weight"
    whole[output] = whole[output][:, HEAD_SIZE:].clone()
    save_file(whole, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps({**content, "pruned_heads": {"0": [0]}}))
    again = load_classifier(str(tmp_path))
    assert again.model.config.pruned_heads == {0: [0, 5]}
    assert np.array_equal(logits(again, few_quotes), logits(small_classifier, few_quotes))


def test_adaptive_stays_nearer_to_the_dense_model_than_magnitude(
    small_classifier_dir, small_classifier, quotes, few_quotes
):
    dense = logits(small_classifier, few_quotes)
    near, far = (
        np.abs(logits(prune(small_classifier_dir, quotes, name, 0.5)[0], few_quotes) - dense).mean()
        for name in ALGORITHMS
    )
    assert near < 0.7 * far


def test_a_smaller_model_can_be_pruned_again(small_classifier_dir, quotes, few_quotes, tmp_path):
    once, _ = prune(small_classifier_dir, quotes, "adaptive", 0.25)
    save_classifier(once, tmp_path / "once")
    for algorithm in ALGORITHMS:
        twice, _ = prune(tmp_path / "once", quotes, algorithm, 0.34)
        # 9 heads and 192 neurons were left: 3 and 65 of them go.
        assert all(len(heads) == 6 for heads in twice.model.config.pruned_heads.values())
        assert twice.model.config.intermediate_size == 127
        save_classifier(twice, tmp_path / algorithm)
        again = load_classifier(str(tmp_path / algorithm))
        assert np.array_equal(logits(again, few_quotes), logits(twice, few_quotes))
    sparse, result = prune(tmp_path / "once", quotes, "adaptive", 0.9, "unstructured", solver="greedy")
    assert len(result.masks) == 12
    assert torch.isfinite(torch.from_numpy(logits(sparse, few_quotes))).all()


@pytest.mark.parametrize("algorithm", ["wanda", "sparsegpt", "randomized"])
def test_other_algorithms_refuse_and_leave_the_model_alone(small_classifier_dir, quotes, algorithm):
    classifier = load_classifier(str(small_classifier_dir))
    before = {name: value.clone() for name, value in classifier.model.state_dict().items()}
    config = PruneConfig(algorithm=algorithm, pattern="structured", calibration_examples=16)
    job = PruningJob(config, LENGTH, seed=0)
    with pytest.raises(UserError, match=f"pattern structured: algorithm {algorithm} cannot remove heads"):
        prune_classifier(classifier, quotes, job, SilentProgress())
    assert all(torch.equal(value, before[name]) for name, value in classifier.model.state_dict().items())


# the stages -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stages(small_classifier_dir, critic_quotes, tmp_path_factory):
    """The folders of a model pruned by half and of its artifact, and the records of both stages."""
    tmp_path = tmp_path_factory.mktemp("stages")
    columns = ColumnsConfig(max_length=LENGTH)
    config = PruneConfig(pattern="structured", sparsity=0.5, calibration_examples=32)
    pruned, artifact = tmp_path / "pruned", tmp_path / "artifact"
    record = prune_directory(
        str(small_classifier_dir),
        str(critic_quotes / "small.tsv"),
        config,
        Context(output=pruned, columns=columns, run=RUN, progress=SilentProgress()),
    ).model_dump()
    manifest = export_directory(
        str(pruned),
        None,
        ExportConfig(parity_examples=20),
        Context(output=artifact, columns=columns, run=RUN, progress=SilentProgress()),
    ).model_dump()
    return pruned, artifact, record, manifest


def test_threads_do_not_spin_after_a_run(stages):
    """They would take a core from what runs next, and make its time a matter of chance."""
    options = OnnxPredictor(stages[1], threads=2, spinning=True)._session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "1"
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


def test_the_smaller_model_is_exported_with_parity(stages, small_classifier_dir, few_quotes):
    pruned, artifact, record, manifest = stages
    assert record["pattern"] == "structured"
    written = json.loads((pruned / "config.json").read_text())
    assert written["intermediate_size"] == NEURONS // 2
    assert {len(heads) for heads in written["removed_heads"].values()} == {HEADS // 2}
    assert manifest["parity"]["max_difference"] <= 1e-4
    expected = logits(load_classifier(str(pruned)), few_quotes)
    found = predict(OnnxPredictor(artifact, threads=2), few_quotes, LENGTH, batch_size=7)
    assert np.abs(expected - found).max() <= 1e-4
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (pruned, small_classifier_dir)]
    assert sizes[0] < sizes[1]
    graph = onnx.load(artifact / "model.onnx")
    shapes = {tuple(value.dims) for value in graph.graph.initializer}
    assert {(384, 192), (192, 384), (384, NEURONS // 2)} <= shapes


@NEEDS_OPTIMUM
def test_optimum_loads_the_smaller_artifact(stages, few_quotes):
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import pipeline

    pruned, artifact, _, _ = stages
    model = ORTModelForSequenceClassification.from_pretrained(artifact)
    classify = pipeline("text-classification", model=model, tokenizer=load_tokenizer(str(artifact)))
    answers = classify(list(few_quotes.texts), truncation=True)
    expected = logits(load_classifier(str(pruned)), few_quotes)
    names = load_classifier(str(pruned)).label_names
    assert [answer["label"] for answer in answers] == [names[label] for label in expected.argmax(axis=1)]
