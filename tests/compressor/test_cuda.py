"""Pruning, training and answering on a GPU; the rest of it is beside what it is about."""

import numpy as np
import pytest
import torch

from compressor.models.accuracy import measure_accuracy
from compressor.models.classifier import encoder_linears, load_classifier
from compressor.models.predictors import OnnxPredictor, TorchPredictor, predict
from compressor.options import (
    AdaptiveConfig,
    ColumnsConfig,
    FinetuneConfig,
    PruneConfig,
    RandomizedConfig,
    RunConfig,
)
from compressor.pruning.interface import PruningJob, prune_classifier
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from compressor.training.finetune_stage import finetune_directory

pytestmark = pytest.mark.cuda
LENGTH = 48
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("algorithm", ["adaptive", "randomized", "magnitude"])
def test_pruned_classifiers_are_as_accurate(algorithm, small_classifier_dir, quotes, test_quotes):
    config = PruneConfig(
        algorithm=algorithm,
        calibration_examples=64,
        adaptive=AdaptiveConfig(iterations=10),
        randomized=RandomizedConfig(candidates=2, early_steps=2, recovery_steps=20),
    )
    job = PruningJob(config, LENGTH, 0)
    accuracies = []
    for device in (CPU, CUDA):
        classifier = load_classifier(str(small_classifier_dir), device)
        result = prune_classifier(classifier, quotes, job, SilentProgress())
        for name, linear in encoder_linears(classifier.model).items():
            assert linear.weight.device.type == device.type
            assert torch.equal(linear.weight.cpu() == 0, ~result.masks[name].cpu())
        predictor = TorchPredictor(classifier)
        accuracies.append(measure_accuracy(predictor, test_quotes, LENGTH, SilentProgress(), ""))
    assert accuracies[1] == pytest.approx(accuracies[0], abs=0.05)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("adversarial_steps", [0, 2])
def test_fine_tuning_learns(precision, adversarial_steps, small_encoder_dir, critic_quotes, tmp_path):
    finetune_directory(
        str(small_encoder_dir),
        str(critic_quotes / "train.tsv"),
        FinetuneConfig(
            epochs=1,
            learning_rate=3e-4,
            precision=precision,
            adversarial_steps=adversarial_steps,
            adversarial_start=0.3,
        ),
        Context(
            output=tmp_path / "model",
            columns=ColumnsConfig(max_length=LENGTH),
            run=RunConfig(device="cuda"),
            progress=SilentProgress(),
        ),
    )
    classifier = load_classifier(str(tmp_path / "model"), CUDA)
    assert next(classifier.model.parameters()).dtype == torch.float32


def test_logits_are_those_of_the_cpu(small_classifier_dir, test_quotes):
    one, other = (
        predict(TorchPredictor(load_classifier(str(small_classifier_dir), device)), test_quotes, LENGTH)
        for device in (CPU, CUDA)
    )
    assert np.abs(one - other).max() < 1e-2


@pytest.mark.onnxruntime_cuda
def test_an_artifact_answers_on_cuda_as_on_the_cpu(small_artifact_dir, test_quotes):
    one, other = (
        predict(OnnxPredictor(small_artifact_dir, 1, device), test_quotes, LENGTH)
        for device in ("cpu", "cuda")
    )
    assert np.abs(one - other).max() < 1e-2
