"""Pruning of a model that is in memory: no file is read or written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from compressor.data.texts import TextData
from compressor.models.classifier import Classifier, encoder_weights, sparsity_of
from compressor.options import PruneConfig
from compressor.pruning.interface import PruningJob, algorithm_named, prune_classifier
from compressor.pruning.record import LayerRecord
from compressor.system.console import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class PrunedModel:
    """A pruned model, and how it was pruned.

    Attributes:
        model: the pruned copy, in float32 and in evaluation mode.
        masks: for each encoder matrix a bool `(out, in)`, True where the weight may be non-zero; none where
            heads and neurons were taken out.
        layers: one record a linear layer.
        details: facts of the algorithm's own.
        sparsity: share of zeros in the encoder's matrices, from 0 to 1.
        seconds: that the algorithm took.
    """

    model: PreTrainedModel
    masks: dict[str, Tensor]
    layers: Sequence[LayerRecord]
    details: dict[str, Any]
    sparsity: float
    seconds: float


def prune_in_memory(
    classifier: Classifier,
    data: TextData,
    config: PruneConfig,
    max_length: int,
    seed: int,
    progress: Progress,
) -> PrunedModel:
    """Prune a classifier in place.

    Args:
        max_length: longest input, in tokens.
        seed: of everything that is drawn.

    Raises:
        UserError: options that contradict each other, or a pattern that does not fit the model.
    """
    algorithm = algorithm_named(config.algorithm)
    algorithm.check(config)
    words = algorithm.substitution_words(config, progress)
    job = PruningJob(config, max_length, seed, words=words)
    start = time.monotonic()
    result = prune_classifier(classifier, data, job, progress)
    return PrunedModel(
        model=classifier.model,
        masks=result.masks,
        layers=tuple(result.layers),
        details=result.details,
        sparsity=sparsity_of(encoder_weights(classifier.model)),
        seconds=time.monotonic() - start,
    )
