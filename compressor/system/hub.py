"""The Hugging Face hub: what is an id of it, whether it can be reached, and its libraries kept quiet."""

from __future__ import annotations

import functools
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# A server that is there answers in less. HF_HUB_ETAG_TIMEOUT overrides it.
HUB_SECONDS = 2.0


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


@contextmanager
def quiet() -> Iterator[None]:
    """Silence loading reports and retries: what they say is checked by the caller and raised as an error.

    Levels of logging and progress bars are as before after it.
    """
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "urllib3")]
    levels = [logger.level for logger in loggers]
    shows_bars, hub_shows_bars = (
        transformers_logging.is_progress_bar_enabled(),
        not are_progress_bars_disabled(),
    )
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
        if shows_bars:
            with warnings.catch_warnings():
                # Of bars that an environment variable turns off.
                warnings.simplefilter("ignore")
                transformers_logging.enable_progress_bar()
            if not hub_shows_bars:
                disable_progress_bars()
