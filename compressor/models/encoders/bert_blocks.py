"""Families whose blocks have BERT's modules, under prefixes and with heads of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from compressor.models.encoders.inputs import SEGMENTS
from compressor.models.encoders.keys import (
    SHARED_KEYS,
    TRAINING,
    Config,
    Key,
    activation_problem,
    positive_problem,
    refused,
    share_problem,
)
from compressor.models.encoders.layout import EncoderLayout, LinearNames

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedModel

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


class BertBlocks(EncoderLayout):
    """What the layouts of these families have in common.

    Attributes:
        class_prefix: what the names of the family's classes in transformers begin with.
        base: name of the encoder in a classifier.
        head_parts: what the names in a classifier of all weights begin with that an encoder may lack.
    """

    class_prefix: str
    base: str
    head_parts: tuple[str, ...] = ("classifier.",)
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

    def _class(self, suffix: str) -> Any:
        import transformers

        return getattr(transformers, f"{self.class_prefix}{suffix}")

    def config_of(self, content: dict[str, Any]) -> PretrainedConfig:
        found: PretrainedConfig = self._class("Config").from_dict(content)
        return found

    def classifier_class(self) -> type[PreTrainedModel]:
        found: type[PreTrainedModel] = self._class("ForSequenceClassification")
        return found

    def encoder_class(self) -> type[PreTrainedModel]:
        found: type[PreTrainedModel] = self._class("Model")
        return found

    def longest_input(self, config: Config) -> int:
        return self.size(config, "max_position_embeddings")

    def segments(self, config: Config) -> int:
        return self.size(config, "type_vocab_size") if SEGMENTS in self.inputs else 1

    def matrix_title(self, name: str) -> str:
        return name.removeprefix("attention.self.").removesuffix(".dense").replace(".", " ")

    def is_head_weight(self, name: str) -> bool:
        return name.startswith(self.head_parts)

    def is_own_weight(self, name: str) -> bool:
        within = [part.removeprefix(f"{self.base}.") for part in self.head_parts]
        parts = tuple(f".{part}" for part in ("encoder.", "embeddings.", *within))
        return f".{name}".replace(f".{self.base}.", ".").startswith(parts) and (
            # Transformers once stored the numbers of positions and segments too.
            not name.endswith(("position_ids", SEGMENTS))
        )

    def blocks(self, model: PreTrainedModel) -> nn.ModuleList:
        return cast("nn.ModuleList", model.base_model.encoder.layer)

    def embeddings(self, model: PreTrainedModel) -> nn.Module:
        return cast("nn.Module", model.base_model.embeddings)

    def activation(self, block: nn.Module) -> Callable[[Tensor], Tensor]:
        return cast("Callable[[Tensor], Tensor]", cast("Any", block).intermediate.intermediate_act_fn)

    def head_count(self, block: nn.Module) -> int:
        return int(cast("Any", block).attention.self.num_attention_heads)

    def set_head_count(self, block: nn.Module, count: int) -> None:
        own = cast("Any", block).attention.self
        own.num_attention_heads, own.all_head_size = count, count * own.attention_head_size

    def scores_by_content(self, block: nn.Module) -> bool:
        own = cast("Any", block).attention.self
        return bool(getattr(own, "position_embedding_type", "absolute") == "absolute")
