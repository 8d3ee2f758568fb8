"""DistilBERT (Sanh et al., 2019): blocks under names of their own, absolute positions, no segments."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from compressor.models.encoders.inputs import IDS, MASK
from compressor.models.encoders.keys import (
    ACTIVATION,
    DROPOUT,
    INITIALIZER_RANGE,
    SHARED_KEYS,
    Key,
    refused,
)
from compressor.models.encoders.layout import HeadLayer, LinearNames
from compressor.models.encoders.shape_keys import Shape
from compressor.models.encoders.transformers_layout import TransformersLayout

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

# Where a configuration does not have a key; those of DistilBertConfig.
SIZES = {
    "vocab_size": 30522,
    "dim": 768,
    "n_layers": 6,
    "n_heads": 12,
    "hidden_dim": 3072,
    "max_position_embeddings": 512,
}
SHAPE = Shape(SIZES, width="dim", layers="n_layers", heads="n_heads", neurons="hidden_dim")
# In this order their problems are named.
KEYS: dict[str, Key] = {
    **SHAPE.keys,
    # Transformers would take them for those of the shape.
    "hidden_size": refused("DistilBERT has it as dim"),
    "num_hidden_layers": refused("DistilBERT has it as n_layers"),
    "num_attention_heads": refused("DistilBERT has it as n_heads"),
    "activation": ACTIVATION,
    "sinusoidal_pos_embds": Key("harmless", "is of new weights; positions are read from the weights"),
    **SHARED_KEYS,
    "dropout": DROPOUT,
    "attention_dropout": DROPOUT,
    "seq_classif_dropout": DROPOUT,
    "qa_dropout": Key("harmless", "is of question answering"),
    "initializer_range": INITIALIZER_RANGE,
}


class DistilBertLayout(TransformersLayout):
    """The layout of DistilBERT's classifiers."""

    model_type = "distilbert"
    title = "DistilBERT"
    class_prefix = "DistilBert"
    classifier_name = "DistilBertForSequenceClassification"
    keys = KEYS
    sizes = SIZES
    inputs = (IDS, MASK)
    linears = LinearNames(
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_output="attention.out_lin",
        neurons_in="ffn.lin1",
        neurons_out="ffn.lin2",
    )
    attention = "attention"
    heads_attribute = "n_heads"
    neurons_key = "hidden_dim"
    base = "distilbert"
    encoder_parts = ("embeddings.", "transformer.")
    head_parts = ("pre_classifier.", "classifier.")
    blocks_path = "distilbert.transformer.layer"

    def matrix_title(self, name: str) -> str:
        return {
            "attention.q_lin": "query",
            "attention.k_lin": "key",
            "attention.v_lin": "value",
            "attention.out_lin": "attention output",
            "ffn.lin1": "intermediate",
            "ffn.lin2": "output",
        }[name]

    def blocks(self, model: PreTrainedModel) -> nn.ModuleList:
        return cast("nn.ModuleList", model.base_model.transformer.layer)

    def head(self, model: PreTrainedModel) -> tuple[HeadLayer, ...]:
        import torch

        return (
            HeadLayer("pre_classifier", model.pre_classifier, torch.relu),
            HeadLayer("classifier", model.classifier),
        )

    def activation(self, block: nn.Module) -> Callable[[Tensor], Tensor]:
        return cast("Callable[[Tensor], Tensor]", cast("Any", block).ffn.activation)

    def set_head_count(self, block: nn.Module, count: int) -> None:
        own = cast("Any", block).attention
        own.n_heads, own.dim = count, count * own.attention_head_size

    def scores_by_content(self, block: nn.Module) -> bool:
        return True


DISTILBERT = DistilBertLayout()
