"""Families whose blocks have BERT's modules, under prefixes and with heads of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from compressor.models.encoders.keys import (
    SHARED_KEYS,
    TRAINING,
    Key,
    activation_problem,
    positive_problem,
    refused,
    share_problem,
)
from compressor.models.encoders.layout import LinearNames
from compressor.models.encoders.transformers_layout import TransformersLayout

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

# What becomes of the keys that all of these families have, besides those of their shape.
BLOCK_KEYS: dict[str, Key] = {
    "hidden_act": Key(
        "checked", "each activation of transformers can be pruned and exported", activation_problem
    ),
    "layer_norm_eps": Key("checked", "is part of the layer normalization", positive_problem),
    "position_embedding_type": refused(
        "such positions cannot be exported; only a model with absolute ones can be used", "absolute"
    ),
    **SHARED_KEYS,
    "hidden_dropout_prob": Key("checked", TRAINING, share_problem),
    "attention_probs_dropout_prob": Key("checked", TRAINING, share_problem),
    "classifier_dropout": Key("checked", TRAINING, share_problem),
    "initializer_range": Key("checked", TRAINING, positive_problem),
}


class BertBlocks(TransformersLayout):
    """What the layouts of these families have in common."""

    linears = LinearNames(
        query="attention.self.query",
        key="attention.self.key",
        value="attention.self.value",
        attention_output="attention.output.dense",
        neurons_in="intermediate.dense",
        neurons_out="output.dense",
    )
    attention = "attention.self"
    neurons_key = "intermediate_size"

    def matrix_title(self, name: str) -> str:
        return name.removeprefix("attention.self.").removesuffix(".dense").replace(".", " ")

    def blocks(self, model: PreTrainedModel) -> nn.ModuleList:
        return cast("nn.ModuleList", model.base_model.encoder.layer)

    def activation(self, block: nn.Module) -> Callable[[Tensor], Tensor]:
        return cast("Callable[[Tensor], Tensor]", cast("Any", block).intermediate.intermediate_act_fn)

    def set_head_count(self, block: nn.Module, count: int) -> None:
        own = cast("Any", block).attention.self
        own.num_attention_heads, own.all_head_size = count, count * own.attention_head_size

    def scores_by_content(self, block: nn.Module) -> bool:
        own = cast("Any", block).attention.self
        return bool(getattr(own, "position_embedding_type", "absolute") == "absolute")
