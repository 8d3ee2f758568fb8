"""Families whose blocks have BERT's modules, under prefixes and with heads of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from compressor.models.encoders.keys import (
    ACTIVATION,
    DROPOUT,
    INITIALIZER_RANGE,
    NORM_EPSILON,
    SHARED_KEYS,
    Key,
    refused,
)
from compressor.models.encoders.layout import LinearNames
from compressor.models.encoders.transformers_layout import TransformersLayout

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

# What becomes of the keys that all of these families have, besides those of their shape.
BLOCK_KEYS: dict[str, Key] = {
    "hidden_act": ACTIVATION,
    "layer_norm_eps": NORM_EPSILON,
    "position_embedding_type": refused(
        "such positions cannot be exported; only a model with absolute ones can be used", "absolute"
    ),
    **SHARED_KEYS,
    "hidden_dropout_prob": DROPOUT,
    "attention_probs_dropout_prob": DROPOUT,
    "classifier_dropout": DROPOUT,
    "initializer_range": INITIALIZER_RANGE,
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
        own = cast("Any", block.get_submodule(self.attention))
        own.num_attention_heads, own.all_head_size = count, count * own.attention_head_size

    def scores_by_content(self, block: nn.Module) -> bool:
        own = cast("Any", block).attention.self
        return bool(getattr(own, "position_embedding_type", "absolute") == "absolute")
