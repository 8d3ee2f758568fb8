"""Pruning in steps of rising sparsity, on a real small classifier: masks, candidates, recovery."""

import itertools
import json
import shutil
from itertools import pairwise

import pytest
import torch
from quick_runs import FEW, QUICK, prune, with_pattern

from compressor.data.texts import load_text_data
from compressor.errors import UserError
from compressor.models.classifier import encoder_weights, load_classifier, sparsity_of
from compressor.options import ColumnsConfig, PruneConfig, RandomizedConfig
from compressor.pruning.interface import PruningJob, prune_classifier
from compressor.pruning.patterns import NM, Unstructured
from compressor.pruning.randomized import candidates as candidates_module
from compressor.pruning.randomized import prune as module
from compressor.system.checkpoint import Checkpoint, NoCheckpoint
from compressor.system.console import SilentProgress
from compressor.system.files import MARKER
from compressor.training.losses import hidden_distance


@pytest.mark.parametrize("pattern", [Unstructured(0.5), NM(2, 4)])
def test_zeros_are_exact_after_recovery(small_classifier_dir, texts, pattern):
    classifier, result = prune(small_classifier_dir, texts, pattern)
    for name, weight in encoder_weights(classifier.model).items():
        assert pattern.is_met_by(result.masks[name])
        assert torch.equal(weight != 0, result.masks[name]), name


def test_details_tell_what_was_tried_and_chosen(small_classifier_dir, texts):
    _, result = prune(small_classifier_dir, texts, Unstructured(0.5))
    assert result.details["training_examples"] == 128
    assert result.details["holdout_examples"] == 32
    assert result.details["training_steps"] == 2 * (3 + 2 * 1)
    for step in result.details["steps"]:
        (losses,) = step["early_costs"]
        assert list(losses) == ["0", "1"]
        assert losses[str(step["chosen"])] == min(losses.values())


def test_zeros_counted_over_all_matrices(small_classifier_dir, texts):
    config = QUICK.model_copy(update={"mask_scope": "global", "steps": 1, "recovery_steps": 1})
    classifier, result = prune(small_classifier_dir, texts, Unstructured(0.5), config)
    weights = encoder_weights(classifier.model)
    assert sparsity_of(weights) == pytest.approx(0.5, abs=1e-6)
    assert len({round(float((weight == 0).double().mean()), 3) for weight in weights.values()}) > 1
    assert all(torch.equal(weight != 0, result.masks[name]) for name, weight in weights.items())


@pytest.mark.parametrize("pattern", [NM(2, 4), Unstructured(0.5, "row")])
def test_rows_and_groups_are_not_counted_over_all_matrices(small_classifier_dir, texts, pattern):
    config = QUICK.model_copy(update={"mask_scope": "global"})
    with pytest.raises(UserError, match="mask scope global"):
        prune(small_classifier_dir, texts, pattern, config)


def test_scope_row(small_classifier_dir, texts):
    config = QUICK.model_copy(update={"steps": 1, "recovery_steps": 1, "sampling_ratio": 0.3})
    _, result = prune(small_classifier_dir, texts, Unstructured(0.5, "row"), config)
    for mask in result.masks.values():
        assert Unstructured(0.5, "row").is_met_by(mask)


class Masks(NoCheckpoint):
    """Keeps the masks of each step."""

    def __init__(self):
        self.steps = []

    def save(self, name, part):
        self.steps.append({key: value for key, value in part.tensors.items() if key.startswith("mask.")})


@pytest.mark.parametrize("revive", [False, True])
def test_weights_come_back_only_where_asked_for(small_classifier_dir, texts, monkeypatch, revive):
    # The masks that are drawn at random: what they leave out may be large.
    costs = itertools.count(0, -1)
    monkeypatch.setattr("compressor.pruning.randomized.candidates.candidate_cost", lambda *given: next(costs))
    config = QUICK.model_copy(update={"revive": revive, "sampling_ratio": 0.5, "recovery_steps": 1})
    kept = Masks()
    options = PruneConfig(algorithm="randomized", randomized=config)
    job = PruningJob(options, 32, 0, kept)
    classifier = load_classifier(str(small_classifier_dir))
    result = prune_classifier(classifier, texts, job, SilentProgress())
    came_back = sum(
        int((later[key] & ~before[key]).sum()) for before, later in pairwise(kept.steps) for key in before
    )
    assert (came_back > 0) == revive
    for name, weight in encoder_weights(classifier.model).items():
        assert torch.equal(weight != 0, result.masks[name])


@pytest.mark.parametrize("halving", [False, True])
def test_candidates_that_diverge_are_not_chosen(small_classifier_dir, texts, monkeypatch, halving):
    costs = itertools.cycle([float("nan"), 2.0, 1.0, float("inf")])
    monkeypatch.setattr("compressor.pruning.randomized.candidates.candidate_cost", lambda *given: next(costs))
    config = QUICK.model_copy(update={"candidates": 4, "steps": 1, "halving": halving})
    _, result = prune(small_classifier_dir, texts, Unstructured(0.5), config)
    (step,) = result.details["steps"]
    assert step["early_costs"][0] == {"0": None, "1": 2.0, "2": 1.0, "3": None}
    assert step["chosen"] == 2


def test_candidates_that_all_diverge_are_an_error(small_classifier_dir, texts, monkeypatch):
    monkeypatch.setattr(
        "compressor.pruning.randomized.candidates.candidate_cost", lambda *given: float("nan")
    )
    config = QUICK.model_copy(update={"steps": 1})
    with pytest.raises(UserError, match="--early-learning-rate"):
        prune(small_classifier_dir, texts, Unstructured(0.5), config)


def test_halving_drops_the_worse_half_in_each_round(small_classifier_dir, texts):
    config = QUICK.model_copy(update={"halving": True, "candidates": 5, "steps": 1, "recovery_steps": 1})
    _, result = prune(small_classifier_dir, texts, Unstructured(0.5), config)
    (step,) = result.details["steps"]
    assert [len(losses) for losses in step["early_costs"]] == [5, 3, 2]
    for losses, later in pairwise(step["early_costs"]):
        kept = sorted(losses, key=lambda index: losses[index])[: len(later)]
        assert set(later) == set(kept)
    assert str(step["chosen"]) == min(step["early_costs"][-1], key=step["early_costs"][-1].get)
    assert result.details["training_steps"] == 1 + (5 + 3 + 2)


def test_rectified_weights_start_nearer_to_the_dense_model(small_classifier_dir, texts):
    dense = load_classifier(str(small_classifier_dir))
    distances = {}
    for rectified in ("none", "adaptive"):
        config = QUICK.model_copy(
            update={"rectify": rectified, "steps": 1, "candidates": 1, "recovery_steps": 0}
        )
        walk = PruneConfig(calibration_examples=64)
        classifier, result = prune(small_classifier_dir, texts, Unstructured(0.7), config, walk=walk)
        assert all(
            (w != 0).sum() <= result.masks[n].sum() for n, w in encoder_weights(classifier.model).items()
        )
        tokens = classifier.tokenizer(
            texts.texts[:64], padding=True, truncation=True, max_length=32, return_tensors="pt"
        )
        with torch.inference_mode():
            difference = dense.model(**tokens).logits - classifier.model(**tokens).logits
        distances[rectified] = float(difference.square().mean())
    assert distances["adaptive"] < 0.5 * distances["none"]


@pytest.mark.parametrize("pattern", [Unstructured(0.6), NM(2, 4)])
def test_by_adaptive_saliency_the_first_candidate_is_algorithm_1(small_classifier_dir, texts, pattern):
    alone = {"steps": 1, "candidates": 1, "early_steps": 0, "recovery_steps": 0, "saliency": "adaptive"}
    classifier, result = prune(
        small_classifier_dir, texts, pattern, RandomizedConfig(holdout_examples=32, **alone)
    )
    expected = load_classifier(str(small_classifier_dir))
    job = PruningJob(with_pattern(FEW, pattern), 32, 0)
    adaptive = prune_classifier(expected, texts, job, SilentProgress())
    assert all(torch.equal(mask, adaptive.masks[name]) for name, mask in result.masks.items())
    assert result.patterns == adaptive.patterns
    others = dict(expected.model.named_parameters())
    assert all(torch.equal(weight, others[name]) for name, weight in classifier.model.named_parameters())


def test_candidates_by_adaptive_saliency_differ_and_stay_zero(small_classifier_dir, texts):
    config = QUICK.model_copy(update={"saliency": "adaptive", "sampling_ratio": 0.3, "steps": 1})
    classifier, result = prune(small_classifier_dir, texts, Unstructured(0.7), config)
    for step in result.details["steps"]:
        assert len(set(step["early_costs"][0].values())) == 2
    for name, weight in encoder_weights(classifier.model).items():
        assert not weight[~result.masks[name]].any()
    for names, pattern in result.patterns.items():
        assert pattern.is_met_by(torch.cat([result.masks[name] for name in names]))


@pytest.mark.parametrize("halving", [False, True])
def test_a_scored_candidate_is_made_once_and_recovers_from_where_its_trial_began(
    small_classifier_dir, texts, monkeypatch, halving
):
    begun = []

    def redraw(classifier, *given):
        masks = own(classifier, *given)
        begun.append((masks, {name: value.clone() for name, value in classifier.model.state_dict().items()}))
        return masks

    own = module.redraw
    monkeypatch.setattr(module, "redraw", redraw)
    changes = {
        "saliency": "adaptive",
        "sampling_ratio": 0.3,
        "steps": 1,
        "candidates": 3,
        "recovery_steps": 0,
    }
    config = QUICK.model_copy(update={**changes, "halving": halving})
    classifier, result = prune(small_classifier_dir, texts, Unstructured(0.7), config)
    assert len(begun) == 3
    masks, state = begun[result.details["steps"][0]["chosen"]]
    assert all(torch.equal(mask, masks[name]) for name, mask in result.masks.items())
    assert all(torch.equal(value, state[name]) for name, value in classifier.model.state_dict().items())


@pytest.mark.parametrize(
    ("reference", "of_dense"), [("dense", [True]), ("previous", [False]), ("both", [True, False])]
)
def test_weights_are_solved_for_the_reference_s_outputs(
    small_classifier_dir, texts, monkeypatch, reference, of_dense
):
    references = []

    def redraw(classifier, reference, *given):
        base = {name: value.clone() for name, value in classifier.model.state_dict().items()}
        references.append((base, reference.state_dict()))
        return own(classifier, reference, *given)

    def are_equal(state, other):
        return all(torch.equal(value, other[name]) for name, value in state.items())

    own = module.redraw
    monkeypatch.setattr(module, "redraw", redraw)
    dense = load_classifier(str(small_classifier_dir)).model.state_dict()
    config = QUICK.model_copy(
        update={"saliency": "adaptive", "reference": reference, "candidates": len(of_dense)}
    )
    prune(small_classifier_dir, texts, Unstructured(0.7), config)
    first, second = references[: len(of_dense)], references[len(of_dense) :]
    assert all(are_equal(state, dense) for _, state in first)
    assert [are_equal(state, dense) for _, state in second] == of_dense
    assert [are_equal(state, base) for base, state in second] == [not own for own in of_dense]


def test_revived_weights_are_not_taken_for_recovered_ones(small_classifier_dir, texts):
    config = QUICK.model_copy(update={"saliency": "adaptive", "reference": "previous", "revive": True})
    with pytest.raises(UserError, match="--revive"):
        prune(small_classifier_dir, texts, Unstructured(0.5), config)


def test_adaptive_saliencies_are_not_counted_over_all_matrices(small_classifier_dir, texts):
    config = QUICK.model_copy(update={"mask_scope": "global", "saliency": "adaptive"})
    with pytest.raises(UserError, match="saliencies"):
        prune(small_classifier_dir, texts, Unstructured(0.5), config)


def test_a_stopped_run_goes_on_behind_its_last_step_with_the_same_weights(
    small_classifier_dir, texts, tmp_path
):
    config = QUICK.model_copy(update={"steps": 3})
    whole, result = prune(small_classifier_dir, texts, Unstructured(0.7), config)

    class Stopping(Checkpoint):
        def remove(self, name):
            super().remove(name)
            if name == "step-0000":
                raise KeyboardInterrupt

    def go(checkpoint):
        classifier = load_classifier(str(small_classifier_dir))
        options = PruneConfig(algorithm="randomized", sparsity=0.7, randomized=config)
        job = PruningJob(options, 32, 0, checkpoint)
        return classifier, prune_classifier(classifier, texts, job, SilentProgress())

    with pytest.raises(KeyboardInterrupt):
        go(Stopping(tmp_path / "kept", {}))
    kept = {path.name for path in (tmp_path / "kept").iterdir()}
    assert kept == {MARKER, "job.json", "step-0001.safetensors"}
    resumed, found = go(Checkpoint(tmp_path / "kept", {}))
    assert found.details == result.details
    for a, b in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b)
    # Stopped after its last step: layers are recorded in the same order.
    _, again = go(Checkpoint(tmp_path / "kept", {}))
    assert list(again.masks) == list(found.masks) == list(result.masks)
    assert [layer.name for layer in again.layers] == [layer.name for layer in result.layers]


def test_same_seed_same_weights(small_classifier_dir, texts):
    first, _ = prune(small_classifier_dir, texts, Unstructured(0.5), seed=4)
    second, _ = prune(small_classifier_dir, texts, Unstructured(0.5), seed=4)
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_recovery_brings_the_held_out_loss_down(small_classifier_dir, texts):
    hard = Unstructured(0.8)
    none = QUICK.model_copy(update={"recovery_steps": 0, "steps": 1})
    some = QUICK.model_copy(update={"recovery_steps": 25, "steps": 1, "learning_rate": 2e-4})
    again = load_text_data(texts.source, ColumnsConfig(), "train").select(range(200, 328))
    distances = []
    dense = load_classifier(str(small_classifier_dir))
    for config in (none, some):
        classifier, _ = prune(small_classifier_dir, texts, hard, config)
        tokens = classifier.tokenizer(
            again.texts, padding=True, truncation=True, max_length=32, return_tensors="pt"
        )
        with torch.inference_mode():
            distance = dense.model(**tokens).logits - classifier.model(**tokens).logits
        distances.append(float(distance.square().mean()))
    assert distances[1] < distances[0]


def test_candidates_rise_over_the_steps(small_classifier_dir, texts):
    config = QUICK.model_copy(update={"candidates": 3, "steps": 3, "candidate_schedule": "rising"})
    _, result = prune(small_classifier_dir, texts, Unstructured(0.5), config)
    tried = [[len(costs) for costs in step["early_costs"]] for step in result.details["steps"]]
    assert tried == [[], [2], [3]], "one alone is not tried"


def test_candidates_and_recovery_take_the_rate_of_their_step(small_classifier_dir, texts, monkeypatch):
    rates = []

    def train(classifier, training, schedule, **options):
        rates.append(schedule.learning_rate)
        return original(classifier, training, schedule, **options)

    original = module.train
    monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(candidates_module, "train", train)
    update = {"learning_rate": 1e-4, "early_learning_rate": 2e-4, "step_learning_rates": [1e-5, 1e-3]}
    prune(small_classifier_dir, texts, Unstructured(0.5), QUICK.model_copy(update=update))
    assert rates == pytest.approx([2e-5, 2e-5, 1e-5, 2e-3, 2e-3, 1e-3])


def test_a_recovery_that_only_harms_ends_early(small_classifier_dir, texts, monkeypatch):
    losses = itertools.count()
    monkeypatch.setattr(module, "holdout_loss", lambda *given: float(next(losses)))
    update = {"steps": 1, "candidates": 1, "recovery_steps": 12}
    update |= {"patience": 2, "evaluation_interval": 2}
    config = QUICK.model_copy(update=update)
    _, result = prune(small_classifier_dir, texts, Unstructured(0.5), config)
    (step,) = result.details["steps"]
    assert step["recovery_steps"] == 6
    assert result.details["training_steps"] == 6


def test_recovery_drops_nothing_out_unless_asked_to(small_classifier_dir, texts, tmp_path):
    without = shutil.copytree(small_classifier_dir, tmp_path / "without")
    settings = json.loads((without / "config.json").read_text())
    assert settings["hidden_dropout_prob"] > 0
    settings |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (without / "config.json").write_text(json.dumps(settings))

    def weights(directory, dropout):
        config = QUICK.model_copy(update={"dropout": dropout, "steps": 1})
        classifier, _ = prune(directory, texts, Unstructured(0.5), config)
        return torch.cat([weight.flatten() for weight in encoder_weights(classifier.model).values()])

    plain = weights(small_classifier_dir, False)
    assert torch.equal(plain, weights(without, True))
    assert not torch.equal(plain, weights(small_classifier_dir, True))


def test_hidden_states_are_learnt_from_the_dense_model(small_classifier_dir, texts):
    dense = load_classifier(str(small_classifier_dir))
    again = load_text_data(texts.source, ColumnsConfig(), "train").select(range(200, 264))
    distances = []
    for weight in (0.0, 10.0):
        update = {"steps": 1, "candidates": 1, "recovery_steps": 25, "learning_rate": 2e-4}
        config = QUICK.model_copy(update=update | {"hidden_weight": weight})
        classifier, _ = prune(small_classifier_dir, texts, Unstructured(0.8), config)
        tokens = classifier.tokenizer(
            again.texts, padding=True, truncation=True, max_length=32, return_tensors="pt"
        )
        with torch.inference_mode():
            own, other = (
                model(**tokens, output_hidden_states=True).hidden_states[1:]
                for model in (classifier.model, dense.model)
            )
        distances.append(float(hidden_distance(own, other, tokens["attention_mask"])))
    assert distances[1] < 0.8 * distances[0]
