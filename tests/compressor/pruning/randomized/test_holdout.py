"""Which texts candidates are compared on, and by what."""

import pytest
from quick_runs import QUICK, prune

from compressor.errors import UserError
from compressor.models.batching import encode
from compressor.models.classifier import load_classifier
from compressor.options import PruneConfig
from compressor.pruning.interface import PruningJob
from compressor.pruning.patterns import Unstructured
from compressor.pruning.randomized import holdout as holdout_module
from compressor.pruning.randomized import prune as module
from compressor.system.console import SilentProgress


def test_more_held_out_texts_than_there_are_is_an_error(small_classifier_dir, texts):
    greedy = QUICK.model_copy(update={"holdout_examples": 160})
    with pytest.raises(UserError, match="would be held out"):
        prune(small_classifier_dir, texts, Unstructured(0.5), greedy)


def test_held_out_texts_are_not_trained_on(small_classifier_dir, texts, monkeypatch):
    seen = {}

    def split(*given):
        seen["training"], seen["holdout"] = original(*given)
        return seen["training"], seen["holdout"]

    original = module.split
    monkeypatch.setattr(module, "split", split)
    twice = texts.select([*range(160), *range(160)])
    prune(small_classifier_dir, twice, Unstructured(0.5))
    held = {tuple(ids) for ids, _ in seen["holdout"].clean.encoded}
    assert held
    assert held.isdisjoint(tuple(ids) for ids, _ in seen["training"].encoded)


def test_a_shift_under_typos_and_synonyms_costs_a_candidate(small_classifier_dir, texts):
    costs = []
    for weight in (0.0, 1.0):
        # Perturbing a text takes longer than all else here.
        update = {"steps": 1, "early_steps": 0, "recovery_steps": 0, "holdout_examples": 16}
        update["shift_weight"] = weight
        _, result = prune(small_classifier_dir, texts, Unstructured(0.5), QUICK.model_copy(update=update))
        costs.append(result.details["steps"][0]["early_costs"][0])
    assert all(costs[1][index] > costs[0][index] for index in costs[0])


@pytest.mark.parametrize("score", ["accuracy", "f1", "matthews"])
def test_candidates_are_compared_by_a_metric(small_classifier_dir, texts, score):
    config = QUICK.model_copy(update={"score": score, "steps": 1, "recovery_steps": 0})
    _, result = prune(small_classifier_dir, texts, Unstructured(0.3), config)
    (costs,) = result.details["steps"][0]["early_costs"]
    assert all(0 <= cost < 1 for cost in costs.values())


def test_an_attack_that_succeeds_costs_a_candidate(small_classifier_dir, texts):
    update = {"steps": 1, "candidates": 2, "early_steps": 0, "recovery_steps": 0, "attacked_examples": 4}
    costs = []
    for weight in (0.0, 1.0, 2.0):
        config = QUICK.model_copy(update=update | {"attack_weight": weight})
        _, result = prune(small_classifier_dir, texts, Unstructured(0.3), config)
        costs.append(result.details["steps"][0]["early_costs"][0])
    for index, cost in costs[0].items():
        error = costs[1][index] - cost
        # DeepWordBug fools a small model with some text, and each of the four is a quarter.
        assert error > 0
        assert 4 * error == pytest.approx(round(4 * error), abs=1e-4)
        # The attack is the same one each time: it is seeded.
        assert costs[2][index] - cost == pytest.approx(2 * error, abs=1e-4)


def test_attacked_texts_are_held_out_ones(small_classifier_dir, texts, monkeypatch):
    seen = {}

    def attack_on(given, job):
        seen["attacked"] = given
        return lambda classifier: 0.0

    monkeypatch.setattr(holdout_module, "_attack_on", attack_on)
    config = QUICK.model_copy(update={"attack_weight": 1.0, "attacked_examples": 5})
    job = PruningJob(PruneConfig(randomized=config), 32, 0)
    classifier = load_classifier(str(small_classifier_dir))
    training, holdout = module.split(classifier, texts, job, SilentProgress())
    attacked = {tuple(ids) for ids, _ in encode(classifier.tokenizer, seen["attacked"], 32)}
    assert len(seen["attacked"]) == 5
    assert attacked <= {tuple(ids) for ids, _ in holdout.clean.encoded}
    assert attacked.isdisjoint(tuple(ids) for ids, _ in training.encoded)


@pytest.mark.parametrize("score", ["pearson", "spearman"])
def test_classes_have_no_correlation(small_classifier_dir, texts, score):
    with pytest.raises(UserError, match=f"score {score}: the model answers with classes"):
        prune(small_classifier_dir, texts, Unstructured(0.5), QUICK.model_copy(update={"score": score}))


def test_a_dense_model_that_nothing_is_learnt_from_is_not_asked(small_classifier_dir, texts, monkeypatch):
    seen = []

    def split(*given):
        seen.extend(original(*given))
        return seen

    original = module.split
    monkeypatch.setattr(module, "split", split)
    update = {"steps": 1, "distillation_weight": 0.0, "patience": 2, "evaluation_interval": 2}
    _, result = prune(small_classifier_dir, texts, Unstructured(0.5), QUICK.model_copy(update=update))
    training, holdout = seen
    assert training.teacher_logits is None
    assert holdout.clean.teacher_logits is None
    assert result.details["steps"][0]["recovery_steps"] == 3
