"""Names of an exported artifact's files and output; for commands that load no model as well."""

from __future__ import annotations

ARTIFACT_GRAPH = "model.onnx"
ARTIFACT_CONFIG = "config.json"
# The graph in OpenVINO's own form and its weights, in artifacts for OpenVINO.
ARTIFACT_IR = "model.xml"
ARTIFACT_IR_WEIGHTS = "model.bin"
OUTPUT = "logits"
EXPORT_AGAIN = "export it again with: compress export"
