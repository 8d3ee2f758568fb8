"""BERT (Devlin et al., NAACL 2019): post-norm blocks, absolute positions, a pooler before the classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.models.encoders.bert_blocks import BLOCK_KEYS, BertBlocks
from compressor.models.encoders.inputs import INPUTS
from compressor.models.encoders.keys import Key, refused
from compressor.models.encoders.layout import HeadLayer
from compressor.models.encoders.shape_keys import Shape

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Where a configuration does not have a key; those of BertConfig.
SIZES = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
# In this order their problems are named.
KEYS: dict[str, Key] = {
    **Shape(SIZES).keys,
    "embedding_size": refused("BERT's embeddings have hidden_size; this key is of another model"),
    **BLOCK_KEYS,
}


class BertLayout(BertBlocks):
    """The layout of BERT's classifiers."""

    model_type = "bert"
    title = "BERT"
    class_prefix = "Bert"
    classifier_name = "BertForSequenceClassification"
    keys = KEYS
    sizes = SIZES
    inputs = INPUTS
    base = "bert"
    head_parts = ("classifier.", "bert.pooler.")
    blocks_path = "bert.encoder.layer"

    def head(self, model: PreTrainedModel) -> tuple[HeadLayer, ...]:
        pooler = model.base_model.pooler
        return (
            HeadLayer("bert.pooler.dense", pooler.dense, pooler.activation),
            HeadLayer("classifier", model.classifier),
        )


BERT = BertLayout()
