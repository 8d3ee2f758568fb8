"""Taking attention heads and feed-forward neurons out of a model, so that it gets smaller.

In memory the configuration has what was done: `pruned_heads` by layer, and the number of neurons. Version 5
of transformers does not heed `pruned_heads`. So a checkpoint has every head, those that were taken out as
zeros, and lists them under a key that transformers keeps and does not read: every version loads a model with
the same answers, and `cut_listed_heads` makes it small again. All versions heed the number of neurons.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.errors import UserError
from compressor.models.encoders.keys import REMOVED_HEADS
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


def classifier_class(config: Any) -> type[PreTrainedModel]:
    """The class whose models lack the heads that a configuration lists as taken out of the weights."""
    whole = layout_of_type(config.model_type).classifier_class()
    removed = _listed(config, PRUNED_HEADS)
    if not removed or takes_out_heads(whole):
        return whole

    class Narrowed(whole):  # type: ignore[misc, valid-type]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            for index, heads in removed.items():
                _cut_heads(self, index, heads)

    return Narrowed


def with_all_heads(model: PreTrainedModel) -> PreTrainedModel:
    """A copy with all the heads of its configuration, for a checkpoint; those that were taken out are zeros.

    Its configuration lists these. A model that has all its heads is returned as it is.
    """
    removed = _listed(model.config, PRUNED_HEADS)
    if not any(removed.values()):
        return model
    whole = copy.deepcopy(model)
    for index, heads in removed.items():
        _add_zero_heads(whole, index, heads)
    whole.config.pruned_heads = {}
    setattr(whole.config, REMOVED_HEADS, removed)
    return whole


def cut_listed_heads(model: PreTrainedModel) -> None:
    """Take the heads that a checkpoint lists, and has as zeros, out of a model that was loaded from it.

    Raises:
        UserError: such a head is not zero.
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


def _cut_heads(model: PreTrainedModel, index: int, heads: Collection[int]) -> None:
    """Cut heads, numbered as the layer has them now, out of its matrices."""
    from transformers.pytorch_utils import prune_linear_layer

    layout = layout_of(model)
    block, names = layout.blocks(model)[index], layout.linears
    kept = [head for head in range(layout.head_count(block)) if head not in heads]
    rows = _rows(kept, head_size(model))
    for name in (names.query, names.key, names.value):
        block.set_submodule(name, prune_linear_layer(linear_at(block, name), rows))
    output = linear_at(block, names.attention_output)
    block.set_submodule(names.attention_output, prune_linear_layer(output, rows, dim=1))
    layout.set_head_count(block, len(kept))


def _add_zero_heads(model: PreTrainedModel, index: int, heads: Collection[int]) -> None:
    """Give a layer back its heads, numbered as the whole layer had them, with weights of zero."""
    layout = layout_of(model)
    block, names, count = layout.blocks(model)[index], layout.linears, model.config.num_attention_heads
    rows, size = _rows(_others(model, heads), head_size(model)), count * head_size(model)
    for name in (names.query, names.key, names.value):
        block.set_submodule(name, _spread(linear_at(block, name), rows, size, dim=0))
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


def remove_neurons(model: PreTrainedModel, index: int, neurons: Sequence[int]) -> None:
    """Take feed-forward neurons out of encoder layer `index`.

    Once all layers have lost as many, `set_neuron_count` makes the configuration fit.
    """
    from transformers.pytorch_utils import prune_linear_layer

    layout = layout_of(model)
    block, names, gone = layout.blocks(model)[index], layout.linears, set(neurons)
    inner, outer = linear_at(block, names.neurons_in), linear_at(block, names.neurons_out)
    kept = torch.tensor([n for n in range(inner.out_features) if n not in gone])
    block.set_submodule(names.neurons_in, prune_linear_layer(inner, kept))
    block.set_submodule(names.neurons_out, prune_linear_layer(outer, kept, dim=1))


def set_neuron_count(model: PreTrainedModel) -> None:
    """Make the configuration tell how many neurons all feed-forward parts have now.

    Raises:
        RuntimeError: the layers differ; a configuration has one number (a bug).
    """
    layout = layout_of(model)
    name = layout.linears.neurons_in
    widths = {linear_at(block, name).out_features for block in layout.blocks(model)}
    if len(widths) != 1:
        raise RuntimeError(f"feed-forward parts differ in their width: {sorted(widths)}")
    setattr(model.config, layout.neurons_key, widths.pop())
