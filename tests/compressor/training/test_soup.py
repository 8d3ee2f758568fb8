"""The greedy average: against a plain reading of the paper's algorithm, and its grid of runs."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressor.options import SoupConfig
from compressor.training.soup import AXES, Score, Trial, average_weights, greedy_soup, grid_runs

SCORE = st.builds(Score, accuracy=st.sampled_from([0.5, 0.8, 0.9]), robustness=st.integers(0, 5))
SCORES = st.lists(SCORE, min_size=1, max_size=5)
TOLERANCES = st.sampled_from([0.0, 0.15, 1.0])


def subset_scores(seed):
    """A score for each set of models, whatever their order."""

    def score(runs):
        generator = torch.Generator().manual_seed(seed + sum(7**run for run in runs))
        accuracy, robust = torch.randint(6, (2,), generator=generator).tolist()
        return Score(0.5 + accuracy / 10, robust)

    return score


@given(scores=SCORES, seed=st.integers(0, 1000))
def test_without_a_bound_on_accuracy_it_is_the_papers_loop(scores, seed):
    score_of = subset_scores(seed)
    ingredients, remaining = [], list(enumerate(scores))
    current = -1
    while remaining:
        tried = max(remaining, key=lambda pair: pair[1].robustness)
        remaining.remove(tried)
        with_it = tried[1] if not ingredients else score_of([*ingredients, tried[0]])
        if with_it.robustness >= current:
            ingredients.append(tried[0])
            current = with_it.robustness
    trials = greedy_soup(scores, score_of, 1.0)
    assert [trial.run for trial in trials if trial.kept] == ingredients
    assert sorted(trial.run for trial in trials) == list(range(len(scores)))


@given(scores=SCORES, tolerance=TOLERANCES, seed=st.integers(0, 1000))
def test_what_is_kept_never_gets_less_robust_nor_too_inaccurate(scores, tolerance, seed):
    asked = []
    score_of = subset_scores(seed)
    trials = greedy_soup(scores, lambda runs: asked.append(runs) or score_of(runs), tolerance)
    kept = [trial for trial in trials if trial.kept]
    robust = [trial.score.robustness for trial in kept]
    least = max(score.accuracy for score in scores) - tolerance
    assert robust == sorted(robust)
    assert all(trial.score.accuracy >= least and scores[trial.run].accuracy >= least for trial in kept)
    assert robust[0] == max(s.robustness for s in scores if s.accuracy >= least)
    assert {trial.run for trial in trials if trial.score is None} == {
        run for run, score in enumerate(scores) if score.accuracy < least
    }
    assert len(asked) == len(set(asked)) == sum(trial.score is not None for trial in trials) - 1


def test_a_constant_answer_is_robust_and_left_out():
    constant, good = Score(0.55, 0.55), Score(0.9, 0.1)
    trials = greedy_soup([constant, good], lambda runs: good, 0.03)
    assert trials == [Trial(1, good, kept=True), Trial(0, None, kept=False)]


def test_no_models_no_average():
    with pytest.raises(ValueError, match="nothing to average"):
        greedy_soup([], lambda runs: Score(0.0, 0.0), 0.0)
    with pytest.raises(ValueError, match="nothing to average"):
        average_weights([])


# averages ---------------------------------------------------------------------------------------


@given(count=st.integers(1, 6), seed=st.integers(0, 1000))
def test_the_average_is_the_mean_in_float64(count, seed):
    generator = torch.Generator().manual_seed(seed)
    models = [{"a": torch.randn(3, 4, generator=generator), "ids": torch.arange(5)} for _ in range(count)]
    found = average_weights(models)
    exact = sum(model["a"].double() for model in models) / count
    assert found["a"].dtype == torch.float32
    assert torch.allclose(found["a"].double(), exact, rtol=1e-7, atol=1e-7)
    assert torch.equal(found["ids"], torch.arange(5))


def test_the_average_of_equals_is_bit_for_bit_the_model():
    model = {"a": torch.randn(8, 8, generator=torch.Generator().manual_seed(0))}
    assert torch.equal(average_weights([model] * 3)["a"], model["a"])


@pytest.mark.parametrize("other", [{"b": torch.zeros(2)}, {"a": torch.zeros(3)}, {}])
def test_weights_that_do_not_match_are_an_error(other):
    with pytest.raises(ValueError, match="differ in name or shape"):
        average_weights([{"a": torch.zeros(2)}, other])


# the grid ---------------------------------------------------------------------------------------


@given(runs=st.integers(2, 12), seed=st.integers(0, 1000))
def test_every_value_of_an_axis_is_taken_equally_often(runs, seed):
    config = SoupConfig(runs=runs)
    found = grid_runs(config, seed)
    assert len(found) == runs
    for axis, option in AXES.items():
        counts = Counter(getattr(run, option) for run in found)
        assert set(counts) <= set(getattr(config, axis))
        every = [counts[value] for value in getattr(config, axis)]
        assert max(every) - min(every) <= 1


def test_the_grid_is_drawn_with_the_seed_and_shares_the_other_options():
    config = SoupConfig(batch_size=7, warmup_share=0.2, adversarial_step_size=0.4, adversarial_bound=2.0)
    assert grid_runs(config, 1) == grid_runs(config, 1)
    assert grid_runs(config, 1) != grid_runs(config, 2)
    for run in grid_runs(config, 1):
        assert (run.batch_size, run.warmup_share) == (7, 0.2)
        assert (run.adversarial_step_size, run.adversarial_bound) == (0.4, 2.0)
