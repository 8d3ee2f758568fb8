"""What a model's configuration, tokenizer and inputs must have in common; decided before any work.

Everything that decides a forward pass is known when a model is loaded: the keys of `config.json`, the
tokenizer's ids, the lengths and pairs that are asked for. Pure functions turn these facts into a list of
problems, each with the file and the key that says so. What is refused here would crash later, or would
run and answer something else than the model's authors meant.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from compressor.errors import UserError, first_line
from compressor.options import shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Decision = Literal["harmless", "checked", "set", "refused"]
Config = Mapping[str, Any]
Check = Callable[[Any, Config], "str | None"]

CLASSIFIER = "BertForSequenceClassification"
CONFIG = "config.json"
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
DEFAULT_LABELS = 2
MERGE_FIRST = (
    "merge it into the model first, with peft: AutoPeftModelForSequenceClassification.from_pretrained(...)"
    ".merge_and_unload().save_pretrained(...)"
)
# Parts of the names of weights that PEFT adds to a model or renames in it.
ADAPTER_WEIGHTS = ("lora_", ".base_layer.", ".modules_to_save.", ".original_module.", "ia3_", "adapters.")
# How safetensors names the types that weights of a model that is not quantized have.
FLOATS = ("F64", "F32", "F16", "BF16")


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


def _refused(reason: str, *allowed: Any) -> Key:
    """A key that may only have one of the values `allowed`, or one that is empty."""

    def check(value: Any, _: Config) -> str | None:
        if value in allowed or value is None or value == {} or value == []:
            return None
        return f"{shown(value)}: {reason}"

    return Key("refused", reason, check)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _size(value: Any, _: Config) -> str | None:
    return None if _is_whole(value) and value >= 1 else f"{shown(value)} is no whole number above 0"


def _share(value: Any, _: Config) -> str | None:
    if value is None:
        return None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return None if is_number and 0 <= value <= 1 else f"{shown(value)} is no number from 0 to 1"


def _positive(value: Any, _: Config) -> str | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return None if is_number and 0 < value < math.inf else f"{shown(value)} is no number above 0"


def _heads(value: Any, config: Config) -> str | None:
    width = size_of(config, "hidden_size")
    if problem := _size(value, config):
        return problem
    if _size(width, config) is None and width % value:
        return f"{value} heads do not share out hidden_size {width} evenly"
    return None


def _activation(value: Any, _: Config) -> str | None:
    from transformers.activations import ACT2FN

    if isinstance(value, str) and value in ACT2FN:
        return None
    return f"{shown(value)} is no activation that is known here; known are {', '.join(sorted(ACT2FN))}"


def _pruned_heads(value: Any, config: Config) -> str | None:
    layers, heads = size_of(config, "num_hidden_layers"), size_of(config, "num_attention_heads")
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


def _model_type(value: Any, _: Config) -> str | None:
    return None if value == "bert" else f"is a {value} model; only BERT models can be used"


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
_TRAINING = "is of training and of new weights; it does not touch answers"
_OWN_CODE = "the model is defined by code of its own, which never runs here"
_DECODER = "the model is a decoder, or a part of one, and not an encoder that sees the whole text"
_ADAPTER = f"the model has adapters, which would be left out; {MERGE_FIRST}"
_QUANTIZED = (
    "the weights are quantized; give the model in float32, float16 or bfloat16, and quantize what is "
    "exported: compress export --precision int8"
)

# Every key of `BertConfig` and `PretrainedConfig`, and those outside them that change a forward pass.
# All other keys are a publisher's own, which no code here or in transformers reads.
KEYS: dict[str, Key] = {
    # Sizes and shapes.
    "model_type": Key("checked", "only BERT's layout is known", _model_type),
    "architectures": Key("checked", "says which head the weights have"),
    **{name: Key("checked", "a size of the model", _size) for name in SIZES},
    "num_attention_heads": Key("checked", "heads share out hidden_size", _heads),
    "pruned_heads": Key("checked", "heads that are gone, by layer", _pruned_heads),
    "embedding_size": _refused("BERT's embeddings have hidden_size; this key is of another model"),
    # The forward pass.
    "hidden_act": Key("checked", "each activation of transformers can be pruned and exported", _activation),
    "layer_norm_eps": Key("checked", "is part of the layer normalization", _positive),
    "position_embedding_type": _refused(
        "such positions cannot be exported; only a model with absolute ones can be used", "absolute"
    ),
    "is_decoder": _refused(_DECODER, False),
    "is_encoder_decoder": _refused(_DECODER, False),
    "add_cross_attention": _refused(_DECODER, False),
    "cross_attention_hidden_size": _refused(_DECODER),
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
    "quantization_config": _refused(_QUANTIZED),
    "compression_config": _refused(_QUANTIZED),
    "auto_map": _refused(_OWN_CODE),
    "adapters": _refused(_ADAPTER),
    "peft_config": _refused(_ADAPTER),
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
    "prefix": _refused("texts would have to begin with it, and nothing here puts it there", ""),
    "task_specific_params": Key("checked", "may hold other values for text classification", _text_task),
    # Training, and new weights.
    "hidden_dropout_prob": Key("checked", _TRAINING, _share),
    "attention_probs_dropout_prob": Key("checked", _TRAINING, _share),
    "classifier_dropout": Key("checked", _TRAINING, _share),
    "initializer_range": Key("checked", _TRAINING, _positive),
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
SET_VALUES: dict[str, Any] = {
    "chunk_size_feed_forward": 0,
    "output_attentions": False,
    "output_hidden_states": False,
    "return_dict": True,
    "torchscript": False,
}
LEFT_OUT = (
    "gradient_checkpointing",
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "num_labels",
)
# Of a model whose hidden states alone are used, as a sentence encoder's.
OF_HEADS = ("architectures", "id2label", "label2id", "num_labels", "problem_type", "task_specific_params")


def size_of(config: Config, key: str) -> int:
    """One of the `SIZES` as a configuration has it, or BERT's where it has none."""
    size: int = config.get(key, SIZES[key])
    return size


def key_problems(config: Config) -> list[str]:
    """What keys say that the program cannot do, each with its key."""
    if "model_type" not in config:
        return [f'{CONFIG}: model_type: missing; add "model_type": "bert" if it is a BERT model']
    if config["model_type"] != "bert":
        # Its other keys are of another kind.
        return [f"{_model_type(config['model_type'], config)} ({CONFIG}: model_type)"]
    found = []
    for name, key in KEYS.items():
        if key.check is not None and name in config:
            problem = key.check(config[name], config)
            if problem:
                found.append(f"{CONFIG}: {name}: {problem}")
    return found


def encoder_problems(config: Config) -> list[str]:
    """What a model of any kind that is not a classifier cannot have: adapters and quantized weights."""
    found = []
    for name in ("quantization_config", "compression_config", "adapters", "peft_config"):
        check = KEYS[name].check
        problem = check(config.get(name), config) if check is not None else None
        if problem:
            found.append(f"{CONFIG}: {name}: {problem}")
    if isinstance(config.get("model_type"), str):
        return found
    return [*found, f"{CONFIG}: model_type: missing; it says what kind of model it is"]


def head_problems(config: Config) -> list[str]:
    """Why the architectures that a configuration names are no BERT classifier's; it may name none."""
    named = config.get("architectures") or []
    if not isinstance(named, Sequence) or isinstance(named, str):
        return [f"{CONFIG}: architectures: {shown(named)} is no list of names"]
    names = [str(name) for name in named]
    if not names or CLASSIFIER in names:
        return []
    if any(name.endswith(CLASSIFIER) for name in names):
        return [
            f"is {', '.join(names)} ({CONFIG}: architectures), whose code is not known here; if it computes "
            f"what {CLASSIFIER} does, write that in its place"
        ]
    return [f"is {', '.join(names)}, not a {CLASSIFIER}; fine-tune it first with: compress finetune"]


def label_problems(config: Config) -> list[str]:
    """Why each output does not have one name, or why the outputs are not one class of several or a number."""
    try:
        names = label_names(config)
    except UserError as error:
        return [str(error)]
    found = []
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        found.append(
            f"{CONFIG}: id2label: {', '.join(map(repr, repeated))} names several outputs; give each its own"
        )
    if any(not name.strip() for name in names):
        found.append(f"{CONFIG}: id2label: an output has an empty name")
    stated = config.get("num_labels")
    if stated is not None and config.get("id2label") and stated != len(names):
        found.append(f"{CONFIG}: num_labels: {shown(stated)}, and id2label names {len(names)} outputs")
    found += _inverse_problems(config.get("label2id"), names)
    problem = task_problem(config.get("problem_type"), len(names))
    return [*found, f"{CONFIG}: problem_type: {problem}"] if problem else found


def label_names(config: Config) -> list[str]:
    """The name of each output.

    Raises:
        UserError: `id2label` does not name outputs 0 to n - 1.
    """
    named = config.get("id2label")
    if named is None:
        count = config.get("num_labels", DEFAULT_LABELS)
        if problem := _size(count, config):
            raise UserError(f"{CONFIG}: num_labels: {problem}")
        return [f"LABEL_{index}" for index in range(count)]
    where = f"{CONFIG}: id2label"
    if not isinstance(named, Mapping) or not named:
        raise UserError(f"{where}: {shown(named)} does not name the model's outputs")
    try:
        by_index = {int(key): name for key, name in named.items()}
    except (TypeError, ValueError) as error:
        keys = ", ".join(map(repr, named))
        raise UserError(f"{where}: has the keys {keys}; they must be the numbers of outputs") from error
    if sorted(by_index) != list(range(len(named))):
        keys = ", ".join(map(str, named))
        raise UserError(
            f"{where}: has the keys {keys}; the outputs of a model are numbered from 0: "
            f"{', '.join(map(str, range(len(named))))}"
        )
    for index, name in by_index.items():
        if not isinstance(name, (str, int, float)):
            raise UserError(f"{where}: {index}: {shown(name)} is no name")
    return [str(by_index[index]) for index in range(len(by_index))]


def _inverse_problems(label2id: Any, names: Sequence[str]) -> list[str]:
    """Why `label2id` contradicts the names; names that were never given contradict nothing."""
    if not label2id:
        return []
    unnamed = [f"LABEL_{index}" for index in range(len(names))]
    try:
        found = {str(name): int(index) for name, index in label2id.items()}
    except (AttributeError, TypeError, ValueError, OverflowError):
        return [f"{CONFIG}: label2id: {shown(label2id)} does not give each name its number"]
    expected = {name: index for index, name in enumerate(names)}
    if found == expected or list(names) == unnamed or all(name.startswith("LABEL_") for name in found):
        return []
    return [
        f"{CONFIG}: label2id: says {_in_words(found)}, and id2label {_in_words(expected)}; make the two agree"
    ]


def _in_words(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} is {index}" for name, index in list(numbers.items())[:5])


def task_problem(problem_type: Any, outputs: int) -> str | None:
    """Why outputs of that number and meaning are neither one class of several nor a number; or None."""
    if problem_type == "multi_label_classification":
        return (
            "multi_label_classification: a text has several labels at once, and all here is measured, "
            "attacked and served for one; fine-tune it for one label with: compress finetune"
        )
    if problem_type not in (None, "single_label_classification", "regression"):
        return f"{shown(problem_type)} is not known"
    if problem_type == "regression" and outputs != 1:
        return f"regression: a regression has one output, and {outputs} are named"
    if problem_type == "single_label_classification" and outputs == 1:
        return "single_label_classification: one label leaves nothing to choose; a regression has one"
    return None


@dataclass(frozen=True)
class TokenizerFacts:
    """What of a tokenizer must fit a model.

    Attributes:
        size: its highest token id, plus 1.
        missing: names of the special tokens that it does not have, of those that are needed.
        is_fast: whether it has the form that exported artifacts are served with (tokenizer.json).
        segments: how many segments the two texts of a pair have.
        gives_segments: whether it gives them to a model by itself.
        added: tokens that it adds to a pair.
    """

    size: int
    missing: tuple[str, ...] = ()
    is_fast: bool = True
    segments: int = 2
    gives_segments: bool = True
    added: int = 3


NEEDED_TOKENS = ("pad_token", "unk_token", "cls_token", "sep_token")


def tokenizer_facts(
    tokenizer: PreTrainedTokenizerBase, needed: Sequence[str] = NEEDED_TOKENS
) -> TokenizerFacts:
    """Find out what of a tokenizer must fit a model.

    Args:
        needed: names of the special tokens that it must have, such as `mask_token`.
    """
    missing = tuple(name for name in needed if getattr(tokenizer, f"{name}_id") is None)
    segments, highest = 2, max(tokenizer.get_vocab().values(), default=-1)
    if not missing:
        pair = tokenizer("a", "a", return_token_type_ids=True)
        segments = 1 + max(pair["token_type_ids"], default=0)
        # The ids of special tokens are written in the tokenizer's post-processor as well.
        highest = max([highest, *pair["input_ids"], *tokenizer("a")["input_ids"]])
    return TokenizerFacts(
        size=1 + highest,
        missing=missing,
        is_fast=bool(tokenizer.is_fast),
        segments=segments,
        gives_segments="token_type_ids" in tokenizer.model_input_names,
        added=int(tokenizer.num_special_tokens_to_add(pair=True)),
    )


def tokenizing_problem(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Why a tokenizer that could be loaded cannot tokenize a text or a pair; None if it can."""
    if tokenizer.is_fast:
        processor = tokenizer.backend_tokenizer.post_processor
        problem = processor and _template_problem(json.loads(processor.__getstate__()))
        if problem:
            return problem
    if any(getattr(tokenizer, f"{name}_id") is None for name in NEEDED_TOKENS):
        # For `tokenizer_problems` to name, with all others.
        return None
    try:
        tokenizer("a")
        tokenizer("a", "a", truncation=True, max_length=8, return_token_type_ids=True)
    except Exception as error:  # whatever transformers and tokenizers raise
        return first_line(error)
    return None


def _template_problem(processor: Mapping[str, Any]) -> str | None:
    """Why a post-processor as tokenizer.json has it names special tokens that it does not have; or None.

    The tokenizers library does not return from one that does.
    """
    for part in processor.get("processors", ()):
        if problem := _template_problem(part):
            return problem
    known = processor.get("special_tokens", {})
    for form in ("single", "pair"):
        for piece in processor.get(form, ()):
            name = piece.get("SpecialToken", {}).get("id")
            if name is not None and name not in known:
                return f"tokenizer.json: post_processor: {form}: {shown(name)} is none of its special_tokens"
    return None


def tokenizer_problems(config: Config, facts: TokenizerFacts) -> list[str]:
    """Why a tokenizer and a configuration do not belong together."""
    found = []
    for name in facts.missing:
        found.append(f"the tokenizer has no {name}; set {name} in tokenizer_config.json to one of its tokens")
    vocabulary = config.get("vocab_size", SIZES["vocab_size"])
    if _size(vocabulary, config) is None and facts.size > vocabulary:
        found.append(
            f"the tokenizer has {facts.size} tokens, the model {vocabulary} ({CONFIG}: vocab_size); restore "
            f"the tokenizer that was saved with the model, or give added tokens embeddings "
            f"(resize_token_embeddings) and train them"
        )
    return found


def length_problems(config: Config, lengths: Mapping[str, int | None]) -> list[str]:
    """Lengths in tokens, by the name of their option, that the model does not take."""
    positions = size_of(config, "max_position_embeddings")
    if _size(positions, config) is not None:
        return []
    return [
        f"{name} {length}: the model takes {positions} tokens at most ({CONFIG}: max_position_embeddings); "
        f"give --{name.replace('_', '-')} {positions} or less"
        for name, length in lengths.items()
        if length is not None and length > positions
    ]


def pair_problems(config: Config, facts: TokenizerFacts) -> list[str]:
    """Why the model cannot take two texts at once."""
    known = size_of(config, "type_vocab_size")
    if not facts.gives_segments:
        return [
            "the tokenizer gives no token_type_ids (tokenizer_config.json: model_input_names), so the model "
            "was trained without them; pairs would get them here"
        ]
    if facts.segments > known:
        return [
            f"pairs have {facts.segments} segments, and the model knows {known} ({CONFIG}: type_vocab_size); "
            f"give single texts, or a model that was trained on pairs"
        ]
    return []


def weight_problems(names: Mapping[str, str]) -> list[str]:
    """Why stored weights are no plain model's.

    Args:
        names: type of each weight, as safetensors names it (F32, I8, ...).
    """
    adapted = sorted(name for name in names if any(part in name for part in ADAPTER_WEIGHTS))
    if adapted:
        return [f"holds the weights of an adapter ({adapted[0]}); {MERGE_FIRST}"]
    # Transformers once stored the numbers of positions and segments too, whole numbers.
    other = sorted(name for name, kind in names.items() if kind not in FLOATS and not name.endswith("_ids"))
    if other:
        return [f"holds weights of type {names[other[0]]} ({other[0]}): {_QUANTIZED}"]
    return []


def fitted(config: Config, pad_token_id: int) -> dict[str, Any]:
    """A configuration that passed the checks, with those keys set that have one value here."""
    names = label_names(config)
    kept = {key: value for key, value in config.items() if key not in LEFT_OUT}
    return kept | {
        **SET_VALUES,
        "pad_token_id": pad_token_id,
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
    }


def raise_problems(source: str, problems: Sequence[str]) -> None:
    """Raise one `UserError` that names all problems of a model, if there are any."""
    if len(problems) == 1:
        raise UserError(f"{source}: {problems[0]}")
    if problems:
        listed = "; ".join(f"({number}) {problem}" for number, problem in enumerate(problems, start=1))
        raise UserError(f"{source}: has {len(problems)} problems: {listed}")


def without_heads(config: Config) -> dict[str, Any]:
    """A configuration without what it says of a classifier's head, which another one is to replace."""
    return {key: value for key, value in config.items() if key not in OF_HEADS}


def model_problems(
    config: Config,
    facts: TokenizerFacts,
    *,
    lengths: Mapping[str, int | None] | None = None,
    has_pairs: bool = False,
) -> Iterator[str]:
    """All that keeps a classifier from working to the end.

    Args:
        config: content of its `config.json`.
        lengths: tokens of the inputs that it is to take, by the name of their option.
        has_pairs: whether it is to take two texts at once.
    """
    keys = key_problems(config)
    yield from keys
    if config.get("model_type") != "bert":
        return
    yield from head_problems(config)
    yield from label_problems(config)
    yield from tokenizer_problems(config, facts)
    yield from length_problems(config, lengths or {})
    if has_pairs:
        yield from pair_problems(config, facts)
