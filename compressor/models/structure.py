"""Taking attention heads and feed-forward neurons out of a BERT model, so that it gets smaller.

Hugging Face's own configuration keeps what was done: `pruned_heads` by layer and one
`intermediate_size`, so that a smaller model loads with transformers 4 wherever a whole one does.
Transformers 5 keeps `pruned_heads` but does not heed it: `classifier_class` does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import BertForSequenceClassification


def head_size(model: BertForSequenceClassification) -> int:
    """Width of one attention head."""
    return int(model.config.hidden_size // model.config.num_attention_heads)


def remove_heads(model: BertForSequenceClassification, index: int, heads: Sequence[int]) -> None:
    """Take heads, numbered as the layer has them now, out of encoder layer `index`."""
    removed = _removed_heads(model.config)
    # Hugging Face numbers heads as the whole layer had them.
    gone = removed.get(index, [])
    present = [head for head in range(model.config.num_attention_heads) if head not in gone]
    _cut_heads(model, index, heads)
    model.config.pruned_heads = {**removed, index: sorted({*gone, *(present[head] for head in heads)})}


def classifier_class(config: Any) -> type[BertForSequenceClassification]:
    """The class whose models lack the heads that a configuration lists as taken out."""
    from transformers import BertForSequenceClassification

    whole: type[BertForSequenceClassification] = BertForSequenceClassification
    removed = _removed_heads(config)
    # Where it has this method, transformers takes them out itself.
    if not removed or hasattr(whole, "prune_heads"):
        return whole

    class Narrowed(BertForSequenceClassification):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            for index, heads in removed.items():
                _cut_heads(self, index, heads)

    return Narrowed


def _removed_heads(config: Any) -> dict[int, list[int]]:
    """Heads that a configuration lists as taken out, by layer; JSON has the layers' numbers as text."""
    listed = getattr(config, "pruned_heads", None) or {}
    return {int(index): list(heads) for index, heads in listed.items()}


def _cut_heads(model: BertForSequenceClassification, index: int, heads: Collection[int]) -> None:
    """Cut heads, numbered as the layer has them now, out of its matrices."""
    from transformers.pytorch_utils import prune_linear_layer

    attention = model.bert.encoder.layer[index].attention
    own, width = attention.self, attention.self.attention_head_size
    kept = [head for head in range(own.num_attention_heads) if head not in heads]
    rows = torch.tensor([head * width + row for head in kept for row in range(width)], dtype=torch.long)
    own.query, own.key, own.value = (
        prune_linear_layer(linear, rows) for linear in (own.query, own.key, own.value)
    )
    attention.output.dense = prune_linear_layer(attention.output.dense, rows, dim=1)
    own.num_attention_heads, own.all_head_size = len(kept), len(rows)


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
