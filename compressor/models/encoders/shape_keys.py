"""Keys of `config.json` that say of what shape a model's blocks are, and which of their parts are gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compressor.models.encoders.keys import (
    LAYER_NEURONS,
    REMOVED_HEADS,
    UNPADDED_NEURONS,
    Config,
    Key,
    size_problem,
)
from compressor.options import shown


@dataclass(frozen=True)
class Shape:
    """The sizes of a family's models, and what the family calls those of its blocks.

    Attributes:
        sizes: of each key that is a size of the model, what holds where a configuration does not have it.
        width, layers, heads, neurons: keys of the hidden states' width, of the number of blocks, and of the
            numbers of heads and neurons of each; all are among `sizes`.
    """

    sizes: Mapping[str, int]
    width: str = "hidden_size"
    layers: str = "num_hidden_layers"
    heads: str = "num_attention_heads"
    neurons: str = "intermediate_size"

    @property
    def keys(self) -> dict[str, Key]:
        """What becomes of each size, and of each key that says which heads and neurons a model lacks."""
        return {
            **{name: Key("checked", "a size of the model", size_problem) for name in self.sizes},
            self.heads: Key("checked", f"heads share out {self.width}", self._heads_problem),
            "pruned_heads": Key(
                "checked", "heads that are gone from the weights, by layer", self._pruned_heads_problem
            ),
            REMOVED_HEADS: Key(
                "checked", "heads that are zeros in the weights, by layer", self._pruned_heads_problem
            ),
            LAYER_NEURONS: Key(
                "checked",
                "neurons of each layer, where the weights differ in them",
                self._neuron_counts_problem,
            ),
            UNPADDED_NEURONS: Key(
                "checked",
                "neurons of each layer; those beyond are zeros in the weights",
                self._unpadded_neurons_problem,
            ),
        }

    def _size(self, config: Config, key: str) -> Any:
        return config.get(key, self.sizes[key])

    def _heads_problem(self, value: Any, config: Config) -> str | None:
        width = self._size(config, self.width)
        if problem := size_problem(value, config):
            return problem
        if size_problem(width, config) is None and width % value:
            return f"{value} heads do not share out {self.width} {width} evenly"
        return None

    def _pruned_heads_problem(self, value: Any, config: Config) -> str | None:
        layers, heads = (self._size(config, key) for key in (self.layers, self.heads))
        try:
            removed = {int(layer): [int(head) for head in gone] for layer, gone in (value or {}).items()}
        except (AttributeError, TypeError, ValueError):
            return f"{shown(value)} is no list of heads for each layer"
        for layer, gone in removed.items():
            if not 0 <= layer < layers or len(set(gone)) != len(gone) or not set(gone) < set(range(heads)):
                return (
                    f"layer {layer} without heads {gone}: the model has {layers} layers of {heads} heads, of "
                    f"which one at least must stay"
                )
        return None

    def _neuron_counts_problem(self, value: Any, config: Config) -> str | None:
        layers, widest = (self._size(config, key) for key in (self.layers, self.neurons))
        if value is None or size_problem(layers, config) or size_problem(widest, config):
            # A size that is wrong is named itself.
            return None
        if not isinstance(value, list) or any(size_problem(count, config) for count in value):
            return f"{shown(value)} is no list of whole numbers above 0"
        if len(value) != layers or max(value) > widest:
            return (
                f"{shown(value)} must have the neurons of each of {layers} layers, at most {widest} "
                f"({self.neurons})"
            )
        return None

    def _unpadded_neurons_problem(self, value: Any, config: Config) -> str | None:
        if value is not None and config.get(LAYER_NEURONS) is not None:
            return f"{shown(value)}: {LAYER_NEURONS} says that layers have no padding; remove one of the two"
        return self._neuron_counts_problem(value, config)
