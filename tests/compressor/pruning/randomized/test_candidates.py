"""How candidates differ, and what they are compared by."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy

from compressor.errors import UserError
from compressor.options import RandomizedConfig
from compressor.pruning.patterns import NM, Unstructured
from compressor.pruning.randomized.candidates import (
    StepJob,
    all_alive,
    draw_by_saliency,
    draw_candidate,
    step_settings,
)
from compressor.pruning.solvers.solvers import greedy
from compressor.pruning.solvers.supports import saliencies
from compressor.training.losses import answer_divergence


def test_each_step_has_its_rate_and_the_early_one_keeps_its_proportion():
    config = RandomizedConfig(learning_rate=1e-4, early_learning_rate=3e-4)
    assert step_settings(config, 2) == [config, config]
    first, second = step_settings(config.model_copy(update={"step_learning_rates": [2e-4, 1e-3]}), 2)
    assert (first.learning_rate, second.learning_rate) == (2e-4, 1e-3)
    assert (first.early_learning_rate, second.early_learning_rate) == pytest.approx((6e-4, 3e-3))


def test_rates_are_one_for_each_step():
    config = RandomizedConfig(step_learning_rates=[1e-4, 1e-3])
    with pytest.raises(UserError, match=r"0\.0001, 0\.001: there are 3 pruning steps; give"):
        step_settings(config, 3)


def test_spread_candidates_leave_magnitude_further_one_after_the_other():
    weights = {"layer": torch.randn(64, 64, generator=torch.Generator().manual_seed(0))}
    config = RandomizedConfig(candidates=4, candidate_ratios="spread", sampling_ratio=0.3)
    job = StepJob(0, 1, Unstructured(0.5), config, seed=0)
    by_magnitude = Unstructured(0.5).mask(weights["layer"].abs(), "layer")
    drawn = [draw_candidate(weights, all_alive(weights), job, index)["layer"] for index in range(4)]
    changed = [int((mask & ~by_magnitude).sum()) for mask in drawn]
    assert changed[0] == 0
    assert changed == sorted(set(changed))
    assert all(int(mask.sum()) == int(by_magnitude.sum()) for mask in drawn)


@given(
    seed=st.integers(0, 2**31 - 1),
    pattern=st.sampled_from([Unstructured(0.5), Unstructured(0.75, "row"), NM(2, 4)]),
    index=st.integers(0, 3),
)
def test_candidates_drawn_by_saliency_stay_near_the_solver_s_mask(seed, pattern, index):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(40, 16, generator=generator, dtype=torch.float64)
    target = torch.randn(12, 16, generator=generator, dtype=torch.float64)
    hessian = inputs.T @ inputs
    pruned, mask = greedy(target, hessian, pattern)
    pruned[0, mask[0].nonzero()[0]] = 0.0
    own = saliencies(target, hessian, pruned, mask)
    assert own[mask].min() > own[~mask].max()
    expected = target.abs() * hessian.diagonal().sqrt()
    assert torch.equal(own[~mask], expected[~mask])
    job = StepJob(0, 1, pattern, RandomizedConfig(candidates=4, sampling_ratio=0.25), seed)
    drawn = draw_by_saliency(job, index)(own, pattern)
    assert pattern.is_met_by(drawn)
    if index == 0:
        assert torch.equal(drawn, mask)
    else:
        assert int((drawn & ~mask).sum()) <= 0.3 * int(mask.sum()) or isinstance(pattern, NM)
        assert torch.equal(drawn, draw_by_saliency(job, index)(own, pattern))


@given(seed=st.integers(0, 2**31 - 1), texts=st.integers(1, 6), labels=st.integers(2, 4))
def test_answer_divergence_is_the_mean_divergence(seed, texts, labels):
    generator = torch.Generator().manual_seed(seed)
    logits, perturbed = (
        3 * torch.randn(texts, labels, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    expected = entropy(softmax(logits.numpy(), axis=1), softmax(perturbed.numpy(), axis=1), axis=1).mean()
    assert float(answer_divergence(logits, perturbed)) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert float(answer_divergence(logits, logits + 5)) == pytest.approx(0, abs=1e-12)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=6))
def test_answer_divergence_of_a_regression_is_the_mean_squared_difference(rows):
    logits, perturbed = torch.tensor(rows, dtype=torch.float64).T[:, :, None]
    expected = np.mean([(a - b) ** 2 for a, b in rows])
    assert float(answer_divergence(logits, perturbed)) == pytest.approx(expected, abs=1e-12)
