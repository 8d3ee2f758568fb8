"""Taking attention heads and feed-forward neurons out of a model, so that it gets smaller.

Hugging Face's own configuration keeps what was done: `pruned_heads` by layer and one
number of neurons, so that a smaller model loads with transformers 4 wherever a whole one does.
Transformers 5 keeps `pruned_heads` but does not heed it: `classifier_class` does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from compressor.models.encoders.registry import layout_of, layout_of_type

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
    removed = _removed_heads(model.config)
    # Hugging Face numbers heads as the whole layer had them.
    gone = removed.get(index, [])
    present = [head for head in range(model.config.num_attention_heads) if head not in gone]
    _cut_heads(model, index, heads)
    model.config.pruned_heads = {**removed, index: sorted({*gone, *(present[head] for head in heads)})}


def classifier_class(config: Any) -> type[PreTrainedModel]:
    """The class whose models lack the heads that a configuration lists as taken out."""
    whole = layout_of_type(config.model_type).classifier_class()
    removed = _removed_heads(config)
    # Where it has this method, transformers takes them out itself.
    if not removed or hasattr(whole, "prune_heads"):
        return whole

    class Narrowed(whole):  # type: ignore[misc, valid-type]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            for index, heads in removed.items():
                _cut_heads(self, index, heads)

    return Narrowed


def _removed_heads(config: Any) -> dict[int, list[int]]:
    """Heads that a configuration lists as taken out, by layer; JSON has the layers' numbers as text."""
    listed = getattr(config, "pruned_heads", None) or {}
    return {int(index): list(heads) for index, heads in listed.items()}


def _cut_heads(model: PreTrainedModel, index: int, heads: Collection[int]) -> None:
    """Cut heads, numbered as the layer has them now, out of its matrices."""
    from transformers.pytorch_utils import prune_linear_layer

    layout = layout_of(model)
    block, names, width = layout.blocks(model)[index], layout.linears, head_size(model)
    kept = [head for head in range(layout.head_count(block)) if head not in heads]
    rows = torch.tensor([head * width + row for head in kept for row in range(width)], dtype=torch.long)
    for name in (names.query, names.key, names.value):
        block.set_submodule(name, prune_linear_layer(linear_at(block, name), rows))
    output = linear_at(block, names.attention_output)
    block.set_submodule(names.attention_output, prune_linear_layer(output, rows, dim=1))
    layout.set_head_count(block, len(kept))


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
