"""Names of an exported artifact's files, inputs and output; for commands that load no model as well."""

from __future__ import annotations

ARTIFACT_GRAPH = "model.onnx"
ARTIFACT_CONFIG = "config.json"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "logits"
EXPORT_AGAIN = "export it again with: compress export"
