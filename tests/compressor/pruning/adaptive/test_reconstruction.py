"""Block-wise reconstruction on a real small classifier."""

import copy

import pytest
import torch

from compressor.models.batching import encode
from compressor.models.classifier import encoder_linears, load_classifier
from compressor.models.encoders.bert import BERT
from compressor.options import AdaptiveConfig, PruneConfig
from compressor.pruning.adaptive.reconstruction import reconstruct_block
from compressor.pruning.interface import PruningJob, prune_classifier
from compressor.pruning.patterns import Unstructured
from compressor.pruning.walk import SideBySide, calibration_batches
from compressor.system.checkpoint import Checkpoint
from compressor.system.console import SilentProgress

NAMES = [name for group in BERT.linears.groups for name in group]


@pytest.fixture
def pruned_walk(small_classifier_dir, quotes):
    """A walk in front of a first layer of which the smallest three quarters are zero, and its masks."""
    classifier = load_classifier(str(small_classifier_dir))
    encoded = encode(classifier.tokenizer, quotes.select(range(48)), 32)
    batches = calibration_batches(encoded, 16, classifier.tokenizer.pad_token_id, "cpu")
    walk = SideBySide(copy.deepcopy(classifier.model), classifier.model, batches)
    block, masks = walk.blocks[1], {}
    with torch.no_grad():
        for name in NAMES:
            weight = block.get_submodule(name).weight
            masks[f"{name}.weight"] = Unstructured(0.75).mask(weight.abs())
            weight *= masks[f"{name}.weight"]
    return walk, masks


def loss_of(walk):
    with torch.no_grad():
        return sum(float(pair.squared_error(walk.blocks[1])) for pair in walk.block_pairs())


def tune(walk, masks, passes, learning_rate=1e-3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return reconstruct_block(walk, masks, passes=passes, learning_rate=learning_rate, generator=generator)


def test_the_layer_comes_nearer_to_the_dense_one_and_keeps_its_zeros(pruned_walk):
    walk, masks = pruned_walk
    start = loss_of(walk)
    before, after = tune(walk, masks, passes=6)
    assert before == pytest.approx(start, rel=1e-5)
    assert after == pytest.approx(loss_of(walk), rel=1e-5)
    assert after < 0.7 * before
    for name, mask in masks.items():
        weight = walk.blocks[1].get_parameter(name)
        assert torch.equal(weight == 0, ~mask), name


def test_steps_that_lead_astray_are_taken_back(pruned_walk):
    walk, masks = pruned_walk
    state = copy.deepcopy(walk.blocks[1].state_dict())
    before, after = tune(walk, masks, passes=2, learning_rate=1.0)
    assert after == before
    for name, value in walk.blocks[1].state_dict().items():
        assert torch.equal(value, state[name]), name


def test_padding_does_not_count(pruned_walk):
    walk, _ = pruned_walk
    pair = walk.block_pairs()[-1]
    whole = float(pair.squared_error(walk.blocks[1]).detach())
    pair.target[~pair.tokens] += 100.0
    assert float(pair.squared_error(walk.blocks[1]).detach()) == whole


def prune(directory, quotes, checkpoint, passes):
    classifier = load_classifier(str(directory))
    options = AdaptiveConfig(solver="greedy", reconstruction_passes=passes, reconstruction_rate=1e-3)
    config = PruneConfig(sparsity=0.75, calibration_examples=48, adaptive=options)
    job = PruningJob(config, 32, 0, checkpoint)
    prune_classifier(classifier, quotes, job, SilentProgress())
    return classifier.model


def test_a_run_goes_on_behind_a_tuned_layer_with_the_same_weights(small_classifier_dir, quotes, tmp_path):
    whole = prune(small_classifier_dir, quotes, Checkpoint(tmp_path / "parts"), passes=2)
    parts = sorted(path.name for path in (tmp_path / "parts").iterdir())
    assert sum("refined" in name for name in parts) == 2
    for path in list((tmp_path / "parts").glob("01-*")):
        path.unlink()
    again = prune(small_classifier_dir, quotes, Checkpoint(tmp_path / "parts"), passes=2)
    plain = prune(small_classifier_dir, quotes, Checkpoint(tmp_path / "plain"), passes=0)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert any(
        not torch.equal(linear.weight, encoder_linears(plain)[name].weight)
        for name, linear in encoder_linears(whole).items()
    )
