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
from compressor.models.checks import CONFIG
from compressor.models.encoders.keys import MERGE_FIRST, SHARED_KEYS
from compressor.models.encoders.layout import EncoderLayout
from compressor.models.encoders.registry import find_layout, layout_of_type, unknown_family
from compressor.models.transformers_versions import read_as_written, special_tokens_of
from compressor.models.weight_files import INDEX, PICKLES, WEIGHTS
from compressor.system.hub import (
    cached_file,
    hub_arguments,
    hub_files,
    hub_problem,
    hub_reason,
    network_or,
    quiet,
    split_revision,
)

TOKENIZER = "tokenizer.json"
ADAPTERS = ("adapter_config.json", "adapter_model.*", "adapters.safetensors", "pytorch_adapter.bin")


def read_config(source: str) -> dict[str, Any]:
    """The content of the `config.json` of a directory or a hub id, as it stands.

    Raises:
        UserError: missing, broken, of a model with code of its own, or with an adapter beside it.
    """
    from transformers import PretrainedConfig

    check_adapter(source)
    name, options = hub_arguments(source)
    try:
        with quiet():
            config, _ = PretrainedConfig.get_config_dict(name, **options)
    except network_or(OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _not_loaded(source, error) from error
    if not isinstance(config, dict):
        raise UserError(f"{source}: config.json: holds no JSON object; restore the file")
    _check_own_code(source, "config.json", config)
    return config


def model_commit(source: str) -> str:
    """The commit of a hub id that its branch, tag or commit stands for now.

    Raises:
        UserError: as `read_config`.
    """
    read_config(source)
    file = cached_file(source, CONFIG)
    if file is None:
        raise UserError(f"{source}: {CONFIG}: is not in the hub's cache, where it was just read from")
    # A snapshot of the cache has the commit for its name.
    return file.parent.name


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
        UserError: a hub id has no safetensors weights.
        Exception: whatever transformers raises.
    """
    import torch

    check_hub_weights(source)
    name, hub_options = hub_arguments(source)
    return model_class.from_pretrained(
        name,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=torch.float32,
        **hub_options,
        **options,
    )


def load_any_tokenizer(source: str) -> Any:
    """The tokenizer of a directory or a hub id, as its `tokenizer.json` has it, where there is one.

    Raises:
        UserError: it comes with code of its own.
        Exception: whatever transformers and tokenizers raise.
    """
    from transformers import AutoTokenizer
    from transformers.models.auto.tokenization_auto import get_tokenizer_config
    from transformers.utils import hub

    name, options = hub_arguments(source)
    config = get_tokenizer_config(name, **options)
    _check_own_code(source, "tokenizer_config.json", config)
    tokenizer = AutoTokenizer.from_pretrained(
        name,
        use_fast=True,
        trust_remote_code=False,
        config=_family_of_tokenizer(source),
        **options,
        **special_tokens_of(config),
    )
    file = hub.cached_file(name, TOKENIZER, _raise_exceptions_for_missing_entries=False, **options)
    return tokenizer if file is None else read_as_written(tokenizer, Path(file))


def _family_of_tokenizer(source: str) -> Any:
    """A configuration that says which family's tokenizer it is; None if the tokenizer must say so itself.

    The model's own may be refused by version 5, for keys that have nothing to do with tokenizers.
    """
    if Path(source).is_dir() and not (Path(source) / CONFIG).is_file():
        return None
    content = read_config(source)
    layout = find_layout(content.get("model_type"))
    kept = {key: value for key, value in content.items() if key in ("model_type", "tokenizer_class")}
    return None if layout is None else layout.config_of(kept)


def _check_own_code(source: str, file: str, content: dict[str, Any]) -> None:
    if content.get("auto_map"):
        raise UserError(f"{source}: {file}: auto_map: {SHARED_KEYS['auto_map'].reason}")


def check_adapter(source: str) -> None:
    """Raise a `UserError` if a source holds an adapter, with or without the model that it is for."""
    path = Path(source)
    if path.is_dir():
        found = [file.name for pattern in ADAPTERS for file in sorted(path.glob(pattern))]
    else:
        from transformers.utils import hub

        name, options = hub_arguments(source)
        try:
            with quiet():
                listed = hub.cached_file(
                    name,
                    ADAPTERS[0],
                    _raise_exceptions_for_gated_repo=False,
                    _raise_exceptions_for_missing_entries=False,
                    _raise_exceptions_for_connection_errors=False,
                    **options,
                )
        except network_or(OSError, ValueError) as error:
            raise _not_loaded(source, error) from error
        found = [ADAPTERS[0]] if listed else []
    if found:
        raise UserError(f"{source}: {found[0]}: is an adapter, which would be left out; {MERGE_FIRST}")


def check_hub_weights(source: str) -> None:
    """Raise a `UserError` if a hub id has no safetensors weights, or none in the cache where there is no hub.

    Of a model that has a pickle alone transformers would ask a service to convert it, and give that service
    the user's token.
    """
    if Path(source).is_dir():
        return
    problem = hub_problem()
    if problem is not None:
        if not any(cached_file(source, name) for name in (WEIGHTS, INDEX)):
            error = OSError(f"no {WEIGHTS}")
            raise UserError(f"{source}: its weights cannot be loaded: {reason_of(source, error)}") from error
        return
    try:
        files = hub_files(source)
    except network_or(OSError, ValueError) as error:
        raise _not_loaded(source, error) from error
    if any(name in files for name in (WEIGHTS, INDEX)):
        return
    pickle = next((name for name in PICKLES if name in files), None)
    if pickle:
        raise UserError(
            f"{source}: {pickle}: is a pickle, which can run code when it is loaded, and there is no "
            f"safetensors file; take another revision (ID@REVISION), or, where you trust it, convert it "
            f"with: {conversion(source)}"
        )
    raise UserError(f"{source}: has no {WEIGHTS}; it holds {', '.join(sorted(files)[:5]) or 'no files'}")


def conversion(source: str) -> str:
    """A command that writes the safetensors form of a model whose weights are a pickle."""
    name, revision = (source, None) if Path(source).is_dir() else split_revision(source)
    target = source if Path(source).is_dir() else Path(name).name
    version = "" if revision is None else f", revision='{revision}'"
    return (
        f'python -c "from transformers import AutoModelForSequenceClassification as M; '
        f"M.from_pretrained('{name}'{version}).save_pretrained('{target}-safetensors')\""
    )


def reason_of(source: str, error: Exception) -> str:
    """Why a directory or a hub id could not be loaded, in one line."""
    return first_line(error) if Path(source).is_dir() else hub_reason(error, "model", *split_revision(source))


def _not_loaded(source: str, error: Exception) -> UserError:
    return UserError(f"{source}: no such directory, and no model could be loaded: {reason_of(source, error)}")
