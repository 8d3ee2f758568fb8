"""DeBERTa v2 and v3 (He et al., ICLR 2021 and 2023): scores of attention have parts for relative positions.

A score is the product of a query and a key, of the query and a key of the distance, and of the key and a
query of the distance (section 3.1 of the first paper). With `share_att_key`, as in public models, the
matrices that make queries and keys of tokens make those of distances too. So query and key are solved for
both kinds of rows: the tokens, and the embeddings of the distances between them. Each pair of tokens reads
one row of either kind, so that of a text with n tokens an embedding counts as many n-ths as pairs have its
distance. Solved for tokens alone, the scores of distances would drift unseen. The value never sees distances
and is a group of its own: with their rows, its bias would not keep the mean of its outputs.

Without `share_att_key`, distances have matrices of their own. They lose rows with the heads, and are not
pruned: an exported graph has what they make of the embeddings, which is the same for each text.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from compressor.models.encoders.bert_blocks import BertBlocks
from compressor.models.encoders.inputs import IDS, MASK
from compressor.models.encoders.keys import (
    ACTIVATION,
    DROPOUT,
    INITIALIZER_RANGE,
    NORM_EPSILON,
    SHARED_KEYS,
    Config,
    Key,
    choice_problem,
    flag_problem,
    refused,
    size_problem,
)
from compressor.models.encoders.layout import HeadLayer, LinearNames
from compressor.models.encoders.shape_keys import Shape
from compressor.options import shown

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel

# Where a configuration does not have a key; those of DebertaV2Config.
SIZES = {
    "vocab_size": 128100,
    "hidden_size": 1536,
    "num_hidden_layers": 24,
    "num_attention_heads": 24,
    "intermediate_size": 6144,
    "max_position_embeddings": 512,
}
# A key of the distance for a query, and a query of the distance for a key.
KEY_OF_DISTANCE, QUERY_OF_DISTANCE = "c2p", "p2c"
# Linear layers that make them, in a model that has some for distances alone.
OF_DISTANCES = ("pos_key_proj", "pos_query_proj")
# Logarithmic buckets have a half for distances that are counted one by one.
FEWEST_BUCKETS = 4


def _kinds_problem(value: Any, config: Config) -> str | None:
    named = value.lower().replace(" ", "").split("|") if isinstance(value, str) else value or []
    known = {KEY_OF_DISTANCE, QUERY_OF_DISTANCE}
    if not isinstance(named, list) or not set(named) <= known:
        return f"{shown(value)} has other parts of a score than {' and '.join(sorted(known))}"
    if len(set(named)) == 1 and config.get("share_att_key"):
        return f"{shown(value)}: query and key are solved together, and one of them alone would see distances"
    return None


def _range_problem(value: Any, _: Config) -> str | None:
    """A range of distances; not above 0 where there is none of its own."""
    if isinstance(value, int) and not isinstance(value, bool):
        return None
    return f"{shown(value)} is no whole number"


def _buckets_problem(value: Any, config: Config) -> str | None:
    if problem := _range_problem(value, config):
        return problem
    return f"{value} is less than {FEWEST_BUCKETS} buckets" if 0 < value < FEWEST_BUCKETS else None


def _pooler_problem(value: Any, config: Config) -> str | None:
    width = config.get("hidden_size", SIZES["hidden_size"])
    return None if value in (None, width) else f"{shown(value)}: the pooler reads hidden states of {width}"


def _head_size_problem(value: Any, config: Config) -> str | None:
    width, heads = (config.get(key, SIZES[key]) for key in ("hidden_size", "num_attention_heads"))
    if size_problem(width, config) or size_problem(heads, config) or value in (None, width // heads):
        # A size that is wrong is named itself.
        return None
    return f"{shown(value)}: {heads} heads share out hidden_size {width}"


_CONVOLUTION = Key("harmless", "is of the convolution, which is refused")
# In this order their problems are named.
KEYS: dict[str, Key] = {
    **Shape(SIZES).keys,
    "embedding_size": Key("checked", "embeddings may be narrower", size_problem),
    "attention_head_size": Key("checked", "heads share out hidden_size", _head_size_problem),
    "type_vocab_size": refused(
        "segments would have embeddings, and this family's graphs have no input for them; only models "
        "without segments (0) can be used",
        0,
    ),
    "relative_attention": Key("checked", "whether scores have parts for distances", flag_problem),
    "share_att_key": Key("checked", "whether query and key make those of distances too", flag_problem),
    "pos_att_type": Key("checked", "the parts of a score for distances", _kinds_problem),
    "position_buckets": Key("checked", "distances have logarithmic buckets", _buckets_problem),
    "max_relative_positions": Key("checked", "the largest distance", _range_problem),
    "norm_rel_ebd": Key("checked", "embeddings of distances", choice_problem("none", "layer_norm")),
    "position_biased_input": Key("checked", "whether there are absolute positions too", flag_problem),
    "conv_kernel_size": refused(
        "a convolution beside the first layer, as of v2-xlarge and v2-xxlarge, is not reproduced by pruning; "
        "only models without one (0) can be used",
        0,
    ),
    "conv_act": _CONVOLUTION,
    "conv_groups": _CONVOLUTION,
    "hidden_act": ACTIVATION,
    "layer_norm_eps": NORM_EPSILON,
    "pooler_hidden_act": ACTIVATION,
    "pooler_hidden_size": Key("checked", "the pooler keeps the width", _pooler_problem),
    **SHARED_KEYS,
    "pooler_dropout": DROPOUT,
    "cls_dropout": DROPOUT,
    "hidden_dropout_prob": DROPOUT,
    "attention_probs_dropout_prob": DROPOUT,
    "initializer_range": INITIALIZER_RANGE,
    "legacy": Key("harmless", "is of masked language modelling, whose head is another one"),
}


class DebertaLayout(BertBlocks):
    """The layout of DeBERTa's classifiers, versions 2 and 3."""

    model_type = "deberta-v2"
    title = "DeBERTa v2/v3"
    class_prefix = "DebertaV2"
    classifier_name = "DebertaV2ForSequenceClassification"
    keys = KEYS
    sizes = SIZES
    inputs = (IDS, MASK)
    linears = LinearNames(
        query="attention.self.query_proj",
        key="attention.self.key_proj",
        value="attention.self.value_proj",
        attention_output="attention.output.dense",
        neurons_in="intermediate.dense",
        neurons_out="output.dense",
        apart=True,
    )
    base = "deberta"
    head_parts = ("pooler.", "classifier.")
    blocks_path = "deberta.encoder.layer"

    def matrix_title(self, name: str) -> str:
        return super().matrix_title(name).removesuffix("_proj")

    def further_inputs(
        self, block: nn.Module, name: str, named: Mapping[str, Any], tokens: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """Return the embeddings of distances, where a query's or a key's matrix makes theirs too.

        How much they count is the sum, over the texts, of the number of pairs of tokens that have the
        distance, divided by the number of tokens.
        """
        own = cast("Any", block.get_submodule(self.attention))
        is_shared = own.relative_attention and own.share_att_key and own.pos_att_type
        if not is_shared or name not in (self.linears.query, self.linears.key):
            return None
        span = own.pos_ebd_size
        rows: Tensor = named["rel_embeddings"][: 2 * span]
        places = (named["relative_pos"][0].long() + span).clamp(0, 2 * span - 1)
        real = tokens.double()
        pairs = (real / real.sum(dim=1, keepdim=True)).T @ real
        counts = real.new_zeros(2 * span).index_add(0, places.flatten(), pairs.flatten())
        return rows, counts

    def head_rows(self, block: nn.Module) -> tuple[str, ...]:
        own = block.get_submodule(self.attention)
        further = (f"{self.attention}.{name}" for name in OF_DISTANCES if hasattr(own, name))
        return (*super().head_rows(block), *further)

    def head(self, model: PreTrainedModel) -> tuple[HeadLayer, ...]:
        from transformers.activations import ACT2FN

        activation = ACT2FN[model.config.pooler_hidden_act]
        return (
            HeadLayer("pooler.dense", model.pooler.dense, activation),
            HeadLayer("classifier", model.classifier),
        )

    def scores_by_content(self, block: nn.Module) -> bool:
        return False

    def graph_mask(self, mask: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the mask as it is: embeddings are multiplied with it."""
        return mask

    def for_graph(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return a copy whose keys and queries of distances are constants, with buckets in a table.

        Projecting all embeddings for each text would take longer than a short text does, and logarithms of
        runtimes round otherwise where they are whole numbers.
        """
        import torch

        from compressor.models.encoders.deberta_graph import GraphAttention

        own = copy.deepcopy(model)
        encoder, dtype = cast("Any", own.base_model).encoder, own.dtype
        longest = self.longest_input(model.config.to_dict())
        with torch.no_grad():
            embeddings = encoder.get_rel_embedding()
            distances = encoder.get_rel_pos(torch.zeros(1, longest, 1))
            for block in self.blocks(own):
                attention = block.get_submodule(self.attention)
                # Where nothing is left of an attention, there is nothing of distances either.
                if hasattr(attention, "pos_att_type"):
                    makers = _makers(attention)
                    parts = 1 + len(set(cast("Any", attention).pos_att_type))
                    graph_attention = GraphAttention(attention, embeddings, makers, parts)
                    block.set_submodule(self.attention, graph_attention)
        if distances is not None:
            # From the farthest before a token to the farthest after it.
            table = torch.cat([distances[0, 0].flip(0), distances[0, 1:, 0]])
            span = len(embeddings) // 2
            encoder.get_rel_pos = _LookUp((table + span).clamp(0, 2 * span - 1), longest - 1)
        encoder.get_rel_embedding = _nothing
        encoder.get_attention_mask = _AddedMask(dtype)
        return own


def _makers(attention: nn.Module) -> tuple[nn.Linear | None, nn.Linear | None]:
    """The linear layers that make keys and queries of distances; None for what scores have no part of."""
    own = cast("Any", attention)
    names = ("key_proj", "query_proj") if own.share_att_key else OF_DISTANCES
    key, query = (
        getattr(own, name, None) if kind in own.pos_att_type else None
        for name, kind in zip(names, (KEY_OF_DISTANCE, QUERY_OF_DISTANCE), strict=True)
    )
    return key, query


def _nothing() -> None:
    """There are no embeddings of distances where what is made of them is constant."""


class _LookUp:
    """Where the embeddings of the distances between tokens are, from a table of all distances."""

    def __init__(self, table: Tensor, farthest: int) -> None:
        self._table, self._farthest = table, farthest

    def __call__(self, hidden: Tensor, *_: Any) -> Tensor:
        """Return `(sequence, sequence)` int64 for hidden states `(batch, sequence, hidden)`."""
        import torch

        places = torch.arange(hidden.shape[1], device=hidden.device)
        found: Tensor = self._table[places[:, None] - places[None, :] + self._farthest]
        return found


class _AddedMask:
    """A mask of padding that is added to scores."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def __call__(self, mask: Tensor) -> Tensor:
        """Return `(batch, 1, 1, sequence)` for a mask `(batch, sequence)`, 1 at tokens."""
        import torch

        return (1.0 - mask[:, None, None, :].to(self._dtype)) * torch.finfo(self._dtype).min


DEBERTA = DebertaLayout()
