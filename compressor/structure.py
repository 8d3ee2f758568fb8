"""Taking attention heads and feed-forward neurons out of a BERT model, so that it gets smaller.

Hugging Face's own configuration keeps what was done: `pruned_heads` by layer and one
`intermediate_size`, so that a smaller model loads wherever a whole one does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import BertForSequenceClassification


def head_size(model: BertForSequenceClassification) -> int:
    """Width of one attention head."""
    return int(model.config.hidden_size // model.config.num_attention_heads)


def remove_heads(model: BertForSequenceClassification, index: int, heads: Sequence[int]) -> None:
    """Take heads, numbered as the layer has them now, out of encoder layer `index`."""
    attention = model.bert.encoder.layer[index].attention
    # Hugging Face numbers heads as the whole layer had them.
    gone = attention.pruned_heads
    present = [head for head in range(model.config.num_attention_heads) if head not in gone]
    model.prune_heads({index: [present[head] for head in heads]})


def remove_neurons(model: BertForSequenceClassification, index: int, neurons: Sequence[int]) -> None:
    """Take feed-forward neurons out of encoder layer `index`.

    Once all layers have lost as many, `set_intermediate_size` makes the configuration fit.
    """
    from transformers.pytorch_utils import prune_linear_layer

    layer = model.bert.encoder.layer[index]
    gone = set(neurons)
    kept = torch.tensor([n for n in range(layer.intermediate.dense.out_features) if n not in gone])
    layer.intermediate.dense = prune_linear_layer(layer.intermediate.dense, kept)
    layer.output.dense = prune_linear_layer(layer.output.dense, kept, dim=1)


def set_intermediate_size(model: BertForSequenceClassification) -> None:
    """Make the configuration tell the width that all feed-forward parts have now.

    Raises:
        RuntimeError: the layers differ; a configuration has one number (a bug).
    """
    widths = {layer.intermediate.dense.out_features for layer in model.bert.encoder.layer}
    if len(widths) != 1:
        raise RuntimeError(f"feed-forward parts differ in their width: {sorted(widths)}")
    model.config.intermediate_size = widths.pop()
