"""Ranking metrics of a reranker: how well its numbers order the candidates of each query. Pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compressor.data.texts import TextData
from compressor.errors import UserError
from compressor.models.metrics import RANKINGS, correlation
from compressor.options import MetricName, RankingName

# Candidates of a query that count, the best ones.
CUTOFF = 10


def candidates_by_query(option: str, data: TextData) -> list[NDArray[np.int64]]:
    """Return the places of each query's candidates; queries that cannot be ranked are left out.

    The query is the first text of a pair, and the number is how relevant the second one is to it. Left out
    are queries with one candidate, and those without a relevant one, of which the metrics are not defined.

    Args:
        option: with its value, such as `task_metric ndcg`.

    Raises:
        UserError: single texts, negative relevance, or no query that can be ranked.
    """
    if data.pairs is None:
        raise UserError(
            f"{option}: {data.source} has single texts; a reranker's are pairs of a query and a candidate"
        )
    relevance = np.array(data.numbers or [])
    if (relevance < 0).any():
        row = int(np.flatnonzero(relevance < 0)[0])
        raise UserError(
            f"{option}: {data.source}: the number of example {row + 1} is {relevance[row]:g}; relevance is "
            f"not negative, and 0 of a candidate that is not relevant"
        )
    places: dict[str, list[int]] = defaultdict(list)
    for place, query in enumerate(data.texts):
        places[query].append(place)
    groups = [np.array(own) for own in places.values() if len(own) > 1 and relevance[own].max() > 0]
    if not groups:
        raise UserError(
            f"{option}: {data.source}: no query, which is the first text of a pair, has several candidates "
            f"and a relevant one among them"
        )
    return groups


def check_ranking(metric: MetricName, data: TextData) -> None:
    """Raise a `UserError` if the metric is of rankings and the test texts cannot be ranked."""
    if metric in RANKINGS:
        candidates_by_query(f"task_metric {metric}", data)


def ranking_scores(
    metric: RankingName,
    answers: NDArray[np.float64],
    relevance: NDArray[np.float64],
    groups: Sequence[NDArray[np.int64]],
) -> NDArray[np.float64]:
    """Return the metric of each query, from 0 to 1, `(queries,)`; its value is their mean.

    Args:
        answers: of the model, `(examples,)`; the highest is ranked first.
        relevance: 0 or more, `(examples,)`.
        groups: of `candidates_by_query`.
    """
    measure = {"ndcg": ndcg, "mrr": reciprocal_rank}[metric]
    return np.array([measure(answers[own], relevance[own]) for own in groups])


def ndcg(answers: ArrayLike, relevance: ArrayLike) -> float:
    """Return the normalized discounted cumulative gain of the first 10 (Järvelin and Kekäläinen, 2002).

    The gain of a candidate is its relevance, the discount the logarithm of its rank to base 2, as in BEIR.
    Candidates with equal answers share the mean of their places' discounts.

    Args:
        answers, relevance: of a query's candidates, at least two, `(candidates,)`.
    """
    from sklearn.metrics import ndcg_score

    found = ndcg_score([np.asarray(relevance)], [np.asarray(answers)], k=CUTOFF)
    # A quotient of sums in two orders may be 1 and a last bit.
    return min(1.0, float(found))


def reciprocal_rank(answers: ArrayLike, relevance: ArrayLike) -> float:
    """Return one divided by the rank of the first relevant candidate, 0 where it is not among the first 10.

    Of equal answers those of candidates that are not relevant come first, so that a constant gains nothing.

    Args:
        answers, relevance: of a query's candidates, `(candidates,)`; relevant are those above 0.
    """
    scores, is_relevant = np.asarray(answers), np.asarray(relevance) > 0
    rank = 1 + int((scores[~is_relevant] >= scores[is_relevant].max()).sum())
    return 1 / rank if rank <= CUTOFF else 0.0


def rank_correlations(
    answers: NDArray[np.float64], reference: NDArray[np.float64], groups: Sequence[NDArray[np.int64]]
) -> NDArray[np.float64]:
    """Return Spearman's correlation of two models' answers within each query, -1 to 1, `(queries,)`.

    It is 1 where both give all candidates of a query one number, and 0 where only one of them does.

    Args:
        answers, reference: `(examples,)`.
        groups: of `candidates_by_query`.
    """
    return np.array([_rank_correlation(answers[own], reference[own]) for own in groups])


def _rank_correlation(answers: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    if np.ptp(answers) == 0 and np.ptp(reference) == 0:
        return 1.0
    return correlation("spearman", answers, reference)
