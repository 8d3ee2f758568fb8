"""Names of what texts become: inputs of a model and of an exported graph. Nothing here needs PyTorch."""

from __future__ import annotations

from typing import Any

IDS = "input_ids"
MASK = "attention_mask"
SEGMENTS = "token_type_ids"
# All inputs that texts give, in the order of a graph's.
INPUTS = (IDS, MASK, SEGMENTS)
# Options of a call of a tokenizer that returns segments, also where its models have none.
WITH_SEGMENTS: dict[str, Any] = {f"return_{SEGMENTS}": True}
