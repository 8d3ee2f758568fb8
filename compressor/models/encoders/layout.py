"""What the program asks of a model family: an `EncoderLayout` for each, and the parts that it speaks in.

An encoder layer is a block. Shapes of linear layers are PyTorch's: a weight is `(out_features, in_features)`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from compressor.models.encoders.keys import Config, Key
from compressor.models.transformers_versions import mask_for_graph

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class LinearNames:
    """Names, within a block, of the linear layers that are pruned, in the order in which data flows.

    Attributes:
        query, key, value: rows are the dimensions of the heads, head after head. One name for all three is
            that of a fused layer: the rows of the query, then those of the key, then those of the value.
        attention_output: its columns are the dimensions of the heads.
        neurons_in: its rows are the neurons of the feed-forward part.
        neurons_out: its columns are the neurons.
        gated: whether a neuron is the activation of one row of `neurons_in` times another row (a gated linear
            unit): the rows of the activations, then those of the gates.
        apart: whether the value has inputs of its own, so that query and key are a group without it.
    """

    query: str
    key: str
    value: str
    attention_output: str
    neurons_in: str
    neurons_out: str
    gated: bool = False
    apart: bool = False

    @property
    def heads_in(self) -> tuple[str, ...]:
        """Query, key and value, each name once."""
        return tuple(dict.fromkeys((self.query, self.key, self.value)))

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The names again; those that share their input are together."""
        return (
            *([(self.query, self.key), (self.value,)] if self.apart else [self.heads_in]),
            (self.attention_output,),
            (self.neurons_in,),
            (self.neurons_out,),
        )

    @property
    def all(self) -> frozenset[str]:
        """All names."""
        return frozenset(name for group in self.groups for name in group)

    def parts(self, name: str) -> int:
        """Return how many rows of a layer belong to one dimension of a head, or to one neuron.

        The rows of a layer are so many parts of one size, one part after the other.
        """
        if name == self.neurons_in:
            return 2 if self.gated else 1
        return max(1, (self.query, self.key, self.value).count(name))


@dataclass(frozen=True)
class HeadLayer:
    """One linear layer between what `EncoderLayout.head_inputs` returns and the logits.

    Attributes:
        name: in the model.
        activation: applied to the layer's output, `(texts, out_features)`; None where there is none.
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

    def stored_config(self, content: dict[str, Any]) -> dict[str, Any]:
        """Return the content of a `config.json` with what all versions of transformers read of it.

        Args:
            content: as the version that runs writes it.
        """
        return content

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

    def is_pruned(self, name: str) -> bool:
        """Whether the module of that name in a classifier is one of the linear layers that are pruned."""
        place = self.place_of(name)
        return place is not None and place[1] in self.linears.all

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

    def called_like(self, model: PreTrainedModel, index: int) -> int:
        """Return the first block that a model calls with the same arguments as block `index`.

        Hidden states, which are those of each block itself, do not count. Most families call all alike.
        """
        return 0

    def further_inputs(
        self, block: nn.Module, name: str, named: Mapping[str, Any], tokens: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """Return what a block multiplies with the weight of a linear layer besides the hidden states.

        None, as in most families, where there is nothing else.

        Args:
            name: of the linear layer within the block.
            named: what the model calls the block with, by name.
            tokens: `(batch, sequence)` bool, True for real tokens.

        Returns:
            `(rows, in)`, and `(rows,)`, how much each of them counts if each token counts 1; these sum up to
            the number of tokens.
        """
        return None

    def head_inputs(self, model: PreTrainedModel, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Return what a classifier's head makes its logits of.

        Args:
            hidden: `(batch, sequence, hidden)`, what the last block puts out.
            tokens: `(batch, sequence)` bool, True for real tokens.

        Returns:
            `(batch, hidden)`, in most families those of the first token.
        """
        return hidden[:, 0]

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

    def graph_mask(self, mask: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the mask that a classifier is called with in an exported graph.

        Args:
            mask: of the graph's inputs, `(batch, sequence)` int64, 1 at tokens.
            dtype: of the model's arithmetic.
        """
        return mask_for_graph(mask, dtype)

    @abstractmethod
    def head(self, model: PreTrainedModel) -> tuple[HeadLayer, ...]:
        """Return the linear layers between `head_inputs` and the logits, in order."""

    @abstractmethod
    def activation(self, block: nn.Module) -> Callable[[Tensor], Tensor]:
        """Return the activation function of a block's neurons."""

    def constant_neurons(self, block: nn.Module) -> tuple[Tensor, Tensor]:
        """Find a block's neurons whose value is the same for each token.

        Returns:
            `(neurons,)` bool, and `(neurons,)`, the value of those.
        """
        import torch

        names = self.linears
        inner = cast("nn.Linear", block.get_submodule(names.neurons_in))
        rows = inner.weight.detach().chunk(names.parts(names.neurons_in))
        bias = torch.zeros_like(inner.weight[:, 0]) if inner.bias is None else inner.bias
        constant, given = [(part == 0).all(dim=1) for part in rows], bias.detach().chunk(len(rows))
        values = [self.activation(block)(given[0]), *given[1:]]
        # A product is constant where all its factors are, and where one is 0.
        found = torch.stack(constant).all(dim=0)
        for own, value in zip(constant, values, strict=True):
            found |= own & (value == 0)
        return found, torch.stack(values).prod(dim=0)

    def head_rows(self, block: nn.Module) -> tuple[str, ...]:
        """Return the names of all linear layers of a block whose rows are the dimensions of its heads."""
        return self.linears.heads_in

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
