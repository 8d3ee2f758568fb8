"""The Hugging Face hub: what is an id of it, whether it can be reached, and its libraries kept quiet."""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from compressor.errors import first_line

# A server that is there answers in less, through a proxy and a slow line as well. That there is no such
# name or no connection is known at once. HF_HUB_ETAG_TIMEOUT overrides it.
HUB_SECONDS = 5.0
WAY_OUT = (
    "set HF_ENDPOINT (or HTTPS_PROXY) so that a hub can be reached, or fill the hub's cache with a "
    "connection and set HF_HUB_OFFLINE=1"
)
LOG_IN = "log in with: hf auth login (or set HF_TOKEN)"
# Of connections; which of them raises depends on the version of huggingface_hub.
NETWORK_LIBRARIES = ("requests", "urllib3", "httpx", "httpcore")

Kind = Literal["model", "data set"]


def split_revision(source: str) -> tuple[str, str | None]:
    """`ID@REVISION` -> the id, and the branch, tag or commit; None of an id alone."""
    name, at, revision = source.partition("@")
    return name, revision if at else None


def is_hub_id(source: str) -> bool:
    """Whether a text may be the id of a repository of the hub, or `ID@REVISION`."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    name, revision = split_revision(source)
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return revision != ""


def hub_arguments(source: str) -> tuple[str, dict[str, Any]]:
    """What a loader is given for a directory or a hub id: its name, and options.

    It does without a connection where it needs none, or where there is none.
    """
    if Path(source).is_dir():
        return source, {"local_files_only": True}
    name, revision = split_revision(source)
    options = {} if revision is None else {"revision": revision}
    return name, {"local_files_only": hub_problem() is not None, **options}


def cached_file(source: str, file: str) -> Path | None:
    """A file of a hub id in the hub's cache; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    if not is_hub_id(source):
        return None
    name, revision = split_revision(source)
    found = try_to_load_from_cache(name, file, revision=revision)
    return Path(found) if isinstance(found, str) else None


def cached_commits(data_set: str) -> dict[str, str]:
    """The commits of those revisions of a data set that the hub's cache knows, by name."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    refs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=data_set, repo_type="dataset") / "refs"
    files = [path for path in refs.rglob("*") if path.is_file()]
    return {path.relative_to(refs).as_posix(): path.read_text().strip() for path in files}


def hub_files(source: str) -> list[str]:
    """The names of the files of a hub id.

    Raises:
        Exception: whatever huggingface_hub raises.
    """
    from huggingface_hub import HfApi

    name, revision = split_revision(source)
    return list(HfApi().list_repo_files(name, revision=revision))


def hub_problem() -> str | None:
    """Why the hub cannot be asked; None if it answers.

    The hub is asked once a process, and given `HUB_SECONDS`.
    """
    from huggingface_hub import constants

    return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _probe(constants.ENDPOINT)


@functools.cache
def _probe(endpoint: str) -> str | None:
    from huggingface_hub import get_session

    given = os.environ.get("HF_HUB_ETAG_TIMEOUT", "")
    seconds = float(given) if given.isdecimal() and int(given) else HUB_SECONDS
    problems: list[str | None] = []

    def ask() -> None:
        try:
            status = get_session().head(endpoint, timeout=seconds).status_code
        except Exception as error:
            # Of requests or httpx, by the version: no name, no route, no certificate, no proxy.
            problems.append(f"{endpoint} does not answer ({_innermost(error)})")
        else:
            problems.append(f"{endpoint} answers with HTTP {status}" if status >= 500 else None)

    # The look-up of a name has no timeout of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return problems[0] if problems else f"{endpoint} does not answer within {seconds:g} seconds"


def network_or(*errors: type[Exception]) -> tuple[type[Exception], ...]:
    """These errors, and those of a lost connection, which httpx does not derive from `OSError`."""
    httpx = sys.modules.get("httpx")
    return errors if httpx is None else (*errors, httpx.HTTPError)


def hub_reason(error: Exception, kind: Kind, name: str, revision: str | None) -> str:
    """Why a repository of the hub could not be loaded, in one line with the way out.

    Args:
        error: that a library raised.
        name: the repository's id.
        revision: that was asked for; None for the default.
    """
    from huggingface_hub import constants, errors

    endpoint = constants.ENDPOINT
    chain = _chain(error)

    def raised(*classes: type[BaseException]) -> bool:
        return any(isinstance(entry, classes) for entry in chain)

    problem = hub_problem()
    if problem and (kind == "model" or raised(ConnectionError, errors.LocalEntryNotFoundError)):
        local = "directory" if kind == "model" else "file"
        way_out = f"or unset it to ask {endpoint}" if constants.HF_HUB_OFFLINE else WAY_OUT
        return f"it is not in the hub's cache, and {problem}; give a local {local}, {way_out}"
    if problem:
        return f"{first_line(error)}; {problem}"
    if kind == "data set" and isinstance(error, FileNotFoundError):
        # `datasets` drops the error that it was raised from.
        chain += _refusal(name)
    if raised(errors.GatedRepoError):
        page = f"{endpoint}/{name}" if kind == "model" else f"{endpoint}/datasets/{name}"
        return f"it is gated: accept its terms at {page}, and {LOG_IN}"
    if raised(errors.RepositoryNotFoundError):
        return f"{endpoint} has no such {kind}, or it is private: check the id, or {LOG_IN}"
    if raised(errors.RevisionNotFoundError):
        return f"it has no revision {revision or 'main'} at {endpoint}"
    is_network = any(type(entry).__module__.partition(".")[0] in NETWORK_LIBRARIES for entry in chain)
    is_local = raised(errors.LocalEntryNotFoundError)
    if is_local or (is_network and not raised(errors.EntryNotFoundError)):
        return (
            f"the download from {endpoint} failed ({_innermost(error)}); run the command again, "
            f"or check HF_ENDPOINT and the proxy"
        )
    return first_line(error)


def _refusal(data_set: str) -> list[BaseException]:
    """The error with which the hub refuses to give a data set; none where it gives it."""
    from huggingface_hub import HfApi

    try:
        HfApi().auth_check(data_set, repo_type="dataset")
    except Exception as error:  # the hub's, or of a connection
        return [error]
    return []


def _chain(error: BaseException) -> list[BaseException]:
    """An error, and those that it was raised from."""
    found: list[BaseException] = []
    entry: BaseException | None = error
    while entry is not None and entry not in found:
        found.append(entry)
        entry = entry.__cause__ or entry.__context__
    return found


def _innermost(error: BaseException) -> str:
    """What the first of a chain of errors says, such as `Connection refused`."""
    first = _chain(error)[-1]
    return (isinstance(first, OSError) and first.strerror) or first_line(first)


@contextmanager
def hub_data() -> Iterator[None]:
    """Within it `datasets` is quiet, and takes what its cache has where the hub cannot be reached.

    A request that fails is repeated by the hub's library alone: `datasets` would repeat all of that 20 times.
    """
    import datasets
    from huggingface_hub import constants

    values: list[tuple[Any, str, Any]] = [(datasets.config, "STREAMING_READ_MAX_RETRIES", 1)]
    if hub_problem() is not None:
        values += [(module, "HF_HUB_OFFLINE", True) for module in (constants, datasets.config)]
    before = [getattr(module, name) for module, name, _ in values]
    shows_bars = not datasets.utils.are_progress_bars_disabled()
    for module, name, value in values:
        setattr(module, name, value)
    datasets.utils.disable_progress_bars()
    try:
        with quiet():
            yield
    finally:
        for (module, name, _), value in zip(values, before, strict=True):
            setattr(module, name, value)
        if shows_bars:
            datasets.utils.enable_progress_bars()


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
