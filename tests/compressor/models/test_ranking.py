"""Ranking metrics: their definitions, ties, and queries that cannot be ranked."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.data.texts import TextData
from compressor.errors import UserError
from compressor.models.ranking import (
    CUTOFF,
    candidates_by_query,
    check_ranking,
    ndcg,
    rank_correlations,
    ranking_scores,
    reciprocal_rank,
)

gains = st.integers(0, 3)
relevant = st.lists(gains, min_size=2, max_size=14).filter(any)


def discounted(ordered):
    return sum(gain / math.log2(rank + 2) for rank, gain in enumerate(ordered[:CUTOFF]))


def pairs(*rows):
    queries, numbers = zip(*rows, strict=True)
    candidates = [f"candidate {number}" for number in range(len(rows))]
    return TextData(list(queries), candidates, None, ["score"], "pairs.tsv", [float(n) for n in numbers])


@given(relevant, st.randoms(use_true_random=False))
def test_ndcg_is_that_of_its_definition(relevance, random):
    answers = random.sample(range(100), len(relevance))
    ordered = [gain for _, gain in sorted(zip(answers, relevance, strict=True), reverse=True)]
    expected = discounted(ordered) / discounted(sorted(relevance, reverse=True))
    assert ndcg(answers, relevance) == pytest.approx(expected)


@pytest.mark.parametrize("relevance", [[1, 0, 0], [3, 1, 0, 0], [2, 2, 1, 0, 1]])
def test_equal_answers_get_the_mean_of_all_their_orders(relevance):
    orders = [discounted(order) for order in itertools.permutations(relevance)]
    expected = np.mean(orders) / discounted(sorted(relevance, reverse=True))
    assert ndcg([0.5] * len(relevance), relevance) == pytest.approx(expected)


@given(relevant)
def test_the_best_order_is_one_and_no_other_is_more(relevance):
    assert ndcg(relevance, relevance) == pytest.approx(1)
    assert ndcg([-gain for gain in relevance], relevance) <= 1 + 1e-12
    assert reciprocal_rank(relevance, relevance) == 1


@pytest.mark.parametrize(
    ("answers", "relevance", "expected"),
    [
        ([3, 2, 1], [1, 0, 0], 1),
        ([3, 2, 1], [0, 0, 2], 1 / 3),
        # The better of two relevant ones counts.
        ([1, 2, 3], [1, 1, 0], 1 / 2),
        ([0, 0, 0, 0], [0, 1, 0, 0], 1 / 4),
        ([*range(20, 9, -1)], [*[0] * 10, 1], 0),
        ([*range(20, 9, -1)], [*[0] * 9, 1, 0], 1 / 10),
    ],
)
def test_reciprocal_ranks(answers, relevance, expected):
    assert reciprocal_rank(answers, relevance) == pytest.approx(expected)


@given(relevant, st.floats(0.01, 100), st.floats(-5, 5), st.randoms(use_true_random=False))
def test_only_the_order_counts(relevance, scale, shift, random):
    answers = np.array([random.randint(-50, 50) / 4 for _ in relevance])
    relevance = np.array(relevance, dtype=float)
    group = [np.arange(len(answers))]
    for metric in ("ndcg", "mrr"):
        [found] = ranking_scores(metric, answers, relevance, group)
        [moved] = ranking_scores(metric, scale * np.exp(answers / 4) + shift, relevance, group)
        assert 0 <= found <= 1
        assert moved == pytest.approx(found)


def test_correlations_are_within_queries():
    groups = [np.array([0, 1, 2]), np.array([3, 4]), np.array([5, 6]), np.array([7, 8])]
    dense = np.array([1.0, 2.0, 3.0, 5.0, 4.0, 1.0, 1.0, 1.0, 1.0])
    # In order; turned round; a constant where there was an order; a constant of both.
    other = np.array([10.0, 20.0, 30.0, 1.0, 2.0, 1.0, 2.0, 7.0, 7.0])
    np.testing.assert_allclose(rank_correlations(other, dense, groups), [1, -1, 0, 1])


def test_queries_that_cannot_be_ranked_are_left_out():
    data = pairs(("a", 1), ("b", 1), ("a", 0), ("c", 0), ("c", 0), ("d", 2), ("d", 2))
    found = [places.tolist() for places in candidates_by_query("task_metric ndcg", data)]
    # b has one candidate, c no relevant one; all candidates of d are right.
    assert found == [[0, 2], [5, 6]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pairs(("a", 1), ("a", -0.5)), "the number of example 2 is -0.5; relevance is not negative"),
        (pairs(("a", 1), ("b", 1)), "no query, which is the first text of a pair, has several candidates"),
        (TextData(["a", "b"], None, None, ["score"], "one.tsv", [1.0, 0.0]), "one.tsv has single texts"),
    ],
)
def test_what_cannot_be_ranked_is_an_error(data, message):
    with pytest.raises(UserError, match=f"task_metric mrr: .*{message}"):
        check_ranking("mrr", data)
    check_ranking("pearson", data)
