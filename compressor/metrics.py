"""Metrics of a classifier's answers: those of GLUE's classification tasks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compressor.options import MetricName


def measure(
    metric: MetricName,
    answers: Sequence[int] | NDArray[np.int64],
    labels: Sequence[int],
    weights: Sequence[int] | None = None,
) -> float:
    """The value of a metric, higher is better.

    accuracy: share of right answers. f1: of class 1 where there are two, as GLUE has it for MRPC and QQP;
    the mean over classes otherwise. matthews: Matthews correlation (CoLA), 0 where a constant answer or
    constant labels leave it undefined.

    Args:
        answers, labels: class indices, `(examples,)`.
        weights: how often each example counts, above 0, `(examples,)`; once if not given.
    """
    # Imports of scikit-learn take a second, which most commands need not pay.
    from sklearn import metrics

    if metric == "accuracy":
        return float(metrics.accuracy_score(labels, answers, sample_weight=weights))
    if metric == "matthews":
        if len({*answers, *labels}) < 2:
            return 0.0
        return float(metrics.matthews_corrcoef(labels, answers, sample_weight=weights))
    average = "binary" if max(*answers, *labels) <= 1 else "macro"
    score = metrics.f1_score(labels, answers, average=average, sample_weight=weights, zero_division=0)
    return float(score)
