"""Configurations, tokenizers and weights of directories and the hub: never code of their own, never a pickle.

The only module that calls `from_pretrained`. By default transformers asks on a terminal whether to run the
code that comes with a checkpoint, and where it cannot ask it fails in ways of its own; here a checkpoint
that needs such code is refused. A hub that cannot be reached is found out once, in a moment; from then on
the hub's cache stands for it.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compressor.errors import UserError, first_line
from compressor.model_checks import KEYS, MERGE_FIRST

# A server that is there answers in less. HF_HUB_ETAG_TIMEOUT overrides it.
HUB_SECONDS = 2.0
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
    """BERT's configuration of the content of a `config.json`."""
    from transformers import BertConfig

    return BertConfig.from_dict(content)


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
        raise UserError(f"{source}: {file}: auto_map: {KEYS['auto_map'].reason}")


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


def is_hub_id(source: str) -> bool:
    """Whether a text may be the id of a repository of the hub."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(source)
    except HFValidationError:
        return False
    return True


def hub_options(source: str) -> dict[str, Any]:
    """How a source is to be loaded: without a connection if it needs none, or if there is none."""
    return {"local_files_only": Path(source).is_dir() or not hub_is_reachable()}


def hub_is_reachable() -> bool:
    """Whether the hub may be asked, and answers; waits for it for `HUB_SECONDS` at most, once a process."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE and _answers(constants.ENDPOINT)


@functools.cache
def _answers(endpoint: str) -> bool:
    from huggingface_hub import get_session

    given = os.environ.get("HF_HUB_ETAG_TIMEOUT", "")
    seconds = float(given) if given.isdecimal() and int(given) else HUB_SECONDS
    answers: list[int] = []

    def ask() -> None:
        try:
            answers.append(get_session().head(endpoint, timeout=seconds).status_code)
        except Exception:  # requests or httpx, by the version: no name, no route, no certificate, no proxy
            return

    # The look-up of a name has no timeout of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answers) and answers[0] < 500


@contextmanager
def hub_data() -> Iterator[None]:
    """Within it `datasets` takes what its cache has where the hub cannot be reached."""
    import datasets
    from huggingface_hub import constants

    if hub_is_reachable():
        with quiet():
            yield
        return
    places = [(constants, "HF_HUB_OFFLINE"), (datasets.config, "HF_HUB_OFFLINE")]
    before = [getattr(module, name) for module, name in places]
    for module, name in places:
        setattr(module, name, True)
    try:
        with quiet():
            yield
    finally:
        for (module, name), value in zip(places, before, strict=True):
            setattr(module, name, value)


def _why(source: str, error: Exception) -> str:
    """What transformers says; of a hub that cannot be reached, that it is so."""
    from huggingface_hub import constants

    if Path(source).is_dir() or hub_is_reachable():
        return first_line(error)
    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} does not answer"
    return f"it is not in the hub's cache, and {reason}"


@contextmanager
def quiet() -> Iterator[None]:
    """Silence loading reports and retries: what they say is checked by the caller and raised as an error."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "urllib3")]
    levels = [logger.level for logger in loggers]
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
