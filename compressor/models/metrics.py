"""Metrics of a model's answers: those of GLUE's tasks, for classes and for numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compressor.errors import UserError
from compressor.options import ClassMetricName, CorrelationName, RankingName, TaskName

CORRELATIONS: frozenset[str] = frozenset(get_args(CorrelationName))
CLASS_METRICS: frozenset[str] = frozenset(get_args(ClassMetricName))
RANKINGS: frozenset[str] = frozenset(get_args(RankingName))


def check_metric(option: str, metric: str, task: TaskName) -> None:
    """Raise a `UserError` if a metric is not of that task.

    Args:
        option: key of the metric, such as `task_metric`.
        metric: a `MetricName`; another name, such as `loss`, is of any task.
    """
    of_numbers = CORRELATIONS | RANKINGS
    wrong, right = (CLASS_METRICS, of_numbers) if task == "regression" else (of_numbers, CLASS_METRICS)
    if metric in wrong:
        answers = "numbers and not classes" if task == "regression" else "classes and not numbers"
        raise UserError(
            f"{option} {metric}: the model answers with {answers}; take {' or '.join(sorted(right))}"
        )


def measure_task(
    metric: ClassMetricName | CorrelationName, logits: NDArray[np.float32], targets: Sequence[float]
) -> float:
    """The value of any metric of single examples, higher is better.

    Args:
        logits: `(examples, labels)` float32; of a regression `(examples, 1)`.
        targets: class indices, or a regression's numbers, `(examples,)`.
    """
    if metric == "pearson" or metric == "spearman":
        return correlation(metric, logits[:, 0], targets)
    answers = logits.argmax(axis=1)
    return measure(metric, answers, [int(target) for target in targets], classes=logits.shape[1])


def measure(
    metric: ClassMetricName,
    answers: Sequence[int] | NDArray[np.int64],
    labels: Sequence[int],
    weights: Sequence[int] | None = None,
    *,
    classes: int | None = None,
) -> float:
    """The value of a metric of classes, higher is better.

    accuracy: share of right answers. f1: of class 1 where there are two, as GLUE has it for MRPC and QQP;
    the mean over the classes that occur otherwise. matthews: Matthews correlation (CoLA), 0 where a constant
    answer or constant labels leave it undefined.

    Args:
        answers, labels: class indices, `(examples,)`.
        weights: how often each example counts, above 0, `(examples,)`; once if not given.
        classes: how many the model has, also where some do not occur; if not given, as many as occur.
    """
    # Imports of scikit-learn take a second, which most commands need not pay.
    from sklearn import metrics

    if metric == "accuracy":
        return float(metrics.accuracy_score(labels, answers, sample_weight=weights))
    if metric == "matthews":
        if len({*answers, *labels}) < 2:
            return 0.0
        return float(metrics.matthews_corrcoef(labels, answers, sample_weight=weights))
    average = "binary" if (classes or max(*answers, *labels) + 1) <= 2 else "macro"
    score = metrics.f1_score(labels, answers, average=average, sample_weight=weights, zero_division=0)
    return float(score)


def correlation(metric: CorrelationName, answers: ArrayLike, targets: ArrayLike) -> float:
    """The correlation of a regression's answers with its targets (STS-B), -1 to 1.

    pearson: of the numbers; spearman: of their ranks, equal numbers sharing a rank. 0 where constant
    answers or targets leave it undefined.

    Args:
        answers, targets: numbers, `(examples,)`.
    """
    from scipy.stats import rankdata

    pair = [np.asarray(values, dtype=np.float64) for values in (answers, targets)]
    if metric == "spearman":
        pair = [rankdata(values) for values in pair]
    if any(np.ptp(values) == 0 for values in pair):
        return 0.0
    one, other = (values - values.mean() for values in pair)
    return float(np.clip(one @ other / np.sqrt((one @ one) * (other @ other)), -1, 1))
