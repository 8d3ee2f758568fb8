"""Taking attention heads and feed-forward neurons out of a model, so that it gets smaller.

In memory the configuration has what was done: `pruned_heads` by layer, and the number of neurons, which
`layer_neurons` has for each layer where they differ. Version 5 of transformers does not heed the first, and
no version the last. So in a checkpoint all layers are alike: heads that were taken out are zeros, and so are
neurons up to the number of the widest layer. It lists both under keys that transformers keeps and does not
read: every version loads a model with the same answers, and `cut_padded_layers` makes it small again.

A block that is gone as a whole keeps one head, or one neuron, with output weights of zero, in memory and on
disk. An export leaves it out (`exporters/shrink.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.errors import UserError
from compressor.models.encoders.keys import LAYER_NEURONS, REMOVED_HEADS, UNPADDED_NEURONS
from compressor.models.encoders.registry import layout_of, layout_of_type
from compressor.models.transformers_versions import takes_out_heads

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PRUNED_HEADS = "pruned_heads"


def linear_at(module: nn.Module, name: str) -> nn.Linear:
    """The linear layer of that name below `module`."""
    linear = module.get_submodule(name)
    if not isinstance(linear, nn.Linear):
        raise TypeError(f"{name} is a {type(linear).__name__}, not a linear layer")
    return linear


def head_size(model: PreTrainedModel) -> int:
    """Width of one attention head."""
    return int(model.config.hidden_size // model.config.num_attention_heads)


def remove_heads(model: PreTrainedModel, index: int, heads: Sequence[int]) -> None:
    """Take heads, numbered as the layer has them now, out of encoder layer `index`."""
    removed = _listed(model.config, PRUNED_HEADS)
    gone = removed.get(index, [])
    # Configurations number heads as the whole layer had them.
    present = _others(model, gone)
    _cut_heads(model, index, heads)
    model.config.pruned_heads = {**removed, index: sorted({*gone, *(present[head] for head in heads)})}


def remove_attention(model: PreTrainedModel, index: int) -> None:
    """Take away all that the attention of encoder layer `index` does: one head of zeros stays.

    The bias of its output layer stays as it is.
    """
    layout = layout_of(model)
    block, names = layout.blocks(model)[index], layout.linears
    remove_heads(model, index, range(1, layout.head_count(block)))
    _zero(block, layout.head_rows(block), names.attention_output)


def remove_feed_forward(model: PreTrainedModel, index: int) -> None:
    """Take away all that the feed-forward part of encoder layer `index` does: one neuron of zeros stays.

    The bias of its output layer stays as it is. As after `remove_neurons`, `set_neuron_count` makes the
    configuration fit.
    """
    layout = layout_of(model)
    block, names = layout.blocks(model)[index], layout.linears
    remove_neurons(model, index, range(1, linear_at(block, names.neurons_out).in_features))
    _zero(block, (names.neurons_in,), names.neurons_out)


@torch.no_grad()
def _zero(block: nn.Module, inner: Sequence[str], outer: str) -> None:
    """Set the linear layers `inner` of a block to zero, and of `outer` all but its bias."""
    for name in inner:
        for parameter in linear_at(block, name).parameters():
            parameter.zero_()
    linear_at(block, outer).weight.zero_()


def classifier_class(config: Any) -> type[PreTrainedModel]:
    """The class whose models lack the heads and neurons that are not in the weights of a configuration."""
    whole = layout_of_type(config.model_type).classifier_class()
    removed = {} if takes_out_heads(whole) else _listed(config, PRUNED_HEADS)
    counts = getattr(config, LAYER_NEURONS, None) or []
    if not removed and not counts:
        return whole

    class Narrowed(whole):  # type: ignore[misc, valid-type]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            for index, heads in removed.items():
                _cut_heads(self, index, heads)
            for index, count in enumerate(counts):
                _cut_neurons(self, index, range(count))

    return Narrowed


def with_padded_layers(model: PreTrainedModel) -> PreTrainedModel:
    """A copy whose layers are alike, for a checkpoint; what was taken out, or is narrower, is zeros.

    Its configuration lists what the zeros stand for. A model whose layers are alike is returned as it is.
    """
    removed = _listed(model.config, PRUNED_HEADS)
    counts = getattr(model.config, LAYER_NEURONS, None) or []
    if not any(removed.values()) and not counts:
        return model
    padded = copy.deepcopy(model)
    if any(removed.values()):
        for index, heads in removed.items():
            _add_zero_heads(padded, index, heads)
        padded.config.pruned_heads = {}
        setattr(padded.config, REMOVED_HEADS, removed)
    if counts:
        for index in range(len(counts)):
            _add_zero_neurons(padded, index)
        delattr(padded.config, LAYER_NEURONS)
        setattr(padded.config, UNPADDED_NEURONS, counts)
    return padded


def cut_padded_layers(model: PreTrainedModel) -> None:
    """Take the heads and neurons that a checkpoint lists as zeros out of a model that was loaded from it.

    Raises:
        UserError: such a head or neuron is not zero.
    """
    config = model.config
    listed = _listed(config, REMOVED_HEADS)
    for index, heads in listed.items():
        present = _others(model, _listed(config, PRUNED_HEADS).get(index, []))
        places = [present.index(head) for head in heads if head in present]
        _check_zero(model, index, places)
        remove_heads(model, index, places)
    if hasattr(config, REMOVED_HEADS):
        delattr(config, REMOVED_HEADS)
    counts = getattr(config, UNPADDED_NEURONS, None) or []
    for index, count in enumerate(counts):
        _check_zero_neurons(model, index, count)
        _cut_neurons(model, index, range(count))
    if counts:
        set_neuron_count(model)
    if hasattr(config, UNPADDED_NEURONS):
        delattr(config, UNPADDED_NEURONS)


def _check_zero_neurons(model: PreTrainedModel, index: int, count: int) -> None:
    """Raise a `UserError` if neurons after the first `count` take part in a layer's output."""
    layout = layout_of(model)
    outer = linear_at(layout.blocks(model)[index], layout.linears.neurons_out)
    if outer.weight[:, count:].count_nonzero():
        raise UserError(
            f"config.json: {UNPADDED_NEURONS}: layer {index} has weights that are not zero after the {count} "
            f"neurons that it lists; remove the key if the model was changed after it had been written"
        )


def _check_zero(model: PreTrainedModel, index: int, heads: Collection[int]) -> None:
    """Raise a `UserError` if heads, numbered as the layer has them now, take part in its output."""
    layout = layout_of(model)
    output = linear_at(layout.blocks(model)[index], layout.linears.attention_output)
    if output.weight[:, _rows(heads, head_size(model))].count_nonzero():
        raise UserError(
            f"config.json: {REMOVED_HEADS}: heads that it lists of layer {index} have weights that are not "
            f"zero; remove the key if the model was changed after these heads had been taken out"
        )


def _listed(config: Any, key: str) -> dict[int, list[int]]:
    """Heads that a configuration lists under a key, by layer; JSON has the layers' numbers as text."""
    listed = getattr(config, key, None) or {}
    return {int(index): list(heads) for index, heads in listed.items()}


def _others(model: PreTrainedModel, heads: Collection[int]) -> list[int]:
    """The heads of a whole layer without `heads`."""
    return [head for head in range(model.config.num_attention_heads) if head not in heads]


def _rows(heads: Collection[int], width: int) -> Tensor:
    """The dimensions of heads of that width."""
    return torch.tensor([head * width + row for head in heads for row in range(width)], dtype=torch.long)


def in_parts(rows: Tensor, parts: int, size: int) -> Tensor:
    """Return where some rows are in each part of a fused layer of `parts` parts and `size` rows in all."""
    starts = torch.arange(0, size, size // parts)
    return (starts[:, None] + rows).flatten()


def _cut_heads(model: PreTrainedModel, index: int, heads: Collection[int]) -> None:
    """Cut heads, numbered as the layer has them now, out of its matrices."""
    from transformers.pytorch_utils import prune_linear_layer

    layout = layout_of(model)
    block, names = layout.blocks(model)[index], layout.linears
    kept = [head for head in range(layout.head_count(block)) if head not in heads]
    rows = _rows(kept, head_size(model))
    for name in layout.head_rows(block):
        linear = linear_at(block, name)
        own = in_parts(rows, names.parts(name), linear.out_features)
        block.set_submodule(name, prune_linear_layer(linear, own))
    output = linear_at(block, names.attention_output)
    block.set_submodule(names.attention_output, prune_linear_layer(output, rows, dim=1))
    layout.keep_heads(block, kept)


def _add_zero_heads(model: PreTrainedModel, index: int, heads: Collection[int]) -> None:
    """Give a layer back its heads, numbered as the whole layer had them, with weights of zero."""
    layout = layout_of(model)
    block, names, count = layout.blocks(model)[index], layout.linears, model.config.num_attention_heads
    rows, size = _rows(_others(model, heads), head_size(model)), count * head_size(model)
    for name in layout.head_rows(block):
        parts = names.parts(name)
        own = in_parts(rows, parts, parts * size)
        block.set_submodule(name, _spread(linear_at(block, name), own, parts * size, dim=0))
    output = linear_at(block, names.attention_output)
    block.set_submodule(names.attention_output, _spread(output, rows, size, dim=1))
    layout.set_head_count(block, count)


def _spread(linear: nn.Linear, places: Tensor, size: int, dim: int) -> nn.Linear:
    """A linear layer with `size` outputs (`dim` 0) or inputs (1): `linear`'s at `places`, zeros elsewhere."""

    def spread(values: Tensor) -> Tensor:
        shape = [*values.shape]
        shape[dim] = size
        return values.new_zeros(shape).index_copy(dim, places.to(values.device), values)

    weight = spread(linear.weight.detach())
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=linear.bias is not None, device="meta")
    made.weight = nn.Parameter(weight)
    if linear.bias is not None:
        bias = linear.bias.detach()
        made.bias = nn.Parameter(spread(bias) if dim == 0 else bias.clone())
    return made


def _add_zero_neurons(model: PreTrainedModel, index: int) -> None:
    """Give a layer as many neurons as its configuration has, with weights of zero."""
    layout = layout_of(model)
    block, names, size = (
        layout.blocks(model)[index],
        layout.linears,
        getattr(model.config, layout.neurons_key),
    )
    inner, outer = linear_at(block, names.neurons_in), linear_at(block, names.neurons_out)
    places, parts = torch.arange(outer.in_features), names.parts(names.neurons_in)
    own = in_parts(places, parts, parts * size)
    block.set_submodule(names.neurons_in, _spread(inner, own, parts * size, dim=0))
    block.set_submodule(names.neurons_out, _spread(outer, places, size, dim=1))


def remove_neurons(model: PreTrainedModel, index: int, neurons: Sequence[int]) -> None:
    """Take feed-forward neurons out of encoder layer `index`.

    Once all layers have lost theirs, `set_neuron_count` makes the configuration fit.
    """
    layout, gone = layout_of(model), set(neurons)
    outer = linear_at(layout.blocks(model)[index], layout.linears.neurons_out)
    _cut_neurons(model, index, [n for n in range(outer.in_features) if n not in gone])


def _cut_neurons(model: PreTrainedModel, index: int, kept: Sequence[int]) -> None:
    """Cut all neurons but some out of a layer's matrices."""
    from transformers.pytorch_utils import prune_linear_layer

    layout = layout_of(model)
    block, names, places = layout.blocks(model)[index], layout.linears, torch.tensor(kept, dtype=torch.long)
    inner, outer = linear_at(block, names.neurons_in), linear_at(block, names.neurons_out)
    own = in_parts(places, names.parts(names.neurons_in), inner.out_features)
    block.set_submodule(names.neurons_in, prune_linear_layer(inner, own))
    block.set_submodule(names.neurons_out, prune_linear_layer(outer, places, dim=1))


def set_neuron_count(model: PreTrainedModel) -> None:
    """Make the configuration tell how many neurons the feed-forward parts have now.

    It has the number of the widest, and where layers differ that of each.
    """
    layout, config = layout_of(model), model.config
    name = layout.linears.neurons_out
    counts = [linear_at(block, name).in_features for block in layout.blocks(model)]
    setattr(config, layout.neurons_key, max(counts))
    if len(set(counts)) > 1:
        setattr(config, LAYER_NEURONS, counts)
    elif hasattr(config, LAYER_NEURONS):
        delattr(config, LAYER_NEURONS)
