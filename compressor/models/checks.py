"""What a model's configuration, tokenizer and inputs must have in common; decided before any work.

Everything that decides a forward pass is known when a model is loaded: the keys of `config.json`, the
tokenizer's ids, the lengths and pairs that are asked for. Pure functions turn these facts into a list of
problems, each with the file and the key that says so. What is refused here would crash later, or would
run and answer something else than the model's authors meant.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.errors import UserError, first_line
from compressor.models.encoders.inputs import IDS, SEGMENTS, WITH_SEGMENTS
from compressor.models.encoders.keys import MERGE_FIRST, QUANTIZED, SHARED_KEYS, Config, size_problem
from compressor.models.encoders.registry import find_layout, layout_of_type, missing_family, unknown_family
from compressor.options import shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONFIG = "config.json"
DEFAULT_LABELS = 2
# Parts of the names of weights that PEFT adds to a model or renames in it.
ADAPTER_WEIGHTS = ("lora_", ".base_layer.", ".modules_to_save.", ".original_module.", "ia3_", "adapters.")
# How safetensors names the types that weights of a model that is not quantized have.
FLOATS = ("F64", "F32", "F16", "BF16")


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


def key_problems(config: Config) -> list[str]:
    """What keys say that the program cannot do, each with its key."""
    if "model_type" not in config:
        return [f"{CONFIG}: model_type: missing; {missing_family()}"]
    layout = find_layout(config["model_type"])
    if layout is None:
        # Its other keys are of another kind.
        return [f"{unknown_family(config['model_type'])} ({CONFIG}: model_type)"]
    found = []
    for name, key in layout.keys.items():
        if key.check is not None and name in config:
            problem = key.check(config[name], config)
            if problem:
                found.append(f"{CONFIG}: {name}: {problem}")
    return found


def encoder_problems(config: Config) -> list[str]:
    """What a model of any kind that is not a classifier cannot have: adapters and quantized weights."""
    found = []
    for name in ("quantization_config", "compression_config", "adapters", "peft_config"):
        check = SHARED_KEYS[name].check
        problem = check(config.get(name), config) if check is not None else None
        if problem:
            found.append(f"{CONFIG}: {name}: {problem}")
    if isinstance(config.get("model_type"), str):
        return found
    return [*found, f"{CONFIG}: model_type: missing; it says what kind of model it is"]


def head_problems(config: Config) -> list[str]:
    """Why the architectures that a configuration names are no classifier's of its family; it may name none.

    Raises:
        UserError: the family is not known.
    """
    classifier = layout_of_type(config["model_type"]).classifier_name
    named = config.get("architectures") or []
    if not isinstance(named, Sequence) or isinstance(named, str):
        return [f"{CONFIG}: architectures: {shown(named)} is no list of names"]
    names = [str(name) for name in named]
    if not names or classifier in names:
        return []
    if any(name.endswith(classifier) for name in names):
        return [
            f"is {', '.join(names)} ({CONFIG}: architectures), whose code is not known here; if it computes "
            f"what {classifier} does, write that in its place"
        ]
    return [f"is {', '.join(names)}, not a {classifier}; fine-tune it first with: compress finetune"]


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
        if problem := size_problem(count, config):
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
        padding: id of its token for padding; None if it has none.
    """

    size: int
    missing: tuple[str, ...] = ()
    is_fast: bool = True
    segments: int = 2
    gives_segments: bool = True
    added: int = 3
    padding: int | None = None


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
        pair = tokenizer("a", "a", **WITH_SEGMENTS)
        segments = 1 + max(pair[SEGMENTS], default=0)
        # The ids of special tokens are written in the tokenizer's post-processor as well.
        highest = max([highest, *pair[IDS], *tokenizer("a")[IDS]])
    return TokenizerFacts(
        size=1 + highest,
        missing=missing,
        is_fast=bool(tokenizer.is_fast),
        segments=segments,
        gives_segments=SEGMENTS in tokenizer.model_input_names,
        added=int(tokenizer.num_special_tokens_to_add(pair=True)),
        padding=tokenizer.pad_token_id,
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
        tokenizer("a", "a", truncation=True, max_length=8, **WITH_SEGMENTS)
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
    """Why a tokenizer and a configuration, of a model of any family, do not belong together."""
    found = []
    for name in facts.missing:
        found.append(f"the tokenizer has no {name}; set {name} in tokenizer_config.json to one of its tokens")
    layout = find_layout(config.get("model_type"))
    vocabulary: Any = config.get("vocab_size") if layout is None else layout.size(config, "vocab_size")
    if size_problem(vocabulary, config) is None and facts.size > vocabulary:
        found.append(
            f"the tokenizer has {facts.size} tokens, the model {vocabulary} ({CONFIG}: vocab_size); restore "
            f"the tokenizer that was saved with the model, or give added tokens embeddings "
            f"(resize_token_embeddings) and train them"
        )
    padding = None if layout is None else layout.padding_id(config)
    if padding is not None and facts.padding not in (None, padding):
        found.append(
            f"the tokenizer pads with token {facts.padding}, and the model counts positions by its token "
            f"{padding} ({CONFIG}: pad_token_id); restore the tokenizer that was saved with the model"
        )
    return found


def length_problems(config: Config, lengths: Mapping[str, int | None]) -> list[str]:
    """Lengths in tokens, by the name of their option, that the model does not take.

    Raises:
        UserError: the model's family is not known.
    """
    positions = layout_of_type(config["model_type"]).longest_input(config)
    if size_problem(positions, config) is not None:
        return []
    return [
        f"{name} {length}: the model takes {positions} tokens at most ({CONFIG}: max_position_embeddings); "
        f"give --{name.replace('_', '-')} {positions} or less"
        for name, length in lengths.items()
        if length is not None and length > positions
    ]


def pair_problems(config: Config, facts: TokenizerFacts) -> list[str]:
    """Why the model cannot take two texts at once.

    Raises:
        UserError: the model's family is not known.
    """
    layout = layout_of_type(config["model_type"])
    if SEGMENTS not in layout.inputs:
        # The tokens between the texts tell the model where the second one begins.
        return []
    known = layout.segments(config)
    if not facts.gives_segments:
        return [
            f"the tokenizer gives no {SEGMENTS} (tokenizer_config.json: model_input_names), so the model was "
            f"trained without them; pairs would get them here"
        ]
    if facts.segments > known:
        return [
            f"pairs have {facts.segments} segments, and the model knows {known} ({CONFIG}: type_vocab_size); "
            f"give single texts, or a model that was trained on pairs"
        ]
    return []


def weight_problems(names: Mapping[str, str], formats: Collection[str] = ()) -> list[str]:
    """Why stored weights are no plain model's.

    Args:
        names: type of each weight, as safetensors names it (F32, I8, ...).
        formats: the frameworks that wrote them, as their files say.
    """
    foreign = sorted(set(formats) - {"pt"})
    if foreign:
        return [
            f"its safetensors files say that another framework wrote them ({foreign[0]}); save the model "
            f"with PyTorch"
        ]
    adapted = sorted(name for name in names if any(part in name for part in ADAPTER_WEIGHTS))
    if adapted:
        return [f"holds the weights of an adapter ({adapted[0]}); {MERGE_FIRST}"]
    # Transformers once stored the numbers of positions and segments too, whole numbers.
    other = sorted(name for name, kind in names.items() if kind not in FLOATS and not name.endswith("_ids"))
    if other:
        return [f"holds weights of type {names[other[0]]} ({other[0]}): {QUANTIZED}"]
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
    if find_layout(config.get("model_type")) is None:
        return
    yield from head_problems(config)
    yield from label_problems(config)
    yield from tokenizer_problems(config, facts)
    yield from length_problems(config, lengths or {})
    if has_pairs:
        yield from pair_problems(config, facts)
