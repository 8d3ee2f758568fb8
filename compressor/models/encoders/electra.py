"""ELECTRA (Clark et al., ICLR 2020): BERT's blocks on embeddings that may be narrower; no pooler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.models.encoders.bert_blocks import BLOCK_KEYS, BertBlocks
from compressor.models.encoders.inputs import INPUTS
from compressor.models.encoders.keys import Key
from compressor.models.encoders.layout import HeadLayer
from compressor.models.encoders.shape_keys import Shape
from compressor.models.encoders.transformers_layout import dense_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Where a configuration does not have a key; those of ElectraConfig.
SIZES = {
    "vocab_size": 30522,
    "embedding_size": 128,
    "hidden_size": 256,
    "num_hidden_layers": 12,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
_MULTIPLE_CHOICE = Key("harmless", "is of multiple choice, whose head is another one")
# In this order their problems are named.
KEYS: dict[str, Key] = {
    **Shape(SIZES).keys,
    **BLOCK_KEYS,
    "summary_type": _MULTIPLE_CHOICE,
    "summary_use_proj": _MULTIPLE_CHOICE,
    "summary_activation": _MULTIPLE_CHOICE,
    "summary_last_dropout": _MULTIPLE_CHOICE,
}


class ElectraLayout(BertBlocks):
    """The layout of ELECTRA's classifiers."""

    model_type = "electra"
    title = "ELECTRA"
    class_prefix = "Electra"
    classifier_name = "ElectraForSequenceClassification"
    keys = KEYS
    sizes = SIZES
    inputs = INPUTS
    base = "electra"
    encoder_parts = ("embeddings.", "embeddings_project.", "encoder.")
    blocks_path = "electra.encoder.layer"

    def head(self, model: PreTrainedModel) -> tuple[HeadLayer, ...]:
        return dense_head(model, model.classifier.activation)


ELECTRA = ElectraLayout()
