"""Trials of candidates: what they cost does not depend on how they are held, and few are in memory."""

import copy
import gc

import pytest
import torch
from quick_runs import QUICK
from transformers import BertForSequenceClassification

from compressor.models.classifier import Classifier, encoder_weights, load_classifier
from compressor.options import PruneConfig
from compressor.pruning.interface import PruningJob
from compressor.pruning.randomized.candidates import (
    StepJob,
    Trials,
    all_alive,
    draw_candidate,
    recovery_schedule,
)
from compressor.pruning.randomized.holdout import candidate_cost, split
from compressor.system.console import SilentProgress
from compressor.training.loop import apply_masks, train


@pytest.fixture
def setting(small_classifier_dir, quotes):
    classifier = load_classifier(str(small_classifier_dir))
    config = QUICK.model_copy(update={"dropout": True})
    pruning = PruneConfig(algorithm="randomized", calibration_examples=64, randomized=config)
    job = PruningJob(pruning, 16, 0)
    training, holdout = split(classifier, quotes.select(range(96)), job, SilentProgress())

    def begin(index, trial):
        weights = encoder_weights(trial.model)
        own = StepJob(0, 1, job.pattern, config, 0)
        masks = draw_candidate(weights, all_alive(weights), own, index)
        apply_masks(trial.model, masks)
        return masks

    return classifier, begin, training, holdout, config, copy.deepcopy(classifier.model)


def trials_of(setting, keep):
    *given, dense = setting
    return Trials(*given, 0, teacher=dense, keep=keep)


def models_alive():
    gc.collect()
    return sum(isinstance(value, BertForSequenceClassification) for value in gc.get_objects())


def test_costs_are_those_of_copies_that_are_each_held_in_memory(setting):
    classifier, begin, training, holdout, config, dense = setting
    schedule = recovery_schedule(config, config.early_steps, config.early_learning_rate)
    expected = []
    for index in range(3):
        trial = Classifier(copy.deepcopy(classifier.model), classifier.tokenizer, classifier.source)
        masks = begin(index, trial)
        for round_ in range(2):
            train(trial, training, schedule, seed=round_, masks=masks, teacher=dense)
            expected.append(candidate_cost(trial, holdout, config, schedule))
    with trials_of(setting, keep=True) as trials:
        found = {(index, round_): trials.cost(index, round_) for round_ in range(2) for index in (2, 0, 1)}
        assert [found[index, round_] for index in range(3) for round_ in range(2)] == expected
        before = {name: value.clone() for name, value in classifier.model.state_dict().items()}
        start, again = trials.start(1), copy.deepcopy(classifier)
    masks = begin(1, again)
    assert list(start.masks) == list(masks)
    assert all(torch.equal(start.masks[name], mask) for name, mask in masks.items())
    assert all(torch.equal(start.state[name], value) for name, value in again.model.state_dict().items())
    assert all(torch.equal(before[name], value) for name, value in classifier.model.state_dict().items())


@pytest.mark.parametrize("keep", [False, True])
def test_one_model_serves_all_candidates_and_nothing_stays_on_disk(setting, keep):
    before = models_alive()
    with trials_of(setting, keep) as trials:
        folder = trials._files.folder
        costs = [trials.cost(index, 0) for index in range(4)]
        assert models_alive() == before + 1
        kept = {path.name.partition("-")[0] for path in folder.glob("*.safetensors")}
        best = costs.index(min(costs))
        assert kept == ({"0", "1", "2", "3"} if keep else {str(best)})
        trials.start(best)
        trials.drop(best)
        with pytest.raises(KeyError):
            trials.start(best)
    assert not folder.exists()
