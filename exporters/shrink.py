"""Cutting out what all-zero rows and columns left without effect: the graph gets smaller, its outputs stay.

What unstructured pruning zeroes can be a whole neuron, or a whole dimension of an attention head. What it
would have added is nothing, or a constant that goes into the next bias. A head or a layer may be left with
fewer dimensions than its neighbours, which no Hugging Face configuration can tell, so this is done
to a copy of the model that is only exported.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.models.classifier import Classifier

if TYPE_CHECKING:
    from transformers import BertForSequenceClassification


@dataclass(frozen=True)
class LayerWidths:
    """What an encoder layer has of heads and dimensions.

    Attributes:
        score_width: dimensions of a head's query and key.
        value_width: dimensions of a head's value.
    """

    heads: int
    score_width: int
    value_width: int
    neurons: int


class NarrowSelfAttention(nn.Module):
    """Self-attention whose queries and keys may have another width than its values.

    Takes and returns what the encoder layer of Hugging Face expects.

    Args:
        scale: what scores are divided by; that of the whole head, whatever is left of it.
    """

    def __init__(self, query: nn.Linear, key: nn.Linear, value: nn.Linear, heads: int, scale: float) -> None:
        super().__init__()
        self.query, self.key, self.value = query, key, value
        self.num_attention_heads, self.scale = heads, scale

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        query, key, value = (
            linear(hidden_states).unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) / self.scale
        if attention_mask is not None:
            scores = scores + attention_mask
        probabilities = scores.softmax(dim=-1)
        return (probabilities @ value).transpose(1, 2).flatten(2), probabilities


def shrink(classifier: Classifier) -> Classifier:
    """A copy of a classifier (eager attention) without the neurons and dimensions that have no effect."""
    model = copy.deepcopy(classifier.model)
    for layer in model.bert.encoder.layer:
        _shrink_feed_forward(layer)
        if getattr(layer.attention.self, "position_embedding_type", "absolute") == "absolute":
            _shrink_attention(layer)
    return Classifier(model, classifier.tokenizer, classifier.source)


def layer_widths(model: BertForSequenceClassification) -> list[LayerWidths]:
    """Heads and dimensions of each encoder layer, of a whole model or a shrunk one."""
    found = []
    for layer in model.bert.encoder.layer:
        attention: Any = layer.attention.self
        heads: int = attention.num_attention_heads
        found.append(
            LayerWidths(
                heads=heads,
                score_width=attention.query.out_features // heads,
                value_width=attention.value.out_features // heads,
                neurons=layer.intermediate.dense.out_features,
            )
        )
    return found


def _shrink_feed_forward(layer: Any) -> None:
    inner, outer = layer.intermediate.dense, layer.output.dense
    constant = _zero_rows(inner.weight)
    _absorb(outer, constant, layer.intermediate.intermediate_act_fn(inner.bias.detach()))
    kept = _at_least_one(~constant & ~_zero_rows(outer.weight.T))
    layer.intermediate.dense, layer.output.dense = _rows(inner, kept), _columns(outer, kept)


def _shrink_attention(layer: Any) -> None:
    attention, outer = layer.attention.self, layer.attention.output.dense
    heads: int = attention.num_attention_heads
    width = attention.query.out_features // heads
    # Attention weights sum to 1, so a value that is the same at each token comes out as it is.
    constant = _zero_rows(attention.value.weight)
    _absorb(outer, constant, attention.value.bias.detach())
    values = (~constant & ~_zero_rows(outer.weight.T)).reshape(heads, width)
    alive = _at_least_one(values.any(dim=1))
    # A key that is the same at each token moves all scores of a query alike: the softmax does not see it.
    silent_query = _zero_rows(attention.query.weight) & (attention.query.bias == 0)
    scores = (~silent_query & ~_zero_rows(attention.key.weight)).reshape(heads, width)
    kept_scores, kept_values = _level(scores, alive), _level(values, alive)
    if bool(kept_scores.all()) and bool(kept_values.all()):
        return
    layer.attention.self = NarrowSelfAttention(
        _rows(attention.query, kept_scores),
        _rows(attention.key, kept_scores),
        _rows(attention.value, kept_values),
        heads=int(alive.sum()),
        scale=math.sqrt(width),
    )
    layer.attention.output.dense = _columns(outer, kept_values)


def _zero_rows(weight: Tensor) -> Tensor:
    return (weight == 0).all(dim=1)


def _at_least_one(kept: Tensor) -> Tensor:
    """All dimensions may be without effect, but a matrix needs one."""
    if not kept.any():
        kept = kept.clone()
        kept[0] = True
    return kept


def _level(needed: Tensor, alive: Tensor) -> Tensor:
    """Which dimensions stay, flat, so that all living heads keep as many: what the fullest one needs.

    Args:
        needed: `(heads, width)` bool.
        alive: `(heads,)` bool.
    """
    count = max(1, int(needed[alive].sum(dim=1).max()))
    order = needed.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    kept = torch.zeros_like(needed).scatter(1, order[:, :count], True)
    return (kept & alive[:, None]).flatten()


def _absorb(linear: nn.Linear, constant: Tensor, values: Tensor) -> None:
    """Add to a layer's bias what its constant inputs give, and let it take nothing more from them."""
    with torch.no_grad():
        linear.bias.add_(linear.weight[:, constant] @ values[constant])
        linear.weight[:, constant] = 0


def _rows(linear: nn.Linear, kept: Tensor) -> nn.Linear:
    return _linear(linear.weight[kept], linear.bias[kept])


def _columns(linear: nn.Linear, kept: Tensor) -> nn.Linear:
    return _linear(linear.weight[:, kept], linear.bias)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight, linear.bias = (nn.Parameter(t.detach().clone()) for t in (weight, bias))
    return linear
