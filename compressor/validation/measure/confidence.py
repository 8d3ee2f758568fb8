"""Measure the calibration of a classifier."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BINS = 15


def expected_calibration_error(
    probabilities: NDArray[np.float64], labels: Sequence[int], bins: int = BINS
) -> float:
    """Return the mean gap of confidence and accuracy over equal bins (Guo et al., ICML 2017, eq. 3).

    Args:
        probabilities: `(examples, labels)` float64; rows sum to 1.
        labels: class indices, `(examples,)`.
        bins: number of bins of confidence, `(0, 1/bins], ..., ((bins - 1)/bins, 1]`.

    Returns:
        A share, 0 to 1; 0 if in each bin as many answers are right as their confidence says.

    Raises:
        ValueError: no examples, or not as many labels.
    """
    if not len(labels) or len(labels) != len(probabilities):
        raise ValueError(f"{len(probabilities)} rows of probabilities for {len(labels)} labels")
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == np.asarray(labels)
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    # A bin's share of the examples cancels its mean's denominator: sums are enough.
    gaps = np.bincount(places, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))
