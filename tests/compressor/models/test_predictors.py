"""Where a session runs."""

import math

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

from compressor.attacks.victims import Victim
from compressor.errors import UserError
from compressor.models.artifact_files import ARTIFACT_GRAPH
from compressor.models.classifier import load_classifier
from compressor.models.predictors import OnnxPredictor, TorchPredictor, check_finite, predict


def test_each_process_has_its_session_on_its_own_gpu(tmp_path, monkeypatch):
    (tmp_path / ARTIFACT_GRAPH).touch()
    asked = []

    def session(graph, options, *, providers, provider_options):
        asked.append((providers, provider_options))
        raise RuntimeError("no GPU here")

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    for device in ("cuda", "cpu"):
        with pytest.raises(UserError, match="cannot be loaded by ONNX Runtime: no GPU here"):
            OnnxPredictor(tmp_path, 1, device)
    assert asked == [(["CUDAExecutionProvider"], [{"device_id": 3}]), (["CPUExecutionProvider"], [{}])]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_name_no_class_are_refused(value):
    logits = np.zeros((3, 2), dtype=np.float32)
    check_finite(logits, "model")
    logits[1, 0] = value
    with pytest.raises(UserError, match="model: its logits are NaN or infinite on 1 of 3 texts"):
        check_finite(logits, "model")


def test_weights_that_overflow_are_named_by_every_reading_of_a_model(writable_copy, test_quotes):
    path = writable_copy / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("intermediate.dense.bias"))
    weights[name].fill_(3e38)
    save_file(weights, path, metadata={"format": "pt"})
    predictor = TorchPredictor(load_classifier(str(writable_copy)))
    with pytest.raises(UserError, match="its logits are NaN or infinite on 4 of 4 texts"):
        predict(predictor, test_quotes.select(range(4)), 32)
    with pytest.raises(UserError, match="its logits are NaN or infinite on 1 of 1 texts"):
        Victim(predictor, 32)(["a text"])
