"""Where transformers 4.57 and 5 differ: all else here is written once, for both."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.system.files import read_json, write_json

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Options of `tokenizer_config.json`, and their names in the normalizer that has them.
_NORMALIZER_OPTIONS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
TOKENIZER_CONFIG = "tokenizer_config.json"
# What version 5 writes of how a tokenizer was loaded.
_OF_LOADING = ("backend", "is_local", "local_files_only")
_EXTRA = "extra_special_tokens"
_ADDED = "added_tokens_decoder"
# Parts of `tokenizer.json` that decide on the ids of a text.
_DECISIVE = ("added_tokens", "normalizer", "pre_tokenizer", "post_processor", "model")


def read_as_written(tokenizer: PreTrainedTokenizerBase, file: Path) -> PreTrainedTokenizerBase:
    """Replace a tokenizer by one that takes its `tokenizer.json` as it is, where it does not.

    Version 5 builds the tokenizers of many families anew from the vocabulary in the file, with the family's
    normalizer, words and template; version 4 takes the file as it is, but for the normalizer's options of
    `tokenizer_config.json`. The same holds here for both.

    Args:
        tokenizer: what `AutoTokenizer` made of the files.
        file: the `tokenizer.json`.

    Raises:
        Exception: whatever the tokenizers library raises of a broken file.
    """
    import transformers
    from tokenizers import Tokenizer

    if not _is_5() or type(tokenizer) is transformers.TokenizersBackend:
        return tokenizer
    backend = Tokenizer.from_file(str(file))
    _set_normalizer(backend, tokenizer)
    options = tokenizer.init_kwargs | {"model_input_names": tokenizer.model_input_names}
    written = transformers.TokenizersBackend(tokenizer_object=backend, **options)
    parts = [decisive_parts(json.loads(one.backend_tokenizer.to_str())) for one in (written, tokenizer)]
    return tokenizer if parts[0] == parts[1] else written


def mask_for_graph(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask of padding that gives an exported graph as few nodes with version 5 as with version 4.

    Version 5 makes a mask for each pair of tokens, with an index of two numbers for each.

    Args:
        mask: (batch, sequence) int64, 1 where there is a token.
        dtype: of the model's arithmetic.

    Returns:
        what the model's `forward` takes: with version 5 (batch, 1, 1, sequence) of `dtype`, to be added to
        the scores of attention.
    """
    return _added_mask(mask, dtype) if _is_5() else mask


def masks_with_window(mask: Tensor, dtype: torch.dtype, window: int) -> Any:
    """Make what an encoder with global and local attention takes as the mask of a graph.

    Args:
        mask: `(batch, sequence)` int64, 1 where there is a token.
        dtype: of the model's arithmetic.
        window: how far from a token those are, at most, that it attends to locally.

    Returns:
        With version 5, by the kind of attention, `(batch, 1, 1 or sequence, sequence)` of `dtype`, to be
        added to the scores; version 4 makes as few nodes of the mask itself.
    """
    import torch

    if not _is_5():
        return mask
    places = torch.arange(mask.shape[1], device=mask.device)
    near = (places[:, None] - places[None, :]).abs() <= window
    # A sum of two lowest numbers would be an infinity, and rows of these are not a number after the softmax.
    seen = mask[:, None, None, :].to(dtype) * near.to(dtype)
    return {
        "full_attention": _added_mask(mask, dtype),
        "sliding_attention": (1.0 - seen) * torch.finfo(dtype).min,
    }


def make_rotations_plain(attention: Any) -> None:
    """Let a self-attention compute its rotations without a product of matrices, as version 5 does.

    Version 4 has one in each self-attention, in float32 also where all else is in half precision.
    """
    rotary = getattr(attention, "rotary_emb", None)
    if rotary is None:
        return
    import torch

    def rotations(states: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        angles = position_ids[..., None].float() * rotary.inv_freq.float()
        both = torch.cat((angles, angles), dim=-1)
        scaling, dtype = rotary.attention_scaling, states.dtype
        return (both.cos() * scaling).to(dtype), (both.sin() * scaling).to(dtype)

    rotary.forward = rotations


def attention_inputs(
    hidden_states: Tensor | None = None,
    attention_mask: Tensor | None = None,
    *_: Any,
    query: Tensor | None = None,
    mask: Tensor | None = None,
    **__: Any,
) -> tuple[Tensor, Tensor | None]:
    """Return the hidden states and the mask of what an encoder layer calls its eager self-attention with.

    Version 4 calls DistilBERT's with the states as `query` and with the mask of padding.

    Returns:
        `(batch, sequence, hidden)`, and what is added to the scores.
    """
    if hidden_states is not None:
        return hidden_states, attention_mask
    if query is None:
        raise TypeError("self-attention is called without hidden states")
    return query, None if mask is None else _added_mask(mask, query.dtype)


def _added_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Make of a mask `(batch, sequence)`, 1 at tokens, one that is added: `(batch, 1, 1, sequence)`."""
    import torch

    return (1.0 - mask[:, None, None, :].to(dtype)) * torch.finfo(dtype).min


def special_tokens_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `from_pretrained` with which version 4 reads the special tokens that version 5 wrote.

    Args:
        config: content of `tokenizer_config.json`.
    """
    names = config.get(_EXTRA)
    if _is_5() or not isinstance(names, list):
        return {}
    return {_EXTRA: {}, "additional_special_tokens": names}


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Write a tokenizer's files so that both versions read the same tokenizer from them."""
    tokenizer.save_pretrained(directory)
    config = read_json(directory / TOKENIZER_CONFIG)
    kept = {key: value for key, value in config.items() if key not in _OF_LOADING}
    if isinstance(kept.get(_EXTRA), list):
        # Version 4 has names of attributes under this key.
        kept["additional_special_tokens"] = kept.pop(_EXTRA)
    if kept["tokenizer_class"] == "TokenizersBackend":
        # Version 4 does not know that name of the class.
        kept = as_generic(kept, tokenizer)
    write_json(directory / TOKENIZER_CONFIG, kept)


def as_generic(config: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return the content of `tokenizer_config.json` with the class that takes `tokenizer.json` as it is.

    Args:
        config: content that was written for the tokenizer.
    """
    return {
        **config,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": tokenizer.model_input_names,
    }


def with_new_ids(config: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """Return the content of `tokenizer_config.json` with new token ids; version 4 writes ids there.

    Args:
        kept: old ids in the order of the new ones; added tokens are among them.
    """
    if _ADDED not in config:
        return dict(config)
    places = {str(old): str(new) for new, old in enumerate(kept)}
    return {**config, _ADDED: {places[old]: token for old, token in config[_ADDED].items()}}


def _is_5() -> bool:
    import transformers

    return hasattr(transformers, "TokenizersBackend")


def _set_normalizer(backend: Tokenizer, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a tokenizer's options to a normalizer that has them, as version 4 does."""
    for name, key in _NORMALIZER_OPTIONS.items():
        if hasattr(tokenizer, name) and hasattr(backend.normalizer, key):
            setattr(backend.normalizer, key, getattr(tokenizer, name))


def decisive_parts(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of the content of a `tokenizer.json` that decide on the ids of a text."""
    return {name: content[name] for name in _DECISIVE}


def takes_out_heads(model_class: type[PreTrainedModel]) -> bool:
    """Whether models of a class lack the heads that `pruned_heads` lists; version 5 does not heed it."""
    return hasattr(model_class, "prune_heads")


def has_fused_attention(model_class: type[PreTrainedModel]) -> bool:
    """Whether models of a class can compute attention with PyTorch's fused kernel ("sdpa")."""
    return bool(getattr(model_class, "_supports_sdpa", False))


def names_of_mismatched(keys: Iterable[Any]) -> list[str]:
    """Names of weights of another shape: version 5 reports each with two shapes."""
    return sorted(key if isinstance(key, str) else str(key[0]) for key in keys)


def hidden_states_of(output: Any) -> Tensor:
    """Hidden states that an encoder layer returns: in a tuple before version 5."""
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found
