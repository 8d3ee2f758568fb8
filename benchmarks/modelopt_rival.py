"""NVIDIA Model Optimizer's SparseGPT as a rival; not a dependency: `pip install nvidia-modelopt`."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from compressor.data.texts import TextData
from compressor.models.batching import encode
from compressor.models.classifier import Classifier
from compressor.pruning.interface import PruningJob
from compressor.pruning.layerwise import CALIBRATION_BATCH_SIZE
from compressor.pruning.walk import calibration_batches


def is_installed() -> bool:
    """Whether the rival can be run here."""
    return importlib.util.find_spec("modelopt") is not None


def prune_with_modelopt(classifier: Classifier, data: TextData, job: PruningJob) -> None:
    """Zero 2:4 in the encoder's linear layers, with the rival's defaults, on the job's calibration texts.

    Padding enters its statistics, as in its own examples; batches are sorted by length, which keeps
    that small.
    """
    import modelopt.torch.sparsity as sparsity

    encoded = encode(
        classifier.tokenizer, data.sample(job.config.calibration_examples, job.seed), job.max_length
    )
    pad_token_id = int(classifier.tokenizer.pad_token_id)
    batches = calibration_batches(encoded, CALIBRATION_BATCH_SIZE, pad_token_id, classifier.device)

    def forward_loop(model: torch.nn.Module) -> None:
        for batch in batches:
            model(**batch)

    rules: dict[str, Any] = {"nn.Linear": {"*": None, "bert.encoder.*": {}}}
    config = {"forward_loop": forward_loop, "verbose": False}
    sparsity.sparsify(classifier.model, [("sparsegpt", rules)], config)
    classifier.model = sparsity.export(classifier.model)
