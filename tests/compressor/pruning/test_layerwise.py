"""The walk that all layer-wise algorithms share: its order, its inputs, its options, what it leaves."""

import copy
import tempfile

import pytest
import torch

from compressor.models.classifier import encoder_linears, load_classifier
from compressor.models.encoders.bert import BERT
from compressor.options import AdaptiveConfig, PruneConfig
from compressor.pruning.interface import PruningJob, prune_classifier
from compressor.pruning.layerwise import (
    GroupSolver,
    LinearGroup,
    Solution,
    group_steps,
    prune_layerwise,
    start_walk,
)
from compressor.pruning.record import LayerRecord
from compressor.system.checkpoint import NoCheckpoint, Part
from compressor.system.console import SilentProgress

KEYS = [
    f"{index:02d}-{name}"
    for index in range(2)
    for name in ("attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense")
]


@pytest.fixture
def classifier(small_classifier_dir):
    return load_classifier(str(small_classifier_dir))


def job(checkpoint=None, algorithm="adaptive", sparsity=0.5, **adaptive):
    options = AdaptiveConfig(**{"solver": "greedy", "resolve_heads": False, **adaptive})
    config = PruneConfig(algorithm=algorithm, sparsity=sparsity, calibration_examples=16, adaptive=options)
    return PruningJob(config, 24, 0, checkpoint or NoCheckpoint())


class Halving(GroupSolver):
    """Halves weights, and keeps the moments it was given."""

    def __init__(self):
        self.moments = {}

    def solve(self, group, moments):
        self.moments[group.key] = moments
        weights = [linear.weight / 2 for linear in group.linears]
        masks = [torch.ones_like(weight, dtype=torch.bool) for weight in weights]
        records = [LayerRecord(name, 0.0) for name in group.names]
        return Solution(weights, [linear.bias.clone() for linear in group.linears], masks, records)


class Memory(NoCheckpoint):
    def __init__(self):
        self.parts = {}

    def load(self, name, device="cpu"):
        return self.parts.get(name)

    def save(self, name, part):
        self.parts[name] = part


def walk(classifier, quotes, solver, checkpoint=None, beside_dense=True, drifted=True):
    dense = copy.deepcopy(classifier.model) if beside_dense else None
    return prune_layerwise(
        classifier, quotes, job(checkpoint), solver, SilentProgress(), dense=dense, drifted=drifted
    )


# groups -----------------------------------------------------------------------------------------


def test_groups_hold_all_layers_in_the_order_of_the_data(classifier):
    groups = [LinearGroup.of(classifier, *step) for step in group_steps(classifier)]
    linears = encoder_linears(classifier.model)
    assert [name for group in groups for name in group.names] == list(linears)
    assert [names for index in range(2) for names in BERT.group_names(index)] == [g.names for g in groups]
    assert [group.key for group in groups] == KEYS
    assert [group.is_last for group in groups] == [False, False, False, True] * 2
    for group in groups:
        assert torch.equal(group.weight, torch.cat([linears[name].weight for name in group.names]).double())
        assert torch.equal(group.bias, torch.cat([linears[name].bias for name in group.names]).double())


@pytest.mark.parametrize("masked", [True, False])
def test_a_solution_comes_back_from_its_part(masked):
    weights = [torch.randn(2, 3), torch.randn(4, 3)]
    solution = Solution(
        weights,
        [torch.randn(2), torch.randn(4)],
        [weight > 0 for weight in weights] if masked else [],
        [LayerRecord("a", 0.5, 0.1, 1e-3), LayerRecord("b", 0.25)],
        removed=[] if masked else [3, 7],
    )
    part = solution.to_part()
    again = Solution.from_part(Part(dict(reversed(part.tensors.items())), part.facts))
    for one, other in zip(
        solution.weights + solution.biases + solution.masks,
        again.weights + again.biases + again.masks,
        strict=True,
    ):
        assert torch.equal(one, other)
    assert again.records == solution.records
    assert again.removed == solution.removed


# the walk ---------------------------------------------------------------------------------------


def test_groups_are_solved_one_after_the_other(classifier, quotes, small_classifier_dir):
    solver = Halving()
    result = walk(classifier, quotes, solver)
    assert list(solver.moments) == KEYS
    dense = load_classifier(str(small_classifier_dir))
    for name, linear in encoder_linears(classifier.model).items():
        assert torch.equal(linear.weight, encoder_linears(dense.model)[name].weight / 2)
    assert set(result.masks) == set(encoder_linears(dense.model))
    assert [record.name for record in result.records] == list(result.masks)
    assert result.examples == 16


def test_drifted_inputs_are_those_behind_what_is_pruned_already(classifier, quotes):
    solver = Halving()
    walk(classifier, quotes, solver)
    first, *others = (solver.moments[key] for key in KEYS)
    assert torch.equal(first.dense_sum, first.pruned_sum)
    for moments in others:
        assert not torch.allclose(moments.dense_sum, moments.pruned_sum, rtol=1e-3)


def test_inputs_that_are_not_drifted_are_the_dense_models(classifier, quotes, small_classifier_dir):
    drifted, dense_only = Halving(), Halving()
    walk(classifier, quotes, drifted)
    walk(load_classifier(str(small_classifier_dir)), quotes, dense_only, drifted=False)
    for key in KEYS:
        moments = dense_only.moments[key]
        torch.testing.assert_close(moments.dense_sum, drifted.moments[key].dense_sum)
        torch.testing.assert_close(moments.square, moments.cross)
        torch.testing.assert_close(moments.pruned_sum, moments.dense_sum)


def test_without_a_dense_copy_the_inputs_are_the_pruned_models_up_to_the_layer(
    classifier, quotes, small_classifier_dir
):
    beside, alone = Halving(), Halving()
    walk(classifier, quotes, beside)
    walk(load_classifier(str(small_classifier_dir)), quotes, alone, beside_dense=False)
    for key in KEYS:
        torch.testing.assert_close(alone.moments[key].square, beside.moments[key].square)


def test_finished_groups_are_taken_and_not_solved(classifier, quotes, small_classifier_dir):
    memory, first = Memory(), Halving()
    walk(classifier, quotes, first, memory)
    assert list(memory.parts)[: len(KEYS)] == KEYS
    for key in KEYS[5:]:
        del memory.parts[key]
    again, second = load_classifier(str(small_classifier_dir)), Halving()
    result = walk(again, quotes, second, memory)
    assert list(second.moments) == KEYS[5:]
    for key, moments in second.moments.items():
        assert torch.equal(moments.square, first.moments[key].square)
        assert torch.equal(moments.cross, first.moments[key].cross)
    assert [record.name for record in result.records] == list(encoder_linears(again.model))
    for name, value in classifier.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


# options of the adaptive walk -------------------------------------------------------------------


@pytest.fixture(scope="module")
def pruned(small_classifier_dir, quotes):
    """Weights with the options on, and with one of them off."""
    found = {}
    for name, options in (
        ("on", {}),
        ("hessian off", {"adaptive_hessian": False}),
        ("weight off", {"resolve_weight": False}),
        ("both off", {"adaptive_hessian": False, "resolve_weight": False}),
    ):
        classifier = load_classifier(str(small_classifier_dir))
        prune_classifier(classifier, quotes, job(sparsity=0.8, **options), SilentProgress())
        found[name] = classifier.model.state_dict()
    return found


FIRST = "bert.encoder.layer.0.attention.self.query.weight"
LATER = ["bert.encoder.layer.0.output.dense.weight", "bert.encoder.layer.1.attention.self.query.weight"]


@pytest.mark.parametrize("option", ["hessian off", "weight off", "both off"])
def test_an_option_that_is_off_changes_all_but_the_first_layers(pruned, option):
    # Nothing has drifted in front of the first group.
    torch.testing.assert_close(pruned[option][FIRST], pruned["on"][FIRST], rtol=1e-4, atol=1e-5)
    for name in LATER:
        relative = (pruned[option][name] - pruned["on"][name]).norm() / pruned["on"][name].norm()
        assert relative > 0.01, name


def test_each_option_has_an_effect_of_its_own(pruned):
    for name in LATER:
        assert not torch.allclose(pruned["hessian off"][name], pruned["weight off"][name], atol=1e-3)
    # From the dense model's inputs alone the dense weight is its own solution.
    for name in LATER:
        torch.testing.assert_close(
            pruned["hessian off"][name], pruned["both off"][name], rtol=1e-3, atol=1e-4
        )


def test_without_resolving_and_without_zeros_the_weights_stay(classifier, quotes, small_classifier_dir):
    prune_classifier(classifier, quotes, job(sparsity=0.0, resolve_weight=False), SilentProgress())
    for name, value in load_classifier(str(small_classifier_dir)).model.state_dict().items():
        if name.endswith("weight"):
            assert torch.equal(value, classifier.model.state_dict()[name]), name


# what is left -----------------------------------------------------------------------------------


def test_no_file_of_hidden_states_is_left_or_even_seen(classifier, quotes, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found, _ = start_walk(classifier, quotes, job(), dense=copy.deepcopy(classifier.model))
    assert not any(tmp_path.iterdir())
    # The states are still there.
    found.moments("attention.self.query")
    found.advance()
    assert all(torch.isfinite(states).all() for states in found.head_inputs())
    walk(classifier, quotes, Halving())
    assert not any(tmp_path.iterdir())
