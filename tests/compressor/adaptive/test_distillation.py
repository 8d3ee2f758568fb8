"""Distillation of a whole pruned model, without labels, on a real small classifier."""

import numpy as np
import pytest
import torch
from stopping import StopBefore, StoppedError

from compressor import training_checkpoint
from compressor.adaptive.distillation import distill
from compressor.adaptive.made_texts import fill_up
from compressor.batching import encode, encode_windows
from compressor.checkpoint import Checkpoint, NoCheckpoint
from compressor.classifier import encoder_linears, load_classifier
from compressor.console import SilentProgress
from compressor.data import load_text_data
from compressor.options import AdaptiveConfig, ColumnsConfig, PruneConfig
from compressor.patterns import parse_pattern
from compressor.predictors import TorchPredictor, predict
from compressor.pruning import PruningJob, prune_classifier
from compressor.training import apply_masks

LENGTH = 32


def zeroed(directory, sparsity=0.7):
    """A classifier without its smallest weights, and its masks."""
    classifier = load_classifier(str(directory))
    pattern = parse_pattern("unstructured", sparsity)
    linears = encoder_linears(classifier.model)
    masks = {name: pattern.mask(linear.weight.detach().abs()) for name, linear in linears.items()}
    apply_masks(classifier.model, masks)
    return classifier, masks


def distilled(directory, data, seed=0, steps=12):
    """That classifier, distilled on 24 texts and on made ones."""
    classifier, masks = zeroed(directory)
    encoded = encode(classifier.tokenizer, data.select(range(24)), LENGTH)
    texts = fill_up(encoded, 4000, classifier.tokenizer, LENGTH, np.random.default_rng(seed))
    dense = load_classifier(str(directory)).model
    distill(classifier, dense, texts, masks, steps=steps, learning_rate=5e-4, seed=seed)
    return classifier, masks


def answers(classifier, data):
    return predict(TorchPredictor(classifier), data, LENGTH)


def test_it_answers_more_like_the_dense_model_and_keeps_zeros_and_embeddings(
    small_classifier_dir, quotes, test_quotes
):
    texts = test_quotes.select(range(200))
    dense = load_classifier(str(small_classifier_dir))
    before, _ = zeroed(small_classifier_dir)
    after, masks = distilled(small_classifier_dir, quotes)
    expected = answers(dense, texts)
    near, far = (np.abs(answers(c, texts) - expected).mean() for c in (after, before))
    assert near < 0.7 * far
    for name, linear in encoder_linears(after.model).items():
        assert torch.equal(linear.weight == 0, ~masks[name]), name
    for name, value in dense.model.state_dict().items():
        same = torch.equal(value, after.model.state_dict()[name])
        assert same == ("embeddings" in name), name
    assert all(value.requires_grad for value in after.model.parameters())
    assert not after.model.training


def test_a_seed_gives_the_same_weights_whatever_the_random_state(narrow_classifier_dir, quotes):
    torch.manual_seed(1)
    one, _ = distilled(narrow_classifier_dir, quotes, steps=2)
    torch.manual_seed(2)
    other, _ = distilled(narrow_classifier_dir, quotes, steps=2)
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name


@pytest.mark.parametrize("pattern", ["unstructured", "structured"])
def test_pruning_ends_with_it(narrow_classifier_dir, quotes, pattern):
    def pruned(steps):
        classifier = load_classifier(str(narrow_classifier_dir))
        adaptive = AdaptiveConfig(solver="greedy", distillation_steps=steps)
        config = PruneConfig(calibration_examples=24, adaptive=adaptive)
        job = PruningJob(parse_pattern(pattern, 0.5), config, LENGTH, 0, NoCheckpoint())
        result = prune_classifier(classifier, quotes, job, SilentProgress())
        return classifier, result

    (plain, _), (classifier, result) = pruned(0), pruned(2)
    for name, linear in encoder_linears(classifier.model).items():
        assert not torch.equal(linear.weight, encoder_linears(plain.model)[name].weight), name
        if pattern == "unstructured":
            assert torch.equal(linear.weight == 0, ~result.masks[name]), name


@pytest.mark.parametrize(("asked", "seen"), [(0, 24), (40, 40), (10**6, None)])
def test_it_sees_as_many_texts_as_asked_whatever_the_layers_are_solved_with(
    narrow_classifier_dir, quotes, monkeypatch, asked, seen
):
    def remember(classifier, dense, texts, masks, **options):
        given.extend(texts)

    given = []
    monkeypatch.setattr("compressor.adaptive.prune.distill", remember)
    # No made ones behind them.
    monkeypatch.setattr("compressor.adaptive.prune.DISTILLATION_TOKENS", 0)
    classifier = load_classifier(str(narrow_classifier_dir))
    adaptive = AdaptiveConfig(solver="greedy", distillation_steps=1, distillation_examples=asked)
    config = PruneConfig(calibration_examples=24, adaptive=adaptive)
    job = PruningJob(parse_pattern("unstructured", 0.5), config, LENGTH, 3, NoCheckpoint())
    result = prune_classifier(classifier, quotes, job, SilentProgress())
    assert result.details["calibration_examples"] == 24
    assert result.details["distillation_examples"] == (seen or len(quotes))
    drawn = quotes.sample(seen or len(quotes), 3)
    assert given == encode_windows(classifier.tokenizer, drawn, LENGTH)
    # Some of them are longer than an input.
    assert len(given) > len(drawn)


def test_numbers_are_learnt_too(regression_dir, numbered_pairs):
    data = load_text_data(str(numbered_pairs / "train.tsv"), ColumnsConfig(), "train", label_names=["number"])
    dense = load_classifier(str(regression_dir))
    before, _ = zeroed(regression_dir)
    after, _ = distilled(regression_dir, data)
    near, far = (np.abs(answers(c, data) - answers(dense, data)).mean() for c in (after, before))
    assert near < 0.8 * far


def test_a_stopped_one_goes_on_to_the_same_weights(narrow_classifier_dir, quotes, tmp_path, monkeypatch):
    def pruned(checkpoint, progress):
        classifier = load_classifier(str(narrow_classifier_dir))
        adaptive = AdaptiveConfig(solver="greedy", distillation_steps=4)
        config = PruneConfig(calibration_examples=24, adaptive=adaptive)
        job = PruningJob(parse_pattern("unstructured", 0.5), config, LENGTH, 0, checkpoint)
        prune_classifier(classifier, quotes, job, progress)
        return classifier.model.state_dict()

    expected = pruned(NoCheckpoint(), SilentProgress())
    monkeypatch.setattr(training_checkpoint, "SECONDS_BETWEEN", 0.0)
    checkpoint = Checkpoint(tmp_path / "progress")
    with pytest.raises(StoppedError):
        pruned(checkpoint, StopBefore(2, "Distilling"))
    assert checkpoint.load("distillation").facts == {"steps": 2}
    found = pruned(checkpoint, SilentProgress())
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
