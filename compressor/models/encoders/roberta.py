"""RoBERTa (Liu et al., 2019), XLM-RoBERTa (Conneau et al., ACL 2020) and CamemBERT (Martin et al., ACL 2020).

Blocks as BERT's. Positions are counted from the one after the padding's id, over the tokens that are not
padding; there are no segments in use; the head reads the first token without a pooler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compressor.models.encoders.bert_blocks import BLOCK_KEYS, BertBlocks
from compressor.models.encoders.inputs import IDS, MASK, SEGMENTS
from compressor.models.encoders.keys import Config, Key, padding_problem, refused
from compressor.models.encoders.layout import HeadLayer
from compressor.models.encoders.positions import count_positions, cut_positions
from compressor.models.encoders.shape_keys import Shape
from compressor.models.encoders.transformers_layout import dense_head

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

# Where a configuration does not have a key; those of RobertaConfig.
SIZES = {
    "vocab_size": 50265,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
OTHER_SIZES = {**SIZES, "vocab_size": 30522}
PADDING = 1
# In this order their problems are named.
KEYS: dict[str, Key] = {
    **Shape(SIZES).keys,
    "embedding_size": refused("RoBERTa's embeddings have hidden_size; this key is of another model"),
    **BLOCK_KEYS,
    "pad_token_id": Key("checked", "positions are counted from it", padding_problem),
}


class RobertaLayout(BertBlocks):
    """The layout of RoBERTa's classifiers, and of those that have its modules."""

    model_type = "roberta"
    title = "RoBERTa"
    class_prefix = "Roberta"
    classifier_name = "RobertaForSequenceClassification"
    keys = KEYS
    sizes = SIZES
    inputs = (IDS, MASK)
    base = "roberta"
    blocks_path = "roberta.encoder.layer"

    def padding_id(self, config: Config) -> int | None:
        found: int = config.get("pad_token_id", PADDING)
        return found

    def keep_words(self, model: PreTrainedModel, kept: Sequence[int], padding: int) -> None:
        super().keep_words(model, kept, padding)
        cut_positions(model, padding)

    def graph_arguments(self, model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the positions, and the segment of all tokens, which is the first."""
        ids = inputs[IDS]
        padding: Any = self.padding_id(model.config.to_dict())
        return {"position_ids": count_positions(ids, padding), SEGMENTS: ids.new_zeros(1, 1)}

    def head(self, model: PreTrainedModel) -> tuple[HeadLayer, ...]:
        import torch

        return dense_head(model, torch.tanh)


class XlmRobertaLayout(RobertaLayout):
    """The layout of XLM-RoBERTa's classifiers."""

    model_type = "xlm-roberta"
    title = "XLM-RoBERTa"
    class_prefix = "XLMRoberta"
    classifier_name = "XLMRobertaForSequenceClassification"
    sizes = OTHER_SIZES


class CamembertLayout(RobertaLayout):
    """The layout of CamemBERT's classifiers."""

    model_type = "camembert"
    title = "CamemBERT"
    class_prefix = "Camembert"
    classifier_name = "CamembertForSequenceClassification"
    sizes = OTHER_SIZES


ROBERTA, XLM_ROBERTA, CAMEMBERT = RobertaLayout(), XlmRobertaLayout(), CamembertLayout()
