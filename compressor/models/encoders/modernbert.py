"""ModernBERT (Warner et al., ACL 2025): pre-norm blocks, rotary positions, gated neurons, few biases.

Query, key and value are one linear layer, and so are the activations and the gates of the neurons. Where a
layer has no bias, as in public models, its weight has to keep the mean of its outputs too, and is solved for
inputs that are not centred. Each n-th block attends to the whole text and all others to a window, so that
they are called with other masks and positions. Rotations turn pairs of dimensions of a head, which therefore
go only together with it. Texts are padded: no flash attention, and nothing is compiled.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from compressor.models.encoders.inputs import IDS, MASK
from compressor.models.encoders.keys import (
    ACTIVATION,
    DROPOUT,
    INITIALIZER_RANGE,
    NORM_EPSILON,
    SHARED_KEYS,
    TRAINING,
    Config,
    Key,
    choice_problem,
    flag_problem,
    positive_problem,
    refused,
    size_problem,
)
from compressor.models.encoders.layout import HeadLayer, LinearNames
from compressor.models.encoders.shape_keys import Shape
from compressor.models.encoders.transformers_layout import TransformersLayout
from compressor.models.transformers_versions import make_rotations_plain, masks_with_window
from compressor.options import shown

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedModel

# Where a configuration does not have a key; those of ModernBertConfig.
SIZES = {
    "vocab_size": 50368,
    "hidden_size": 768,
    "num_hidden_layers": 22,
    "num_attention_heads": 12,
    "intermediate_size": 1152,
    "max_position_embeddings": 8192,
}
GLOBAL_EVERY = 3
# How version 5 of transformers names the two kinds of attention, and what version 4 has the base of the
# rotations of each under.
GLOBAL, LOCAL = "full_attention", "sliding_attention"
BASES = {GLOBAL: "global_rope_theta", LOCAL: "local_rope_theta"}


def _kinds(count: int, every: int) -> list[str]:
    """The kind of attention of each of `count` blocks, of which each `every`-th attends to the whole text."""
    return [LOCAL if index % every else GLOBAL for index in range(count)]


def _global_every(kinds: Sequence[str]) -> int:
    """The smallest number that gives these kinds of attention; 0 where there is none."""
    fitting = (every for every in range(1, len(kinds) + 1) if _kinds(len(kinds), every) == list(kinds))
    return next(fitting, 0)


def _kinds_problem(value: Any, config: Config) -> str | None:
    layers = config.get("num_hidden_layers", SIZES["num_hidden_layers"])
    if value is None or size_problem(layers, config) is not None:
        return None
    if isinstance(value, list) and len(value) == layers and _global_every(value):
        return None
    return (
        f"{shown(value)}: attention to the whole text must be in the first and then in each n-th of {layers} "
        f"layers, as global_attn_every_n_layers has it; version 4 of transformers knows nothing else"
    )


def _rotations_problem(value: Any, config: Config) -> str | None:
    """Version 4 of transformers, and the exported graph, have plain rotations with a base for each kind."""
    if value is None:
        return None
    if not isinstance(value, Mapping) or not set(value) <= {GLOBAL, LOCAL}:
        return f"{shown(value)} has not the rotations of {GLOBAL} and {LOCAL}"
    for kind, own in value.items():
        if not isinstance(own, Mapping) or own.get("rope_type", "default") != "default":
            return f"{kind}: {shown(own)}: rotations of another type than default are not known here"
        if "rope_theta" in own and (problem := positive_problem(own["rope_theta"], config)):
            return f"{kind}: rope_theta: {problem}"
    return None


_BIAS = Key("checked", "layers are solved with and without a bias", flag_problem)
_BASE = Key("checked", "base of the rotations by position", positive_problem)
_MASKED_MODELLING = Key("harmless", "is of masked language modelling, whose head is another one")
_NOT_READ = Key("harmless", "is not read by transformers")
# In this order their problems are named.
KEYS: dict[str, Key] = {
    **Shape(SIZES).keys,
    "embedding_size": refused("ModernBERT's embeddings have hidden_size; this key is of another model"),
    "head_dim": refused("heads share out hidden_size"),
    "local_attention": Key("checked", "tokens of the window of local attention", size_problem),
    "global_attn_every_n_layers": Key("checked", "which blocks attend to the whole text", size_problem),
    "layer_types": Key("checked", "which blocks attend to the whole text", _kinds_problem),
    "global_rope_theta": _BASE,
    "local_rope_theta": _BASE,
    "rope_parameters": Key("checked", "base of the rotations by position", _rotations_problem),
    "rope_scaling": refused("rotations of another type than default are not known here"),
    "hidden_activation": ACTIVATION,
    "classifier_activation": ACTIVATION,
    "classifier_pooling": Key("checked", "what the head reads of the tokens", choice_problem("cls", "mean")),
    "norm_eps": NORM_EPSILON,
    **dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), _BIAS),
    "reference_compile": Key("set", "to false: compiled parts compute the same and cannot be pruned"),
    **SHARED_KEYS,
    "cls_token_id": Key("harmless", "the tokenizer's tokens are used"),
    **dict.fromkeys(("layer_norm_eps", "position_embedding_type"), _NOT_READ),
    **dict.fromkeys(("decoder_bias", "sparse_prediction", "sparse_pred_ignore_index"), _MASKED_MODELLING),
    "deterministic_flash_attn": Key("harmless", "is of flash attention, which is not used"),
    "repad_logits_with_grad": Key("harmless", "is of flash attention, which is not used"),
    **dict.fromkeys(("embedding_dropout", "attention_dropout", "mlp_dropout", "classifier_dropout"), DROPOUT),
    "initializer_range": INITIALIZER_RANGE,
    "initializer_cutoff_factor": Key("harmless", TRAINING),
}


class ModernBertLayout(TransformersLayout):
    """The layout of ModernBERT's classifiers."""

    model_type = "modernbert"
    title = "ModernBERT"
    class_prefix = "ModernBert"
    classifier_name = "ModernBertForSequenceClassification"
    keys = KEYS
    sizes = SIZES
    inputs = (IDS, MASK)
    linears = LinearNames(
        query="attn.Wqkv",
        key="attn.Wqkv",
        value="attn.Wqkv",
        attention_output="attn.Wo",
        neurons_in="mlp.Wi",
        neurons_out="mlp.Wo",
        gated=True,
    )
    attention = "attn"
    heads_attribute = "num_heads"
    neurons_key = "intermediate_size"
    base = "model"
    encoder_parts = ("embeddings.", "layers.", "final_norm.")
    head_parts = ("head.", "classifier.")
    blocks_path = "model.layers"

    def config_of(self, content: dict[str, Any]) -> PretrainedConfig:
        return super().config_of({**content, "reference_compile": False})

    def stored_config(self, content: dict[str, Any]) -> dict[str, Any]:
        """Return it with the rotations and kinds of attention where each version reads them."""
        rotations: Mapping[str, Any] = content.get("rope_parameters") or {}
        bases = {BASES[kind]: own["rope_theta"] for kind, own in rotations.items() if "rope_theta" in own}
        kinds = content.get("layer_types")
        every = {} if kinds is None else {"global_attn_every_n_layers": _global_every(kinds)}
        return {**content, **bases, **every}

    def matrix_title(self, name: str) -> str:
        return {
            "attn.Wqkv": "query key value",
            "attn.Wo": "attention output",
            "mlp.Wi": "intermediate",
            "mlp.Wo": "output",
        }[name]

    def blocks(self, model: PreTrainedModel) -> nn.ModuleList:
        return cast("nn.ModuleList", model.base_model.layers)

    def called_like(self, model: PreTrainedModel, index: int) -> int:
        # Version 4 calls all blocks alike.
        kinds = [getattr(block, "attention_type", None) for block in self.blocks(model)]
        return kinds.index(kinds[index])

    def head_inputs(self, model: PreTrainedModel, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Normalize what the last block puts out; take the first token's, or the mean over all tokens."""
        normal: Tensor = cast("Any", model.base_model).final_norm(hidden)
        if model.config.classifier_pooling == "cls":
            return normal[:, 0]
        return (normal * tokens[..., None]).sum(dim=1) / tokens.sum(dim=1, keepdim=True)

    def for_graph(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return a copy whose encoder makes both masks, and rotations, in a few plain nodes."""
        own = copy.deepcopy(model)
        for block in self.blocks(own):
            make_rotations_plain(cast("Any", block).attn)
        window = int(model.config.local_attention) // 2

        def with_masks(
            encoder: nn.Module, args: tuple[Any, ...], named: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            dtype = cast("Any", encoder).dtype
            return args, {**named, MASK: masks_with_window(named[MASK], dtype, window)}

        own.base_model.register_forward_pre_hook(with_masks, with_kwargs=True)
        return own

    def graph_mask(self, mask: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the mask as it is: the head takes the mean over its tokens."""
        return mask

    def head(self, model: PreTrainedModel) -> tuple[HeadLayer, ...]:
        head = model.head
        return (
            HeadLayer("head.dense", head.dense, lambda outputs: head.norm(head.act(outputs))),
            HeadLayer("classifier", model.classifier),
        )

    def activation(self, block: nn.Module) -> Callable[[Tensor], Tensor]:
        return cast("Callable[[Tensor], Tensor]", cast("Any", block).mlp.act)

    def head_count(self, block: nn.Module) -> int:
        own = cast("Any", block).attn
        # Version 5 does not keep it.
        return int(getattr(own, "num_heads", None) or own.Wo.in_features // getattr(own, "head_dim", 1))

    def set_head_count(self, block: nn.Module, count: int) -> None:
        own = cast("Any", block).attn
        own.num_heads, own.all_head_size = count, count * own.head_dim

    def scores_by_content(self, block: nn.Module) -> bool:
        return False


MODERNBERT = ModernBertLayout()
