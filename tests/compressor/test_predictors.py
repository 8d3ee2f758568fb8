"""Where a session runs."""

import onnxruntime
import pytest
import torch

from compressor.errors import UserError
from compressor.predictors import ARTIFACT_GRAPH, OnnxPredictor


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
