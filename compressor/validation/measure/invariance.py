"""Answers to texts alone on one thread, and in batches on all threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from compressor.models.batching import Encoded
from compressor.models.invariance import compare_in_batches, logits_alone
from compressor.models.predictors import Predictor
from compressor.system.environment import torch_threads
from compressor.validation.schema import InvarianceFigures


def invariance_figures(
    alone: Predictor, together: Predictor, encoded: Sequence[Encoded], seed: int
) -> InvarianceFigures:
    """Measure whether the answer to a text depends on its batch, on padding, or on the number of threads.

    Args:
        alone: answers one text at a time; a model in PyTorch is run on one thread for that.
        together: the same model, which answers batches.
        encoded: token ids and segment ids of each text.
        seed: of the batches.
    """
    with torch_threads(1):
        expected = logits_alone(alone, encoded)
    return InvarianceFigures(**asdict(compare_in_batches(expected, together, encoded, seed)))
