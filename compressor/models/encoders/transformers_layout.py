"""Families whose classes are in transformers, with an encoder and a head beside it in each classifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from compressor.models.encoders.inputs import SEGMENTS
from compressor.models.encoders.keys import Config
from compressor.models.encoders.layout import EncoderLayout, HeadLayer
from compressor.models.encoders.positions import positions_after

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedModel


class TransformersLayout(EncoderLayout):
    """What the layouts of these families have in common.

    Attributes:
        class_prefix: what the names of the family's classes in transformers begin with.
        base: name of the encoder in a classifier.
        encoder_parts: what the names of an encoder's weights begin with, but for those that it may lack.
        head_parts: what the names in a classifier of all weights begin with that an encoder may lack.
    """

    class_prefix: str
    base: str
    encoder_parts: tuple[str, ...] = ("embeddings.", "encoder.")
    head_parts: tuple[str, ...] = ("classifier.",)

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
        return positions_after(self.size(config, "max_position_embeddings"), self.padding_id(config), config)

    def segments(self, config: Config) -> int:
        return self.size(config, "type_vocab_size") if SEGMENTS in self.inputs else 1

    def is_head_weight(self, name: str) -> bool:
        return name.startswith(self.head_parts)

    def is_own_weight(self, name: str) -> bool:
        within = [part.removeprefix(f"{self.base}.") for part in self.head_parts]
        parts = tuple(f".{part}" for part in (*self.encoder_parts, *within))
        return f".{name}".replace(f".{self.base}.", ".").startswith(parts) and (
            # Transformers once stored the numbers of positions and segments too.
            not name.endswith(("position_ids", SEGMENTS))
        )

    def embeddings(self, model: PreTrainedModel) -> nn.Module:
        return cast("nn.Module", model.base_model.embeddings)


def dense_head(model: PreTrainedModel, activation: Callable[[Tensor], Tensor]) -> tuple[HeadLayer, ...]:
    """Return the two linear layers of a head that reads the first token without a pooler, in order."""
    head = model.classifier
    return (
        HeadLayer("classifier.dense", head.dense, activation),
        HeadLayer("classifier.out_proj", head.out_proj),
    )
