"""What the program asks of a model family: an `EncoderLayout` for each, and the parts that it speaks in.

An encoder layer is a block. Shapes of linear layers are PyTorch's: a weight is `(out_features, in_features)`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.models.encoders.keys import Config, Key

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class LinearNames:
    """Names, within a block, of the linear layers that are pruned, in the order in which data flows.

    Attributes:
        query, key, value: rows are the dimensions of the heads, head after head.
        attention_output: its columns are the dimensions of the heads.
        neurons_in: its rows are the neurons of the feed-forward part.
        neurons_out: its columns are the neurons.
    """

    query: str
    key: str
    value: str
    attention_output: str
    neurons_in: str
    neurons_out: str

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The names again; those that share their input are together."""
        return (
            (self.query, self.key, self.value),
            (self.attention_output,),
            (self.neurons_in,),
            (self.neurons_out,),
        )


@dataclass(frozen=True)
class HeadLayer:
    """One linear layer between the last hidden state of the first token and the logits.

    Attributes:
        name: in the model.
        activation: applied to the layer's output; None where there is none.
    """

    name: str
    linear: nn.Linear
    activation: Callable[[Tensor], Tensor] | None = None

    def output(self, inputs: Tensor) -> Tensor:
        """Compute `(texts, out_features)` of inputs `(texts, in_features)`, without dropout."""
        found: Tensor = self.linear(inputs)
        return found if self.activation is None else self.activation(found)


class EncoderLayout(ABC):
    """Describes how the models of one family are built; all else asks it and names no family's parts.

    Attributes:
        model_type: value of that key of `config.json`.
        title: the family's name in messages.
        classifier_name: name of the class of its text classifiers, as `architectures` has it.
        keys: what becomes of each key of its `config.json`.
        sizes: default of each size of its `config.json`.
        inputs: names of a classifier's inputs, in the order of an exported graph's.
        linears: names of a block's linear layers.
        attention: name, within a block, of the module that turns hidden states into the outputs of the heads
            side by side; `linears.query`, `linears.key` and `linears.value` are in it. If
            `linears.attention_output` is too, what that makes of them.
        heads_attribute: name, within that module, of the number of heads.
        neurons_key: the key of `config.json` that has the number of neurons.
        blocks_path: where the blocks are in a classifier.
    """

    model_type: str
    title: str
    classifier_name: str
    keys: Mapping[str, Key]
    sizes: Mapping[str, int]
    inputs: tuple[str, ...]
    linears: LinearNames
    attention: str
    heads_attribute: str = "num_attention_heads"
    neurons_key: str
    blocks_path: str

    # Classes and configuration ------------------------------------------------------------------

    @abstractmethod
    def config_of(self, content: dict[str, Any]) -> PretrainedConfig:
        """Make the configuration of the content of a `config.json`."""

    @abstractmethod
    def classifier_class(self) -> type[PreTrainedModel]:
        """Import the class of the family's text classifiers."""

    @abstractmethod
    def encoder_class(self) -> type[PreTrainedModel]:
        """Import the class of the family's encoders without a head."""

    @abstractmethod
    def longest_input(self, config: Config) -> int:
        """Return the most tokens that a model takes, by the content of its `config.json`."""

    @abstractmethod
    def segments(self, config: Config) -> int:
        """Return the number of segments that a model tells apart, by the content of its `config.json`."""

    def padding_id(self, config: Config) -> int | None:
        """Return the only token id that a model takes for padding, by the content of its `config.json`.

        None where padding may have any id: it is masked.
        """
        return None

    def size(self, config: Config, key: str) -> int:
        """Return one of the `sizes` as the content of a `config.json` has it, or the family's default."""
        found: int = config.get(key, self.sizes[key])
        return found

    # Names --------------------------------------------------------------------------------------

    def block_prefix(self, index: int) -> str:
        """Return what the names in a classifier begin with of all that is in block `index`."""
        return f"{self.blocks_path}.{index}."

    def group_names(self, index: int) -> list[tuple[str, ...]]:
        """Return the names in a classifier of the groups of block `index`, in the order of `linears`."""
        prefix = self.block_prefix(index)
        return [tuple(prefix + name for name in group) for group in self.linears.groups]

    def groups(self, model: PreTrainedModel) -> list[tuple[int, tuple[str, ...]]]:
        """Return all groups of a classifier, each with the index of its block, in the order of the data."""
        return [
            (index, names) for index in range(len(self.blocks(model))) for names in self.group_names(index)
        ]

    def attention_part(self, name: str) -> str | None:
        """Return the name within the module `attention` of a part of a block; None where it is not in it."""
        inside = f"{self.attention}."
        return name.removeprefix(inside) if name.startswith(inside) else None

    def place_of(self, name: str) -> tuple[int, str] | None:
        """Split the name of a module or weight into its block's index and its name within the block.

        None where it is in no block. The name may be that in a classifier or in an encoder without a head.
        """
        within = self.blocks_path.partition(".")[2]
        found = re.search(rf"(?:^|\.){re.escape(within)}\.(\d+)\.(.+)", name)
        return None if found is None else (int(found[1]), found[2])

    @abstractmethod
    def matrix_title(self, name: str) -> str:
        """Return a short title, for tables, of the linear layer that has this name within a block."""

    @abstractmethod
    def is_head_weight(self, name: str) -> bool:
        """Whether a weight of that name is of pooler or classifier, which an encoder may lack."""

    @abstractmethod
    def is_own_weight(self, name: str) -> bool:
        """Whether a weight of that name is of encoder, pooler or classifier, and not of another head."""

    # Modules ------------------------------------------------------------------------------------

    @abstractmethod
    def blocks(self, model: PreTrainedModel) -> nn.ModuleList:
        """Return the blocks of a classifier or an encoder, in order."""

    @abstractmethod
    def embeddings(self, model: PreTrainedModel) -> nn.Module:
        """Return the module that makes the first hidden states of token ids."""

    def keep_words(self, model: PreTrainedModel, kept: Sequence[int], padding: int) -> None:
        """Take out of a classifier the word embeddings of all token ids but some, which are numbered anew.

        `vocab_size` of its configuration follows.

        Args:
            kept: old ids in the order of the new ones.
            padding: new id of padding.
        """
        import torch
        from torch import nn

        words = model.get_input_embeddings()
        weight = words.weight.detach()[torch.tensor(kept, device=words.weight.device)]
        fewer = nn.Embedding(len(kept), weight.shape[1], padding_idx=padding, device="meta")
        fewer.weight = nn.Parameter(weight)
        model.set_input_embeddings(fewer)
        model.config.vocab_size = len(kept)

    def for_graph(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return a classifier to trace for an exported graph: itself, or a copy that computes the same.

        A copy has operators that all runtimes compute alike.
        """
        return model

    def graph_arguments(self, model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute what a classifier is called with in an exported graph besides the graph's inputs.

        It is what the classifier itself would compute, where runtimes lack the operators that it uses.

        Args:
            inputs: of the graph by name, each `(batch, sequence)` int64.
        """
        return {}

    @abstractmethod
    def head(self, model: PreTrainedModel) -> tuple[HeadLayer, ...]:
        """Return the linear layers between the first token's last hidden state and the logits, in order."""

    @abstractmethod
    def activation(self, block: nn.Module) -> Callable[[Tensor], Tensor]:
        """Return the activation function of a block's neurons."""

    def head_count(self, block: nn.Module) -> int:
        """Return the number of attention heads that a block has now."""
        return int(getattr(block.get_submodule(self.attention), self.heads_attribute))

    def keep_heads(self, block: nn.Module, kept: Sequence[int]) -> None:
        """Tell a block, whose matrices have lost the others, which of the heads that it had are left.

        Args:
            kept: numbered as the block had them, ascending.
        """
        self.set_head_count(block, len(kept))

    @abstractmethod
    def set_head_count(self, block: nn.Module, count: int) -> None:
        """Tell a block how many heads its matrices have now."""

    @abstractmethod
    def scores_by_content(self, block: nn.Module) -> bool:
        """Whether attention scores are products of queries and keys and nothing more."""
