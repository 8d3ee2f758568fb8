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
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from compressor.models.classifier import Classifier
from compressor.models.encoders.layout import EncoderLayout
from compressor.models.encoders.registry import layout_of
from compressor.models.structure import linear_at
from compressor.models.transformers_versions import attention_inputs

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LayerWidths:
    """What an encoder layer has of heads and dimensions.

    Attributes:
        heads: 0 where the attention has no effect.
        score_width: dimensions of a head's query and key.
        value_width: dimensions of a head's value.
        neurons: 0 where the feed-forward part has no effect.
    """

    heads: int
    score_width: int
    value_width: int
    neurons: int


@dataclass(frozen=True)
class AttentionNames:
    """Names of the parts of a self-attention module.

    Attributes:
        query, key, value: of linear layers.
        output: of the linear layer that takes the outputs of the heads; None where it is not in the module.
        heads: of the attribute that tells their number.
    """

    query: str
    key: str
    value: str
    output: str | None
    heads: str


class _SelfAttention(nn.Module):
    """Stands for a family's self-attention: takes and returns what the encoder layer of Hugging Face expects.

    Args:
        query, key, value: linear layers, which get the names that the family has for them.
    """

    def __init__(
        self, names: AttentionNames, query: nn.Linear, key: nn.Linear, value: nn.Linear, heads: int
    ) -> None:
        super().__init__()
        self.add_module(names.query, query)
        self.add_module(names.key, key)
        self.add_module(names.value, value)
        self.names = names
        setattr(self, names.heads, heads)

    def projected(self, outputs: Tensor) -> Tensor:
        """Apply the output layer to the outputs of the heads, `(batch, tokens, width)`, if it is here."""
        output = self.names.output
        found: Tensor = outputs if output is None else self.get_submodule(output)(outputs)
        return found


class NarrowSelfAttention(_SelfAttention):
    """Self-attention whose queries and keys may have another width than its values.

    Args:
        scale: what scores are divided by; that of the whole head, whatever is left of it.
    """

    def __init__(
        self,
        names: AttentionNames,
        query: nn.Linear,
        key: nn.Linear,
        value: nn.Linear,
        *,
        heads: int,
        scale: float,
    ) -> None:
        super().__init__(names, query, key, value, heads)
        self.head_count, self.scale = heads, scale

    def forward(self, *given: Any, **named: Any) -> tuple[Tensor, Tensor]:
        hidden_states, attention_mask = attention_inputs(*given, **named)
        query, key, value = (
            self.get_submodule(name)(hidden_states).unflatten(-1, (self.head_count, -1)).transpose(1, 2)
            for name in (self.names.query, self.names.key, self.names.value)
        )
        scores = query @ key.transpose(-1, -2) / self.scale
        if attention_mask is not None:
            scores = scores + attention_mask
        probabilities = scores.softmax(dim=-1)
        return self.projected((probabilities @ value).transpose(1, 2).flatten(2)), probabilities


class _Weightless(nn.Linear):
    """A linear layer whose weight has no elements."""

    def reset_parameters(self) -> None:
        """Draw nothing: PyTorch warns of a weight without elements."""


class NoFeatures(_Weightless):
    """A linear layer without outputs: tensors `(..., in_features)` become `(..., 0)`."""

    def __init__(self, in_features: int) -> None:
        super().__init__(in_features, 0)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs[..., :0]


class BiasAlone(_Weightless):
    """A linear layer without inputs: its output is its bias `(out_features,)`, the same for each token."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__(0, len(bias), dtype=bias.dtype)
        self.bias = nn.Parameter(bias.detach().clone())

    def forward(self, _: Tensor) -> Tensor:
        return self.bias


class NoAttention(_SelfAttention):
    """Self-attention without heads: hidden states `(batch, tokens, width)` become `(batch, tokens, 0)`.

    There are no probabilities among what it returns.
    """

    def __init__(self, names: AttentionNames, width: int) -> None:
        super().__init__(names, NoFeatures(width), NoFeatures(width), NoFeatures(width), 0)

    def forward(self, *given: Any, **named: Any) -> tuple[Tensor, None]:
        hidden_states, _ = attention_inputs(*given, **named)
        return self.projected(hidden_states[..., :0]), None


def shrink(classifier: Classifier) -> Classifier:
    """A copy of a classifier (eager attention) without the neurons and dimensions that have no effect."""
    model = copy.deepcopy(classifier.model)
    layout = classifier.layout
    for block in layout.blocks(model):
        _shrink_feed_forward(layout, block)
        alive = _absorb_values(layout, block)
        if not alive.any():
            _remove_attention(layout, block)
        elif layout.scores_by_content(block):
            _shrink_attention(layout, block, alive)
    return Classifier(model, classifier.tokenizer, classifier.source)


def layer_widths(model: PreTrainedModel) -> list[LayerWidths]:
    """Heads and dimensions of each encoder layer, of a whole model or a shrunk one."""
    layout, found = layout_of(model), []
    for block in layout.blocks(model):
        heads = layout.head_count(block)
        names = layout.linears
        score_width, value_width = (
            linear_at(block, name).out_features // names.parts(name) // max(1, heads)
            for name in (names.query, names.value)
        )
        neurons = linear_at(block, names.neurons_out).in_features
        found.append(LayerWidths(heads, score_width, value_width, neurons))
    return found


def _shrink_feed_forward(layout: EncoderLayout, block: nn.Module) -> None:
    names = layout.linears
    inner, outer = linear_at(block, names.neurons_in), linear_at(block, names.neurons_out)
    constant, values = layout.constant_neurons(block)
    _absorb(outer, constant, values)
    kept = ~constant & ~_zero_rows(outer.weight.T)
    if kept.any():
        block.set_submodule(names.neurons_in, _rows(inner, kept.repeat(names.parts(names.neurons_in))))
        block.set_submodule(names.neurons_out, _columns(outer, kept))
    else:
        block.set_submodule(names.neurons_in, NoFeatures(inner.in_features))
        block.set_submodule(names.neurons_out, BiasAlone(_bias_of(outer)))


def _absorb_values(layout: EncoderLayout, block: nn.Module) -> Tensor:
    """Put values that are the same at each token into the output's bias; return which others have an effect.

    Returns:
        `(heads, width)` bool.
    """
    value, outer = (
        linear_at(block, name) for name in (layout.linears.value, layout.linears.attention_output)
    )
    # Attention weights sum to 1, so a value that is the same at each token comes out as it is.
    parts = layout.linears.parts(layout.linears.value)
    weight, bias = value.weight.chunk(parts)[-1], _bias_of(value).chunk(parts)[-1]
    constant = _zero_rows(weight)
    _absorb(outer, constant, bias)
    return (~constant & ~_zero_rows(outer.weight.T)).reshape(layout.head_count(block), -1)


def _remove_attention(layout: EncoderLayout, block: nn.Module) -> None:
    query, outer = (
        linear_at(block, name) for name in (layout.linears.query, layout.linears.attention_output)
    )
    block.set_submodule(layout.attention, NoAttention(_attention_names(layout), query.in_features))
    block.set_submodule(layout.linears.attention_output, BiasAlone(_bias_of(outer)))


def _shrink_attention(layout: EncoderLayout, block: nn.Module, values: Tensor) -> None:
    """Cut out the heads and dimensions without effect; one head at least has some.

    Args:
        values: dimensions of values that have an effect, `(heads, width)` bool.
    """
    names = layout.linears
    query, key, value, outer = (
        linear_at(block, name) for name in (names.query, names.key, names.value, names.attention_output)
    )
    heads, width = values.shape
    alive = values.any(dim=1)
    # A key that is the same at each token moves all scores of a query alike: the softmax does not see it.
    silent_query = _zero_rows(query.weight) & (_bias_of(query) == 0)
    scores = (~silent_query & ~_zero_rows(key.weight)).reshape(heads, width)
    kept_scores, kept_values = _level(scores, alive), _level(values, alive)
    if bool(kept_scores.all()) and bool(kept_values.all()):
        return
    narrow = NarrowSelfAttention(
        _attention_names(layout),
        _rows(query, kept_scores),
        _rows(key, kept_scores),
        _rows(value, kept_values),
        heads=int(alive.sum()),
        scale=math.sqrt(width),
    )
    block.set_submodule(layout.attention, narrow)
    block.set_submodule(names.attention_output, _columns(outer, kept_values))


def _attention_names(layout: EncoderLayout) -> AttentionNames:
    """Return the names of a family's self-attention."""
    names = layout.linears
    query, key, value, output = (
        layout.attention_part(name) for name in (names.query, names.key, names.value, names.attention_output)
    )
    return AttentionNames(str(query), str(key), str(value), output, layout.heads_attribute)


def _zero_rows(weight: Tensor) -> Tensor:
    return (weight == 0).all(dim=1)


def _level(needed: Tensor, alive: Tensor) -> Tensor:
    """Which dimensions stay, flat, so that all living heads keep as many: what the fullest one needs.

    Args:
        needed: `(heads, width)` bool.
        alive: `(heads,)` bool, not all False.
    """
    count = max(1, int(needed[alive].sum(dim=1).max()))
    order = needed.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    kept = torch.zeros_like(needed).scatter(1, order[:, :count], True)
    return (kept & alive[:, None]).flatten()


def _absorb(linear: nn.Linear, constant: Tensor, values: Tensor) -> None:
    """Add to a layer's bias what its constant inputs give, and let it take nothing more from them.

    A layer without a bias gets one where they give something.
    """
    with torch.no_grad():
        given = linear.weight[:, constant] @ values[constant]
        bias = cast("Tensor | None", linear.bias)
        if bias is not None:
            bias.add_(given)
        elif given.any():
            linear.bias = nn.Parameter(given)
        linear.weight[:, constant] = 0


def _bias_of(linear: nn.Linear) -> Tensor:
    """The bias `(out,)` of a layer; zeros where it has none."""
    return torch.zeros_like(linear.weight[:, 0]) if linear.bias is None else linear.bias.detach()


def _rows(linear: nn.Linear, kept: Tensor) -> nn.Linear:
    return _linear(linear.weight[kept], None if linear.bias is None else linear.bias[kept])


def _columns(linear: nn.Linear, kept: Tensor) -> nn.Linear:
    return _linear(linear.weight[:, kept], linear.bias)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().clone())
    return linear
