"""Accuracy of a predictor, and how far a classifier is above a constant answer."""

from __future__ import annotations

import numpy as np

from compressor.data.texts import TextData
from compressor.models.predictors import Predictor, predict
from compressor.system.console import Progress


def measure_accuracy(
    predictor: Predictor, data: TextData, max_length: int, progress: Progress, name: str
) -> float:
    """Share of the texts that get their label."""
    logits = predict(predictor, data, max_length, progress=progress, description=f"Accuracy of {name}")
    return float((logits.argmax(axis=1) == np.array(data.class_labels)).mean())
