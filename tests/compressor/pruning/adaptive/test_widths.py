"""Widths for a latency: the knapsack against brute force, and whole prunings."""

import copy
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_latency_tables import table_for
from pydantic import ValidationError

from compressor.errors import UserError
from compressor.models.classifier import Classifier, load_classifier, save_classifier
from compressor.models.structure import linear_at
from compressor.options import PruneConfig
from compressor.pruning.adaptive import prune as prune_module
from compressor.pruning.adaptive import widths as module
from compressor.pruning.adaptive.widths import allocate_widths, cheapest_within
from compressor.pruning.interface import PruningJob, SharedWork, prune_classifier
from compressor.system.console import SilentProgress

# the knapsack -----------------------------------------------------------------------------------


@st.composite
def knapsacks(draw):
    """Costs that fall and times that rise with the level, and a budget."""
    blocks, levels = draw(st.integers(1, 4)), draw(st.integers(2, 5))
    steps = st.lists(st.floats(0.0, 10.0), min_size=levels - 1, max_size=levels - 1)
    falls, rises = (
        np.array(draw(st.lists(steps, min_size=blocks, max_size=blocks))).cumsum(axis=1) for _ in range(2)
    )
    zeros = np.zeros((blocks, 1))
    costs = np.concatenate([falls[:, ::-1], zeros], axis=1)
    times = np.concatenate([zeros, rises], axis=1)
    return costs, list(times), draw(st.floats(0.0, 1.2)) * float(times[:, -1].sum())


@settings(max_examples=150)
@given(knapsacks())
def test_the_choice_is_within_the_budget_and_as_good_as_brute_force(knapsack):
    costs, times, budget = knapsack
    chosen = cheapest_within(costs, times, budget)
    spent = sum(time[level] for time, level in zip(times, chosen, strict=True))
    assert spent <= budget * (1 + 1e-6)
    price = sum(cost[level] for cost, level in zip(costs, chosen, strict=True))
    # Each time is rounded up to a unit, so what fits with a unit for each block to spare is found.
    spare = budget - len(times) * budget / module.TIME_UNITS
    best = min(
        sum(cost[level] for cost, level in zip(costs, choice, strict=True))
        for choice in itertools.product(range(costs.shape[1]), repeat=len(times))
        if sum(time[level] for time, level in zip(times, choice, strict=True)) <= max(0.0, spare)
    )
    assert price <= best + 1e-9


def test_no_budget_takes_every_block_out():
    times = [np.array([0.0, 1.0, 2.0])] * 3
    assert cheapest_within(np.tile([3.0, 1.0, 0.0], (3, 1)), times, 0.0) == [0, 0, 0]


def test_a_budget_for_all_leaves_all():
    times = [np.array([0.0, 1.0, 2.0])] * 3
    assert cheapest_within(np.tile([3.0, 1.0, 0.0], (3, 1)), times, 6.01) == [2, 2, 2]


# error curves -----------------------------------------------------------------------------------


def test_a_curve_goes_through_what_was_measured_and_ends_at_nothing():
    curve = module._curve([4.0, 1.0, 0.25], [0, 2, 4], 6)
    assert curve.tolist() == pytest.approx([4.0, 2.0, 1.0, 0.5, 0.25, 0.0])


def test_a_curve_does_not_rise_with_the_width():
    assert module._curve([1.0, 2.0], [0, 1], 3).tolist() == pytest.approx([2.0, 2.0, 0.0])


# whole prunings ---------------------------------------------------------------------------------


def fresh(classifier: Classifier) -> Classifier:
    return replace(classifier, model=copy.deepcopy(classifier.model))


def job_for(table, folder, **adaptive) -> PruningJob:
    path = folder / "table.json"
    path.write_text(table.model_dump_json())
    options = {"latency_table": str(path), "allocation_trials": 4, **adaptive}
    return PruningJob(PruneConfig(calibration_examples=32, adaptive=options), 64, 0)


def allocated(classifier, data, job, table):
    solving, judging = data.hold_out(40, 0)
    return allocate_widths(classifier, solving, judging, job, table, SilentProgress())


@pytest.mark.parametrize("goal", [{"speedup": 4.0}, {"speedup": 10.0}, {"latency_budget_ms": 6.0}])
def test_widths_meet_the_goal(goal, small_classifier, quotes, tmp_path):
    table = table_for(small_classifier)
    job = job_for(table, tmp_path, **goal)
    found = allocated(small_classifier, quotes, job, table)
    ms = table.predicted_ms(found.widths)
    assert found.predicted_ms == pytest.approx(ms.tolist())
    if "speedup" in goal:
        assert table.speedup(ms) >= goal["speedup"] * (1 - 1e-6)
    else:
        assert table.weights @ ms <= goal["latency_budget_ms"] * (1 + 1e-6)
    assert found.divergence <= found.first_divergence
    assert found.trials >= 1


def test_the_same_seed_gives_the_same_widths(small_classifier, quotes, tmp_path):
    table = table_for(small_classifier)
    job = job_for(table, tmp_path, speedup=5.0)
    first, again = (allocated(small_classifier, quotes, job, table) for _ in range(2))
    assert first == again


def test_measuring_leaves_the_model_as_it_was(small_classifier, quotes, tmp_path):
    table = table_for(small_classifier)
    before = {name: value.clone() for name, value in small_classifier.model.state_dict().items()}
    allocated(small_classifier, quotes, job_for(table, tmp_path, speedup=5.0), table)
    after = small_classifier.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_expensive_blocks_lose_most(small_classifier, quotes, tmp_path):
    """What costs no time is not removed, whatever it brings."""
    table = table_for(small_classifier, attention_ms=1e-6, feed_forward_ms=2.0)
    job = job_for(table, tmp_path, speedup=6.0)
    found = allocated(small_classifier, quotes, job, table)
    assert all(own.heads == table.heads for own in found.widths)
    assert any(own.neurons < table.neurons for own in found.widths)


def test_a_pruned_model_has_its_widths_and_is_saved(small_classifier, quotes, tmp_path):
    table = table_for(small_classifier)
    job = job_for(table, tmp_path, speedup=20.0, distillation_steps=4, distillation_rates=[1e-4, 1e-3])
    classifier = fresh(small_classifier)
    result = prune_classifier(classifier, quotes, job, SilentProgress())
    assert result.widths is not None
    layout = classifier.layout
    for own, block in zip(result.widths, layout.blocks(classifier.model), strict=True):
        assert layout.head_count(block) == max(1, own.heads)
        assert linear_at(block, layout.linears.neurons_in).out_features == max(1, own.neurons)
    save_classifier(classifier, tmp_path / "pruned")
    loaded = load_classifier(str(tmp_path / "pruned"), "cpu")
    batch = classifier.tokenizer(quotes.texts[:4], return_tensors="pt", padding=True)
    with torch.no_grad():
        expected, found = (one.model(**batch).logits for one in (classifier, loaded))
    torch.testing.assert_close(found, expected)
    assert json.loads(json.dumps(result.details))["predicted_speedup"] >= 20.0 * (1 - 1e-3)
    assert any(0 in own for own in result.widths)
    assert set(result.details["distillation_race"]["divergences"]) == {"0.0001", "0.001"}


def test_a_model_without_any_block_is_solved_and_answers_all_texts_alike(small_classifier, quotes, tmp_path):
    # [CLS] sees no other token, so what its pooler gets has no variance.
    table = table_for(small_classifier)
    none = float(table.weights @ table.predicted_ms([]))
    classifier = fresh(small_classifier)
    job = job_for(table, tmp_path, latency_budget_ms=none * (1 + 1e-6))
    result = prune_classifier(classifier, quotes, job, SilentProgress())
    assert result.widths is not None
    assert all(tuple(own) == (0, 0) for own in result.widths)
    batch = classifier.tokenizer(quotes.texts[:8], return_tensors="pt", padding=True)
    with torch.no_grad():
        logits = classifier.model(**batch).logits
    torch.testing.assert_close(logits, logits[:1].expand_as(logits), rtol=0, atol=1e-5)


def test_prunings_for_other_latencies_measure_no_block_and_ask_no_teacher_again(
    small_classifier, quotes, tmp_path, monkeypatch
):
    table = table_for(small_classifier)
    few = {"distillation_steps": 4, "distillation_examples": 32, "calibration_tokens": 0}
    jobs = [job_for(table, tmp_path, speedup=speedup, **few) for speedup in (10.0, 20.0)]
    jobs[1] = replace(jobs[1], shared=jobs[0].shared)
    classifiers = [fresh(small_classifier) for _ in jobs]
    # Four steps see all texts.
    monkeypatch.setattr(prune_module, "DISTILLATION_TOKENS", 2000)
    first = prune_classifier(classifiers[0], quotes, jobs[0], SilentProgress())
    assert len(jobs[0].shared) == 2
    monkeypatch.setattr(module, "measure_blocks", None)
    monkeypatch.setattr(prune_module, "ask_teacher", None)
    second = prune_classifier(classifiers[1], quotes, jobs[1], SilentProgress())
    assert second.widths != first.widths
    monkeypatch.undo()
    monkeypatch.setattr(prune_module, "DISTILLATION_TOKENS", 2000)
    # By itself it becomes the same.
    alone, job = fresh(small_classifier), replace(jobs[1], shared=SharedWork())
    assert prune_classifier(alone, quotes, job, SilentProgress()).widths == second.widths
    for name, value in alone.model.state_dict().items():
        torch.testing.assert_close(value, classifiers[1].model.state_dict()[name])


def test_a_goal_beyond_reach_says_what_is_within(small_classifier, quotes, tmp_path):
    table = table_for(small_classifier)
    with pytest.raises(UserError, match=r"speedup 500: even without any head and neuron .* ask for less"):
        allocated(small_classifier, quotes, job_for(table, tmp_path, speedup=500.0), table)


def test_a_table_of_another_shape_is_refused(small_classifier, quotes, tmp_path):
    table = table_for(small_classifier).model_copy(update={"hidden_size": 99, "layers": 7})
    with pytest.raises(UserError, match=r"another shape of model: layers 7 and not \d+, hidden_size 99 and"):
        allocated(small_classifier, quotes, job_for(table, tmp_path, speedup=2.0), table)


# options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"adaptive": {"speedup": 8}}, "latency_table: is missing"),
        ({"adaptive": {"latency_table": "t"}}, "has no effect"),
        ({"adaptive": {"speedup": 8, "latency_budget_ms": 3, "latency_table": "t"}}, "leave one of them out"),
        ({"sparsity": 0.5, "adaptive": {"speedup": 8, "latency_table": "t"}}, "leave the sparsity out"),
        ({"pattern": "2:4", "adaptive": {"speedup": 8, "latency_table": "t"}}, "leave the pattern out"),
        ({"algorithm": "wanda", "adaptive": {"speedup": 8, "latency_table": "t"}}, "cannot choose widths"),
    ],
)
def test_goals_that_contradict_other_options_are_refused(options, problem):
    with pytest.raises(ValidationError, match=problem):
        PruneConfig.model_validate(options)


def test_a_latency_goal_makes_the_pattern_structured():
    assert PruneConfig(adaptive={"speedup": 8, "latency_table": "t"}).pattern == "structured"
    assert PruneConfig().pattern == "unstructured"
