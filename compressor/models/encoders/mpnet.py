"""MPNet (Song et al., NeurIPS 2020): blocks as BERT's, scores of attention with a bias by distance.

The biases of all heads are computed once and given to every block; a block that has lost heads takes those of
the heads that it has. Positions are counted as RoBERTa's, with a padding that has the id 1 in every model.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from compressor.errors import UserError
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
    refused,
)
from compressor.models.encoders.layout import HeadLayer, LinearNames
from compressor.models.encoders.positions import count_positions
from compressor.models.encoders.shape_keys import Shape
from compressor.models.encoders.transformers_layout import dense_head

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

# Where a configuration does not have a key; those of MPNetConfig.
SIZES = {
    "vocab_size": 30527,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
}
# Written into transformers' code; the configuration's is not read.
PADDING, BUCKETS = 1, 32
BIAS = "position_bias"
# In this order their problems are named.
KEYS: dict[str, Key] = {
    **Shape(SIZES).keys,
    "embedding_size": refused("MPNet's embeddings have hidden_size; this key is of another model"),
    "relative_attention_num_buckets": refused(
        f"transformers computes with {BUCKETS} whatever it is", BUCKETS
    ),
    "hidden_act": ACTIVATION,
    "layer_norm_eps": NORM_EPSILON,
    **SHARED_KEYS,
    "hidden_dropout_prob": DROPOUT,
    "attention_probs_dropout_prob": DROPOUT,
    "initializer_range": INITIALIZER_RANGE,
}


class MpnetLayout(BertBlocks):
    """The layout of MPNet's classifiers."""

    model_type = "mpnet"
    title = "MPNet"
    class_prefix = "MPNet"
    classifier_name = "MPNetForSequenceClassification"
    keys = KEYS
    sizes = SIZES
    inputs = (IDS, MASK)
    linears = LinearNames(
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        attention_output="attention.attn.o",
        neurons_in="intermediate.dense",
        neurons_out="output.dense",
    )
    attention = "attention.attn"
    base = "mpnet"
    blocks_path = "mpnet.encoder.layer"

    def padding_id(self, config: Config) -> int | None:
        return PADDING

    def keep_words(self, model: PreTrainedModel, kept: Sequence[int], padding: int) -> None:
        if padding != PADDING:
            raise UserError(
                f"vocabulary: the padding would get the id {padding}, and MPNet counts positions by its "
                f"token {PADDING}, so its vocabulary cannot be made smaller; keep it whole"
            )
        super().keep_words(model, kept, padding)

    def graph_arguments(self, model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"position_ids": count_positions(inputs[IDS], PADDING)}

    def for_graph(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return a copy that looks up which bias a distance has.

        Logarithms tell, and those of runtimes round otherwise where they are whole numbers.
        """
        import torch

        own = copy.deepcopy(model)
        farthest = self.longest_input(model.config.to_dict()) - 1
        encoder = cast("Any", own.base_model).encoder
        buckets = encoder.relative_position_bucket(torch.arange(-farthest, farthest + 1), num_buckets=BUCKETS)

        def look_up(distances: Tensor, **_: Any) -> Tensor:
            found: Tensor = buckets[distances + farthest]
            return found

        encoder.relative_position_bucket = look_up
        return own

    def matrix_title(self, name: str) -> str:
        return {
            "attention.attn.q": "query",
            "attention.attn.k": "key",
            "attention.attn.v": "value",
            "attention.attn.o": "attention output",
        }.get(name, name.removesuffix(".dense"))

    def head(self, model: PreTrainedModel) -> tuple[HeadLayer, ...]:
        import torch

        return dense_head(model, torch.tanh)

    def keep_heads(self, block: nn.Module, kept: Sequence[int]) -> None:
        own = cast("Any", block).attention.attn
        before = getattr(own, "kept_heads", None)
        whole = list(kept) if before is None else [before[head] for head in kept]
        if not hasattr(own, "kept_heads"):
            own.register_forward_pre_hook(_take_own_bias, with_kwargs=True)
        self.set_head_count(block, len(kept))
        own.kept_heads = whole

    def set_head_count(self, block: nn.Module, count: int) -> None:
        super().set_head_count(block, count)
        own = cast("Any", block).attention.attn
        if hasattr(own, "kept_heads"):
            own.kept_heads = None

    def scores_by_content(self, block: nn.Module) -> bool:
        return False


def _take_own_bias(
    attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Give a self-attention the biases `(batch, heads, sequence, sequence)` of the heads that it has kept.

    None, as PyTorch has it, leaves what it is called with as it is.
    """
    kept = cast("Any", attention).kept_heads
    if kept is None:
        return None
    import torch

    given = inspect.signature(attention.forward).bind(*args, **kwargs)
    biases: Tensor = given.arguments[BIAS]
    given.arguments[BIAS] = biases.index_select(1, torch.tensor(kept, device=biases.device))
    return given.args, given.kwargs


MPNET = MpnetLayout()
