"""Keys of `config.json`: what the program does with each of them, and which values it can work with.

Here are those of every family; a family's own are in its layout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from compressor.options import shown

Decision = Literal["harmless", "checked", "set", "refused"]
Config = Mapping[str, Any]
Check = Callable[[Any, Config], "str | None"]

# Heads that a checkpoint has as zeros because they were taken out, by layer. Not a key of transformers.
REMOVED_HEADS = "removed_heads"
# Number of neurons of each layer, where layers differ: as the matrices have them, or as they had them before
# zeros made all layers of a checkpoint as wide as the widest. No keys of transformers either.
LAYER_NEURONS = "layer_neurons"
UNPADDED_NEURONS = "unpadded_neurons"
MERGE_FIRST = (
    "merge it into the model first, with peft: AutoPeftModelForSequenceClassification.from_pretrained(...)"
    ".merge_and_unload().save_pretrained(...)"
)


@dataclass(frozen=True)
class Key:
    """What becomes of a key of `config.json`.

    Attributes:
        decision: "harmless" does not touch a classifier's answers; "checked" is used, and its values are
            checked; "set" is given the one value that all parts of the program can work with, which leaves
            the answers as they are; "refused" means another forward pass, and must have its default.
        reason: why.
        check: gives the problem with a value in a configuration, or None. An absent key is not checked.
    """

    decision: Decision
    reason: str
    check: Check | None = None


def refused(reason: str, *allowed: Any) -> Key:
    """Make a key that may only have one of the values `allowed`, or one that is empty."""

    def check(value: Any, _: Config) -> str | None:
        if value in allowed or value is None or value == {} or value == []:
            return None
        return f"{shown(value)}: {reason}"

    return Key("refused", reason, check)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def size_problem(value: Any, _: Config) -> str | None:
    """Say why a value is no whole number above 0; None if it is one."""
    return None if _is_whole(value) and value >= 1 else f"{shown(value)} is no whole number above 0"


def share_problem(value: Any, _: Config) -> str | None:
    """Say why a value is neither a number from 0 to 1 nor empty; None if it is."""
    if value is None:
        return None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return None if is_number and 0 <= value <= 1 else f"{shown(value)} is no number from 0 to 1"


def positive_problem(value: Any, _: Config) -> str | None:
    """Say why a value is no number above 0; None if it is one."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return None if is_number and 0 < value < math.inf else f"{shown(value)} is no number above 0"


def flag_problem(value: Any, _: Config) -> str | None:
    """Say why a value is neither true nor false; None if it is one of them."""
    return None if isinstance(value, bool) else f"{shown(value)} is neither true nor false"


def choice_problem(*known: str) -> Check:
    """Make a check that a value is one of some names."""

    def check(value: Any, _: Config) -> str | None:
        return None if value in known else f"{shown(value)} is none of {', '.join(known)}"

    return check


def padding_problem(value: Any, config: Config) -> str | None:
    """Say why positions cannot be counted from the one after a token id; None if they can."""
    positions: Any = config.get("max_position_embeddings")
    if not _is_whole(value) or value < 0:
        return f"{shown(value)} is no token id, and positions are counted from it"
    if _is_whole(positions) and value >= positions - 1:
        return f"{value} leaves no position of {positions} (max_position_embeddings) for a token"
    return None


def activation_problem(value: Any, _: Config) -> str | None:
    """Say why a value is no name of an activation of transformers; None if it is one."""
    from transformers.activations import ACT2FN

    if isinstance(value, str) and value in ACT2FN:
        return None
    return f"{shown(value)} is no activation that is known here; known are {', '.join(sorted(ACT2FN))}"


def _text_task(value: Any, _: Config) -> str | None:
    """Transformers' pipelines change a configuration by what it has for their task."""
    for task in ("text-classification", "sentiment-analysis"):
        if isinstance(value, Mapping) and value.get(task):
            return f"pipelines would change the model by what it has for {task}; set those keys themselves"
    return None


def _type_name(value: Any, _: Config) -> str | None:
    import torch

    name = str(value).removeprefix("torch.")
    if value is None or name == "auto" or isinstance(getattr(torch, name, None), torch.dtype):
        return None
    return f"{shown(value)} is no type of PyTorch"


_GENERATION = Key("harmless", "is of text generation, which a classifier does not do")
TRAINING = "is of training and of new weights; it does not touch answers"
ACTIVATION = Key("checked", "each activation of transformers can be pruned and exported", activation_problem)
NORM_EPSILON = Key("checked", "is part of the layer normalization", positive_problem)
DROPOUT = Key("checked", TRAINING, share_problem)
INITIALIZER_RANGE = Key("checked", TRAINING, positive_problem)
_OWN_CODE = "the model is defined by code of its own, which never runs here"
_DECODER = "the model is a decoder, or a part of one, and not an encoder that sees the whole text"
_ADAPTER = f"the model has adapters, which would be left out; {MERGE_FIRST}"
QUANTIZED = (
    "the weights are quantized; give the model in float32, float16 or bfloat16, and quantize what is "
    "exported: compress export --precision int8"
)

# Every key of `PretrainedConfig`, and those outside it that change a forward pass. Keys that are neither here
# nor in a family's layout are a publisher's own, which no code here or in transformers reads.
SHARED_KEYS: dict[str, Key] = {
    "model_type": Key("checked", "says which family's layout the model has"),
    "architectures": Key("checked", "says which head the weights have"),
    # The forward pass.
    "is_decoder": refused(_DECODER, False),
    "is_encoder_decoder": refused(_DECODER, False),
    "add_cross_attention": refused(_DECODER, False),
    "cross_attention_hidden_size": refused(_DECODER),
    "chunk_size_feed_forward": Key("set", "to 0: chunks change memory alone, and refuse most lengths"),
    "output_attentions": Key("set", "to false: answers would come with what nobody reads"),
    "output_hidden_states": Key("set", "to false: answers would come with what nobody reads"),
    "return_dict": Key("set", "to true: answers would be tuples without names"),
    "torchscript": Key("set", "to false: answers would be tuples without names"),
    "attn_implementation": Key("set", "each caller asks for its own; all compute the same"),
    "_attn_implementation": Key("set", "each caller asks for its own; all compute the same"),
    "_attn_implementation_internal": Key("set", "each caller asks for its own; all compute the same"),
    "gradient_checkpointing": Key("set", "is left out: memory of training alone"),
    "use_cache": Key("harmless", "is of decoders, which are refused"),
    "tie_encoder_decoder": Key("harmless", "is of encoder-decoders, which are refused"),
    "tie_word_embeddings": Key("harmless", "is of heads over the vocabulary, not of a classifier"),
    # Weights.
    "dtype": Key("checked", "weights are read as float32, whatever they are stored in", _type_name),
    "torch_dtype": Key("checked", "weights are read as float32, whatever they are stored in", _type_name),
    "use_bfloat16": Key("harmless", "was of TPUs; PyTorch's models do not read it"),
    "quantization_config": refused(QUANTIZED),
    "compression_config": refused(QUANTIZED),
    "auto_map": refused(_OWN_CODE),
    "adapters": refused(_ADAPTER),
    "peft_config": refused(_ADAPTER),
    # Labels: see `label_problems`.
    "id2label": Key("checked", "names each output"),
    "label2id": Key("checked", "must say what id2label says"),
    "num_labels": Key("checked", "must be the number of names in id2label"),
    "problem_type": Key("checked", "one class of several, or a number"),
    # The tokenizer, which is checked itself.
    "pad_token_id": Key("set", "to the tokenizer's: padding is masked, whatever token it is"),
    "tokenizer_class": Key("harmless", "the tokenizer that it leads to is checked itself"),
    "bos_token_id": Key("harmless", "the tokenizer's tokens are used"),
    "eos_token_id": Key("harmless", "the tokenizer's tokens are used"),
    "sep_token_id": Key("harmless", "the tokenizer's tokens are used"),
    "decoder_start_token_id": _GENERATION,
    "prefix": refused("texts would have to begin with it, and nothing here puts it there", ""),
    "task_specific_params": Key("checked", "may hold other values for text classification", _text_task),
    # Training.
    "finetuning_task": Key("harmless", "is a name"),
    "tf_legacy_loss": Key("harmless", "is of TensorFlow"),
    # Where it is from.
    "_name_or_path": Key("harmless", "is a name"),
    "_commit_hash": Key("harmless", "is a name"),
    "transformers_version": Key("harmless", "is a name"),
    **dict.fromkeys(
        (
            "max_length",
            "min_length",
            "do_sample",
            "early_stopping",
            "num_beams",
            "num_beam_groups",
            "diversity_penalty",
            "temperature",
            "top_k",
            "top_p",
            "typical_p",
            "repetition_penalty",
            "length_penalty",
            "no_repeat_ngram_size",
            "encoder_no_repeat_ngram_size",
            "bad_words_ids",
            "num_return_sequences",
            "output_scores",
            "return_dict_in_generate",
            "forced_bos_token_id",
            "forced_eos_token_id",
            "remove_invalid_values",
            "exponential_decay_length_penalty",
            "suppress_tokens",
            "begin_suppress_tokens",
        ),
        _GENERATION,
    ),
}
