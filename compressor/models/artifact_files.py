"""Names of an exported artifact's files and output; for commands that load no model as well."""

from __future__ import annotations

ARTIFACT_GRAPH = "model.onnx"
ARTIFACT_CONFIG = "config.json"
OUTPUT = "logits"
EXPORT_AGAIN = "export it again with: compress export"
