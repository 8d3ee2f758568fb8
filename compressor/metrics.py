"""Metrics of a classifier's answers: those of GLUE's classification tasks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compressor.options import MetricName


def measure(metric: MetricName, answers: Sequence[int] | NDArray[np.int64], labels: Sequence[int]) -> float:
    """The value of a metric, higher is better.

    accuracy: share of right answers. f1: of class 1 where there are two, as GLUE has it for MRPC and QQP;
    the mean over classes otherwise. matthews: Matthews correlation (CoLA), 0 where a constant answer or
    constant labels leave it undefined.

    Args:
        answers, labels: class indices, `(examples,)`.
    """
    # Imports of scikit-learn take a second, which most commands need not pay.
    from sklearn import metrics

    if metric == "accuracy":
        return float(metrics.accuracy_score(labels, answers))
    if metric == "matthews":
        if len({*answers, *labels}) < 2:
            return 0.0
        return float(metrics.matthews_corrcoef(labels, answers))
    average = "binary" if max(*answers, *labels) <= 1 else "macro"
    return float(metrics.f1_score(labels, answers, average=average, zero_division=0))
