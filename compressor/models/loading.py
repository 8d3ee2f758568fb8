"""Configurations, tokenizers and weights of directories and the hub: never code of their own, never a pickle.

The only module that calls `from_pretrained`. By default transformers asks on a terminal whether to run the
code that comes with a checkpoint, and where it cannot ask it fails in ways of its own; here a checkpoint
that needs such code is refused. A hub that cannot be reached is found out once, in a moment; from then on
the hub's cache stands for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compressor.errors import UserError, first_line
from compressor.models.encoders.keys import MERGE_FIRST, SHARED_KEYS
from compressor.models.encoders.layout import EncoderLayout
from compressor.models.encoders.registry import find_layout, layout_of_type, unknown_family
from compressor.system.hub import hub_is_reachable, hub_options, quiet

ADAPTERS = ("adapter_config.json", "adapter_model.*", "adapters.safetensors", "pytorch_adapter.bin")


def read_config(source: str) -> dict[str, Any]:
    """The content of the `config.json` of a directory or a hub id, as it stands.

    Raises:
        UserError: missing, broken, of a model with code of its own, or with an adapter beside it.
    """
    from transformers import PretrainedConfig

    check_adapter(source)
    try:
        with quiet():
            config, _ = PretrainedConfig.get_config_dict(source, **hub_options(source))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{source}: no such directory, and no model could be loaded: {_why(source, error)}"
        ) from error
    found: dict[str, Any] = config
    _check_own_code(source, "config.json", found)
    return found


def load_config(content: dict[str, Any]) -> Any:
    """The configuration of the content of a `config.json`, of its family's class.

    Raises:
        UserError: the family is not known.
    """
    return layout_of_type(content.get("model_type")).config_of(content)


def layout_of_source(source: str) -> EncoderLayout:
    """The layout of the model of a directory, a classifier's or an artifact's, or of a hub id.

    Raises:
        UserError: as `read_config`, or its family is not known.
    """
    model_type = read_config(source).get("model_type")
    found = find_layout(model_type)
    if found is None:
        raise UserError(f"{source}: config.json: model_type: {unknown_family(model_type)}")
    return found


def load_weights(model_class: Any, source: str, **options: Any) -> Any:
    """A model of that class with the safetensors weights of a directory or a hub id, in float32.

    Args:
        options: of `from_pretrained`.

    Raises:
        Exception: whatever transformers raises.
    """
    import torch

    return model_class.from_pretrained(
        source,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=torch.float32,
        **hub_options(source),
        **options,
    )


def load_any_tokenizer(source: str) -> Any:
    """The tokenizer of a directory or a hub id, in its fast form where it has one.

    Raises:
        UserError: it comes with code of its own.
        Exception: whatever transformers and tokenizers raise.
    """
    from transformers import AutoTokenizer
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    options = hub_options(source)
    _check_own_code(source, "tokenizer_config.json", get_tokenizer_config(source, **options))
    return AutoTokenizer.from_pretrained(source, use_fast=True, trust_remote_code=False, **options)


def _check_own_code(source: str, file: str, content: dict[str, Any]) -> None:
    if content.get("auto_map"):
        raise UserError(f"{source}: {file}: auto_map: {SHARED_KEYS['auto_map'].reason}")


def check_adapter(source: str) -> None:
    """Raise a `UserError` if a source holds an adapter, with or without the model that it is for."""
    path = Path(source)
    if path.is_dir():
        found = [file.name for pattern in ADAPTERS for file in sorted(path.glob(pattern))]
    else:
        from transformers.utils import cached_file

        with quiet():
            listed = cached_file(
                source,
                ADAPTERS[0],
                _raise_exceptions_for_gated_repo=False,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
                **hub_options(source),
            )
        found = [ADAPTERS[0]] if listed else []
    if found:
        raise UserError(f"{source}: {found[0]}: is an adapter, which would be left out; {MERGE_FIRST}")


def _why(source: str, error: Exception) -> str:
    """What transformers says; of a hub that cannot be reached, that it is so."""
    from huggingface_hub import constants

    if Path(source).is_dir() or hub_is_reachable():
        return first_line(error)
    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} does not answer"
    return f"it is not in the hub's cache, and {reason}"
