"""BERT (Devlin et al., NAACL 2019): post-norm blocks, absolute positions, a pooler before the classifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from compressor.models.encoders.inputs import INPUTS, SEGMENTS
from compressor.models.encoders.keys import (
    LAYER_NEURONS,
    REMOVED_HEADS,
    SHARED_KEYS,
    TRAINING,
    UNPADDED_NEURONS,
    Config,
    Key,
    activation_problem,
    positive_problem,
    refused,
    share_problem,
    size_problem,
)
from compressor.models.encoders.layout import EncoderLayout, HeadLayer, LinearNames
from compressor.options import shown

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedModel

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
HEAD_WEIGHTS = ("classifier.", "bert.pooler.")


def _heads(value: Any, config: Config) -> str | None:
    width = config.get("hidden_size", SIZES["hidden_size"])
    if problem := size_problem(value, config):
        return problem
    if size_problem(width, config) is None and width % value:
        return f"{value} heads do not share out hidden_size {width} evenly"
    return None


def _pruned_heads(value: Any, config: Config) -> str | None:
    layers, heads = (config.get(key, SIZES[key]) for key in ("num_hidden_layers", "num_attention_heads"))
    try:
        removed = {int(layer): [int(head) for head in gone] for layer, gone in (value or {}).items()}
    except (AttributeError, TypeError, ValueError):
        return f"{shown(value)} is no list of heads for each layer"
    for layer, gone in removed.items():
        if not 0 <= layer < layers or len(set(gone)) != len(gone) or not set(gone) < set(range(heads)):
            return (
                f"layer {layer} without heads {gone}: the model has {layers} layers of {heads} heads, of "
                f"which one at least must stay"
            )
    return None


def _neuron_counts(value: Any, config: Config) -> str | None:
    layers, widest = (config.get(key, SIZES[key]) for key in ("num_hidden_layers", "intermediate_size"))
    if value is None or size_problem(layers, config) or size_problem(widest, config):
        # A size that is wrong is named itself.
        return None
    if not isinstance(value, list) or any(size_problem(count, config) for count in value):
        return f"{shown(value)} is no list of whole numbers above 0"
    if len(value) != layers or max(value) > widest:
        return (
            f"{shown(value)} must have the neurons of each of {layers} layers, at most {widest} "
            f"(intermediate_size)"
        )
    return None


def _unpadded_neurons(value: Any, config: Config) -> str | None:
    if value is not None and config.get(LAYER_NEURONS) is not None:
        return f"{shown(value)}: {LAYER_NEURONS} says that layers have no padding; remove one of the two"
    return _neuron_counts(value, config)


# In this order their problems are named.
KEYS: dict[str, Key] = {
    **{name: Key("checked", "a size of the model", size_problem) for name in SIZES},
    "num_attention_heads": Key("checked", "heads share out hidden_size", _heads),
    "pruned_heads": Key("checked", "heads that are gone from the weights, by layer", _pruned_heads),
    REMOVED_HEADS: Key("checked", "heads that are zeros in the weights, by layer", _pruned_heads),
    LAYER_NEURONS: Key("checked", "neurons of each layer, where the weights differ in them", _neuron_counts),
    UNPADDED_NEURONS: Key(
        "checked", "neurons of each layer; those beyond are zeros in the weights", _unpadded_neurons
    ),
    "embedding_size": refused("BERT's embeddings have hidden_size; this key is of another model"),
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


class BertLayout(EncoderLayout):
    """The layout of BERT's classifiers."""

    model_type = "bert"
    title = "BERT"
    classifier_name = "BertForSequenceClassification"
    keys = KEYS
    sizes = SIZES
    inputs = INPUTS
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
    blocks_path = "bert.encoder.layer"

    def config_of(self, content: dict[str, Any]) -> PretrainedConfig:
        from transformers import BertConfig

        return BertConfig.from_dict(content)

    def classifier_class(self) -> type[PreTrainedModel]:
        from transformers import BertForSequenceClassification

        found: type[PreTrainedModel] = BertForSequenceClassification
        return found

    def encoder_class(self) -> type[PreTrainedModel]:
        from transformers import BertModel

        found: type[PreTrainedModel] = BertModel
        return found

    def longest_input(self, config: Config) -> int:
        return self.size(config, "max_position_embeddings")

    def segments(self, config: Config) -> int:
        return self.size(config, "type_vocab_size")

    def matrix_title(self, name: str) -> str:
        return name.removeprefix("attention.self.").removesuffix(".dense").replace(".", " ")

    def is_head_weight(self, name: str) -> bool:
        return name.startswith(HEAD_WEIGHTS)

    def is_own_weight(self, name: str) -> bool:
        parts = ("encoder.", "embeddings.", "pooler.", "classifier.")
        return f".{name}".replace(".bert.", ".").startswith(tuple(f".{part}" for part in parts)) and (
            # Transformers once stored the numbers of positions and segments too.
            not name.endswith(("position_ids", SEGMENTS))
        )

    def blocks(self, model: PreTrainedModel) -> nn.ModuleList:
        return cast("nn.ModuleList", model.base_model.encoder.layer)

    def embeddings(self, model: PreTrainedModel) -> nn.Module:
        return cast("nn.Module", model.base_model.embeddings)

    def head(self, model: PreTrainedModel) -> tuple[HeadLayer, ...]:
        pooler = model.base_model.pooler
        return (
            HeadLayer("bert.pooler.dense", pooler.dense, pooler.activation),
            HeadLayer("classifier", model.classifier),
        )

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


BERT = BertLayout()
