"""What makes an artifact answer otherwise than its export recorded."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx

GRAPH, TOKENIZER, REFERENCE = "model.onnx", "tokenizer.json", "reference.json"


def read_reference_json(artifact: Path) -> dict[str, Any]:
    return json.loads((artifact / REFERENCE).read_text(encoding="utf-8"))


def change_reference(artifact: Path, **changes: Any) -> None:
    """Write other entries of the file."""
    (artifact / REFERENCE).write_text(json.dumps(read_reference_json(artifact) | changes), encoding="utf-8")


def change_weights(artifact: Path) -> None:
    """Flip the highest bit of the exponent of one weight of the head: one byte of the graph."""
    path = artifact / GRAPH
    (head,) = (
        entry for entry in onnx.load(path).graph.initializer if entry.name.endswith("classifier.weight")
    )
    content = bytearray(path.read_bytes())
    content[content.index(head.raw_data) + np.dtype(np.float32).itemsize - 1] ^= 0x40
    path.write_bytes(content)


def switch_case(artifact: Path) -> None:
    """Let the tokenizer keep capitals, or lose them where it keeps them."""
    path = artifact / TOKENIZER
    content = json.loads(path.read_text(encoding="utf-8"))
    content["normalizer"]["lowercase"] = not content["normalizer"]["lowercase"]
    path.write_text(json.dumps(content), encoding="utf-8")


def change_answers(artifact: Path, difference: float, key: str = "logits") -> None:
    """Let the kernels of the exporting machine have given other logits, for the fourth text."""
    vectors = read_reference_json(artifact)["vectors"]
    vectors[3][key][0] += difference
    change_reference(artifact, vectors=vectors)
