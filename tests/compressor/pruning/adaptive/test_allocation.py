"""The allocation against brute force over all choices, and one whole prune with it."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.errors import UserError
from compressor.models.classifier import encoder_linears, load_classifier
from compressor.models.encoders.bert import BERT
from compressor.models.structure import linear_at
from compressor.options import AdaptiveConfig, PruneConfig
from compressor.pruning.adaptive import allocation
from compressor.pruning.adaptive.allocation import GRID_STEP, MEASURED, MOST, allocate, cheapest, grid
from compressor.pruning.interface import PruningJob, prune_classifier
from compressor.pruning.layerwise import start_walk
from compressor.pruning.patterns import Unstructured
from compressor.pruning.solvers.solvers import damped, greedy
from compressor.system.console import SilentProgress

# the knapsack -----------------------------------------------------------------------------------


@st.composite
def knapsacks(draw):
    """Costs that rise, sizes, and a budget that the grid can reach."""
    groups, points = draw(st.integers(2, 4)), draw(st.integers(2, 5))
    sizes = np.array(draw(st.lists(st.integers(1, 12), min_size=groups, max_size=groups))) * 64
    steps = draw(
        st.lists(
            st.lists(st.floats(0.0, 10.0), min_size=points - 1, max_size=points - 1),
            min_size=groups, max_size=groups,
        )
    )  # fmt: skip
    costs = np.concatenate([np.zeros((groups, 1)), np.cumsum(steps, axis=1)], axis=1)
    most = float(sizes.sum()) * GRID_STEP * (points - 1)
    return costs, sizes, draw(st.floats(0.0, 1.0)) * most


@settings(max_examples=150)
@given(knapsacks())
def test_the_cheapest_choice_is_that_of_brute_force(knapsack):
    costs, sizes, budget = knapsack
    chosen = cheapest(costs, sizes, budget)
    groups, points = costs.shape
    totals, prices = {}, {}
    for choice in itertools.product(range(points), repeat=groups):
        totals[choice] = int(np.dot(choice, sizes) * GRID_STEP)
        prices[choice] = sum(costs[group, point] for group, point in enumerate(choice))
    # The smallest number of zeros that meets the budget, to a millionth of a step.
    slack = 1e-6 * math.gcd(*sizes.tolist()) * GRID_STEP
    nearest = min(total for total in totals.values() if total >= budget - slack)
    assert totals[tuple(chosen)] == nearest
    best = min(prices[choice] for choice, total in totals.items() if total == nearest)
    assert prices[tuple(chosen)] == pytest.approx(best, rel=1e-12, abs=1e-12)


def test_zeros_go_where_they_cost_least():
    costs = np.array([[0.0, 1.0, 2.0, 3.0], [0.0, 0.1, 0.2, 9.0]])
    assert cheapest(costs, np.array([64, 64]), 3.0) == [1, 2]


def test_a_budget_between_the_reachable_numbers_is_rounded_up():
    costs = np.tile(np.arange(4.0), (2, 1))
    # Sizes of 2 and 4 zeros a step: 5 is not reachable, 6 is.
    chosen = cheapest(costs, np.array([128, 256]), 5.0)
    assert np.dot(chosen, [2, 4]) == 6


def test_no_budget_zeroes_nothing():
    assert cheapest(np.tile(np.arange(3.0), (3, 1)), np.array([64, 128, 192]), 0.0) == [0, 0, 0]


def test_a_budget_of_the_whole_grid_takes_its_last_points():
    assert cheapest(np.tile(np.arange(3.0), (2, 1)), np.array([64, 192]), 8.0) == [2, 2]


def test_a_budget_past_the_grid_is_an_error():
    with pytest.raises(ValueError, match="more than the grid can reach"):
        cheapest(np.tile(np.arange(3.0), (2, 1)), np.array([64, 192]), 8.1)


# the curves -------------------------------------------------------------------------------------


def test_the_grid_goes_from_none_to_the_most():
    assert grid()[0] == 0.0
    assert grid()[-1] == MOST
    assert np.diff(grid()) == pytest.approx(GRID_STEP, rel=1e-12)


@settings(max_examples=50)
@given(st.lists(st.floats(0.0, 2.0), min_size=len(MEASURED), max_size=len(MEASURED)))
def test_a_curve_rises_from_nothing_and_is_finite(errors):
    curve = allocation._interpolated(errors)
    assert curve.shape == grid().shape
    assert curve[0] == 0.0
    assert np.isfinite(curve).all()
    assert (np.diff(curve) >= -1e-12).all()


def test_a_curve_runs_through_what_was_measured(monkeypatch):
    monkeypatch.setattr(allocation, "MEASURED", (0.25, 0.5, 0.75))
    curve = allocation._interpolated([1e-3, 1e-2, 0.1])
    # Half-way between two measurements lies their geometric mean.
    assert curve[[16, 32, 40, 48]] == pytest.approx([1e-3, 1e-2, np.sqrt(1e-3), 0.1])


# a whole prune ----------------------------------------------------------------------------------


@pytest.fixture
def few_measurements(monkeypatch):
    monkeypatch.setattr(allocation, "MEASURED", (0.3, 0.6, 0.9))


def job(pattern="unstructured", sparsity=None, **options):
    adaptive = AdaptiveConfig(**{"allocation": "error", "solver": "greedy", "iterations": 5, **options})
    config = PruneConfig(pattern=pattern, sparsity=sparsity, calibration_examples=16, adaptive=adaptive)
    return PruningJob(config, 32, seed=0)


def test_what_a_group_costs_is_what_it_does_to_the_last_cls(small_classifier_dir, quotes, monkeypatch):
    monkeypatch.setattr(allocation, "MEASURED", (0.5,))
    classifier = load_classifier(str(small_classifier_dir))
    last = list(BERT.group_names(1))[-1]
    with torch.no_grad():
        curves, sizes = allocation._measured_curves(
            classifier, quotes, job(), Unstructured(0.5, "layer"), SilentProgress()
        )
        walk, _ = start_walk(classifier, quotes, job(), dense=None)
        whole = torch.cat([classifier.model.bert(**b).last_hidden_state[:, 0] for b in walk.batches])
        walk.advance()
        moments = walk.moments("output.dense")
        linear = linear_at(classifier.model, last[0])
        hessian, _ = damped(moments.hessian, 0.01)
        pruned, _ = greedy(linear.weight.double(), hessian, Unstructured(0.5, "layer"))
        linear.bias += ((linear.weight.double() - pruned) @ moments.pruned_mean).float()
        linear.weight.copy_(pruned)
        moved = torch.cat([classifier.model.bert(**b).last_hidden_state[:, 0] for b in walk.batches])
    expected = float((moved - whole).square().sum() / whole.square().sum())
    assert expected > 0
    assert curves[last][32] == pytest.approx(expected, rel=1e-3)
    assert sizes[last] == linear.weight.numel()


@pytest.mark.usefixtures("few_measurements")
def test_zeros_are_as_many_as_asked_for_in_places_that_differ(small_classifier_dir, quotes):
    classifier = load_classifier(str(small_classifier_dir))
    before = {name: value.clone() for name, value in classifier.model.state_dict().items()}
    with torch.no_grad():
        found = allocate(classifier, quotes, job(), Unstructured(0.6, "layer"), SilentProgress())
    # Measuring leaves the model as it was.
    assert all(torch.equal(value, before[name]) for name, value in classifier.model.state_dict().items())
    sparsities = {names[0]: pattern.sparsity for names, pattern in found.items()}
    assert len(sparsities) == 8
    assert len(set(sparsities.values())) > 1
    assert all(sparsity in grid() for sparsity in sparsities.values())

    result = prune_classifier(classifier, quotes, job(sparsity=0.6), SilentProgress())
    assert result.patterns == found
    assert result.details["sparsities"] == sparsities
    weights = [linear.weight for linear in encoder_linears(classifier.model).values()]
    zeros, size = sum(int((w == 0).sum()) for w in weights), sum(w.numel() for w in weights)
    # One step of the smallest group is the most by which the budget may be passed here.
    assert 0.6 * size <= zeros <= 0.6 * size + GRID_STEP * 256 * 384


def test_n_of_m_has_nothing_to_allocate(small_classifier_dir, quotes):
    with pytest.raises(UserError, match="allocation error: pattern 2:4 has the same sparsity everywhere"):
        prune_classifier(load_classifier(str(small_classifier_dir)), quotes, job("2:4"), SilentProgress())


def test_a_structured_pattern_has_nothing_to_allocate(small_classifier_dir, quotes):
    classifier = load_classifier(str(small_classifier_dir))
    with pytest.raises(UserError, match="allocation error"):
        prune_classifier(classifier, quotes, job("structured", 0.5), SilentProgress())


@pytest.mark.usefixtures("few_measurements")
def test_a_sparsity_past_the_grid_is_a_user_error(small_classifier_dir, quotes):
    classifier = load_classifier(str(small_classifier_dir))
    with pytest.raises(UserError, match="sparsity"):
        prune_classifier(classifier, quotes, job(sparsity=0.98), SilentProgress())
