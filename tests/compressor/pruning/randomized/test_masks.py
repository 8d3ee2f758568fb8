import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from compressor.errors import UserError
from compressor.pruning.patterns import NM, Unstructured, pruned_count
from compressor.pruning.randomized.masks import (
    candidate_share,
    draw_mask,
    draw_masks,
    step_candidates,
    step_patterns,
    step_sampling_ratio,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def all_alive(weight: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(weight, dtype=torch.bool)


@settings(max_examples=50)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    sparsity=st.floats(0, 0.99),
    ratio=st.floats(0, 1),
    temperature=st.floats(0.1, 10),
    seed=st.integers(0, 1000),
)
def test_unstructured_draw_has_the_exact_count(rows, columns, sparsity, ratio, temperature, seed):
    weight = torch.randn(rows, columns, generator=generator(seed))
    mask = draw_mask(weight, all_alive(weight), Unstructured(sparsity), ratio, temperature, generator(seed))
    assert int((~mask).sum()) == pruned_count(rows * columns, sparsity)


@settings(max_examples=50)
@given(ratio=st.floats(0, 1), seed=st.integers(0, 1000), n=st.integers(1, 3))
def test_group_draw_keeps_exactly_n_of_m(ratio, seed, n):
    weight = torch.randn(6, 16, generator=generator(seed))
    mask = draw_mask(weight, all_alive(weight), NM(n, 4), ratio, 1.0, generator(seed))
    assert (mask.reshape(6, 4, 4).sum(dim=2) == n).all()


@pytest.mark.parametrize("pattern", [Unstructured(0.4), NM(2, 4)])
def test_ratio_zero_is_magnitude_pruning_bit_for_bit(pattern):
    weight = torch.randn(32, 64, generator=generator(3))
    mask = draw_mask(weight, all_alive(weight), pattern, 0.0, 1.0, generator())
    assert torch.equal(mask, pattern.mask(weight.abs(), scope="layer"))


def test_ratio_keeps_at_least_its_share_by_magnitude():
    weight = torch.randn(50, 40, generator=generator(1))
    mask = draw_mask(weight, all_alive(weight), Unstructured(0.5), 0.1, 1.0, generator())
    largest = weight.abs().flatten().argsort(descending=True)[:900]
    assert mask.flatten()[largest].all()
    assert not torch.equal(mask, Unstructured(0.5).mask(weight.abs(), scope="layer"))


@pytest.mark.parametrize("pattern", [Unstructured(0.75), NM(1, 4)])
def test_dead_weights_stay_dead(pattern):
    weight = torch.randn(16, 32, generator=generator(5))
    alive = NM(2, 4).mask(torch.rand(16, 32, generator=generator(6)))
    mask = draw_mask(weight, alive, pattern, 1.0, 1.0, generator())
    assert not (mask & ~alive).any()
    assert pattern.is_met_by(mask)


@settings(max_examples=30)
@given(sparsity=st.floats(0, 0.99), ratio=st.floats(0, 1), seed=st.integers(0, 1000))
def test_scope_row_draws_the_exact_count_in_each_row(sparsity, ratio, seed):
    weight = torch.randn(5, 12, generator=generator(seed))
    pattern = Unstructured(sparsity, "row")
    mask = draw_mask(weight, all_alive(weight), pattern, ratio, 1.0, generator(seed))
    assert ((~mask).sum(dim=1) == pruned_count(12, sparsity)).all()
    assert pattern.is_met_by(mask)


@settings(max_examples=30)
@given(sparsity=st.floats(0, 0.99), ratio=st.floats(0, 1), seed=st.integers(0, 1000))
def test_matrices_drawn_together_share_their_zeros(sparsity, ratio, seed):
    weights = {
        "a": torch.randn(4, 6, generator=generator(seed)),
        "b": 3 * torch.randn(2, 9, generator=generator(seed + 1)),
    }
    alive = {name: all_alive(weight) for name, weight in weights.items()}
    masks = draw_masks(weights, alive, Unstructured(sparsity), ratio, 1.0, generator(seed), together=True)
    assert {name: mask.shape for name, mask in masks.items()} == {n: w.shape for n, w in weights.items()}
    assert sum(int((~mask).sum()) for mask in masks.values()) == pruned_count(42, sparsity)
    if ratio == 0:
        flat = torch.cat([weight.flatten() for weight in weights.values()])[None]
        expected = Unstructured(sparsity).mask(flat.abs(), scope="layer")[0]
        assert torch.equal(torch.cat([mask.flatten() for mask in masks.values()]), expected)


def test_one_by_one_is_draw_mask_on_each():
    weights = {name: torch.randn(4, 6, generator=generator(i)) for i, name in enumerate("ab")}
    alive = {name: all_alive(weight) for name, weight in weights.items()}
    masks = draw_masks(weights, alive, Unstructured(0.5), 0.3, 1.0, generator(9))
    source = generator(9)
    for name, weight in weights.items():
        assert torch.equal(masks[name], draw_mask(weight, alive[name], Unstructured(0.5), 0.3, 1.0, source))


def test_sampling_ratios_over_the_steps():
    assert [step_sampling_ratio(0.2, step, 4, "constant") for step in range(4)] == [0.2] * 4
    falling = [step_sampling_ratio(0.2, step, 4, "falling") for step in range(4)]
    assert falling == pytest.approx([0.2, 0.15, 0.1, 0.05])


def test_too_few_live_weights_is_an_error():
    weight = torch.ones(2, 4)
    with pytest.raises(ValueError, match="alive"):
        draw_mask(weight, torch.zeros(2, 4, dtype=torch.bool), Unstructured(0.5), 0.5, 1.0, generator())


def test_same_seed_same_mask_and_another_seed_another():
    weight = torch.randn(64, 64, generator=generator(0))
    masks = [
        draw_mask(weight, all_alive(weight), Unstructured(0.5), 0.2, 1.0, generator(s)) for s in (1, 1, 2)
    ]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_single_draws_follow_the_stated_probabilities(temperature):
    """One weight of four is drawn: its distribution is |w|^(1/temperature), normalised."""
    weight = torch.tensor([[1.0, -2.0, 3.0, 4.0]])
    source = generator(7)
    counts = np.zeros(4)
    for _ in range(4000):
        counts += (
            draw_mask(weight, all_alive(weight), Unstructured(0.75), 1.0, temperature, source)[0]
            .numpy()
            .astype(float)
        )
    expected = np.array([1.0, 2.0, 3.0, 4.0]) ** (1 / temperature)
    assert chisquare(counts, expected / expected.sum() * counts.sum()).pvalue > 1e-3


def test_pairs_are_drawn_without_replacement_by_the_successive_law():
    """P(first i, then j) = p_i p_j / (1 - p_i): the law of sampling without replacement."""
    values = np.array([1.0, 2.0, 3.0])
    p = values / values.sum()
    pairs = [(0, 1), (0, 2), (1, 2)]
    law = [p[i] * p[j] / (1 - p[i]) + p[j] * p[i] / (1 - p[j]) for i, j in pairs]
    weight, source = torch.from_numpy(values)[None], generator(8)
    counts = dict.fromkeys(pairs, 0)
    for _ in range(4000):
        mask = draw_mask(weight, all_alive(weight), Unstructured(0.34), 1.0, 1.0, source)[0]
        counts[tuple(mask.nonzero().flatten().tolist())] += 1
    assert chisquare([counts[pair] for pair in pairs], np.array(law) * 4000).pvalue > 1e-3


@settings(max_examples=50)
@given(
    sparsity=st.floats(0.01, 0.99), steps=st.integers(1, 20), schedule=st.sampled_from(["cubic", "geometric"])
)
def test_sparsity_rises_to_the_target(sparsity, steps, schedule):
    target = Unstructured(sparsity)
    patterns = step_patterns(target, steps, schedule)
    sparsities = [pattern.sparsity for pattern in patterns]
    assert patterns[-1] == target
    assert len(patterns) == steps
    assert sparsities == sorted(sparsities)


def test_group_steps_end_at_the_pattern_and_never_repeat():
    assert step_patterns(NM(2, 4), 5, "cubic") == [NM(3, 4), NM(2, 4)]
    assert step_patterns(NM(32, 64), 2, "cubic") == [NM(48, 64), NM(32, 64)]


def test_sparsities_of_steps_may_be_listed():
    pattern = Unstructured(0.99, "row")
    assert step_patterns(pattern, 3, "cubic", [0.5, 0.75, 0.99]) == [
        Unstructured(0.5, "row"),
        Unstructured(0.75, "row"),
        pattern,
    ]


@pytest.mark.parametrize(
    ("pattern", "sparsities"),
    [(Unstructured(0.9), [0.5, 0.8]), (Unstructured(0.9), [0.5, 0.5, 0.9]), (NM(2, 4), [0.5])],
)
def test_listed_sparsities_that_do_not_lead_there_are_an_error(pattern, sparsities):
    with pytest.raises(UserError, match="--step-sparsities"):
        step_patterns(pattern, 3, "cubic", sparsities)


@given(
    candidates=st.integers(1, 50), steps=st.integers(1, 20), schedule=st.sampled_from(["constant", "rising"])
)
def test_the_number_of_candidates_never_falls_and_ends_whole(candidates, steps, schedule):
    counts = [step_candidates(candidates, step, steps, schedule) for step in range(steps)]
    assert counts == sorted(counts)
    assert counts[0] >= 1
    assert counts[-1] == candidates


def test_candidates_share_the_sampling_ratio_or_spread_it_from_magnitude_alone():
    assert [candidate_share(index, 5, "same") for index in range(5)] == [0, 1, 1, 1, 1]
    assert [candidate_share(index, 5, "spread") for index in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    assert candidate_share(0, 1, "spread") == 0


@pytest.mark.cuda
@pytest.mark.parametrize("pattern", [Unstructured(0.6), Unstructured(0.6, "row"), NM(2, 4)], ids=str)
@pytest.mark.parametrize("ratio", [0.0, 0.3])
def test_a_seed_draws_the_same_mask_on_a_gpu(pattern, ratio):
    weight = torch.randn(384, 256, generator=torch.Generator().manual_seed(1))

    def mask_on(device: torch.device) -> torch.Tensor:
        moved = weight.to(device)
        alive = torch.ones_like(moved, dtype=torch.bool)
        return draw_mask(moved, alive, pattern, ratio, 1.0, torch.Generator().manual_seed(5)).cpu()

    assert torch.equal(mask_on(torch.device("cpu")), mask_on(torch.device("cuda")))
