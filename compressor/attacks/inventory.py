"""What attacks need besides a victim: where it is from, its licence, whether it is there and whole."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from compressor.attacks.resources import (
    attack_resources,
    import_textattack,
    sentence_encoder_directory,
)
from compressor.lexicon.stopwords import STOPWORDS
from compressor.lexicon.word_vectors import cached_vectors, checksum_file, encoded_key, encoded_words
from compressor.models.classifier import WEIGHTS, load_tokenizer
from compressor.options import ATTACK_REGISTRY, AttackConfig, AttackName, ResourcesConfig, attack_named
from compressor.system.assets import (
    ENCODER_FOLDER,
    ENCODER_PACKAGE,
    ENCODER_SHA256,
    QUOTES_PACKAGE,
    THESAURUS_FILE,
    THESAURUS_SHA256,
)
from compressor.system.console import Progress
from compressor.system.files import sha256_of

State = Literal["ready", "not built", "missing", "damaged"]

MASKED_LANGUAGE_MODEL = "masked language model"
TAGGER_FILE = "textblob/en/en-lexicon.txt"
STOPWORDS_SHA256 = "5c264098f36c90b05dde6e1b2b5008597e88a0ac3d90c3895337832528a565ee"


@dataclass(frozen=True)
class Resource:
    """One asset of attacks.

    Attributes:
        attacks: those that need it; empty where all do.
        source: where it is from.
        licence: as its package or its publisher states it.
        instead_of: what TextAttack would download for it.
        option: with which another one is given; None where there is none.
        file: that holds it; None for a hub id, which the hub's own cache holds.
        pinned: SHA-256 that the file must have; None if it was given by the user.
        built: whether `compress` makes it, and may do so again.
    """

    name: str
    attacks: tuple[AttackName, ...]
    source: str
    licence: str
    instead_of: str
    option: str | None
    file: Path | None
    pinned: str | None
    built: bool = False


@dataclass(frozen=True)
class Finding:
    """What was found of a resource.

    Attributes:
        sha256: of the file; None where there is none.
    """

    resource: Resource
    state: State
    sha256: str | None


def inventory(config: ResourcesConfig) -> list[Resource]:
    """All resources, those that `config` names among them.

    Raises:
        UserError: the packaged encoder is broken.
    """
    return [
        Resource(
            "stop words",
            (),
            "a list of compress",
            "Apache-2.0",
            "NLTK's corpus stopwords",
            None,
            STOPWORDS,
            STOPWORDS_SHA256,
        ),
        _sentence_encoder(config),
        _word_vectors(config),
        Resource(
            "part of speech",
            _attacks_with("part_of_speech"),
            f"TextBlob {importlib.metadata.version('textblob')}",
            "MIT",
            "NLTK's averaged perceptron",
            None,
            _packaged("textblob", TAGGER_FILE),
            None,
        ),
        _synonyms(config),
        _masked_language_model(config),
    ]


def is_broken(finding: Finding, config: ResourcesConfig) -> bool:
    """Whether attacks cannot do with what was found. The masked language model need not be there."""
    if finding.state == "missing" and finding.resource.name == MASKED_LANGUAGE_MODEL:
        return config.masked_language_model != ResourcesConfig().masked_language_model
    return finding.state in ("missing", "damaged")


def examine(resource: Resource) -> Finding:
    """Whether a resource is there, and what was pinned; reads the whole file."""
    if resource.file is None:
        return Finding(resource, "missing", None)
    if not resource.file.is_file():
        return Finding(resource, "not built" if resource.built else "missing", None)
    found = sha256_of(resource.file)
    whole = resource.pinned is None or found == resource.pinned
    return Finding(resource, "ready" if whole else "damaged", found)


def build(config: ResourcesConfig, progress: Progress) -> None:
    """Make what is made and not there, so that the first attack need not.

    Raises:
        UserError: what it is made of is missing or broken.
    """
    import_textattack()
    options = config.model_dump()
    for name in ("textfooler", "pwws"):
        config = AttackConfig.model_validate(options | {"attack": name})
        attack_resources(config, torch.device("cpu"), progress)


def _attacks_with(need: str) -> tuple[AttackName, ...]:
    return tuple(name for name in ATTACK_REGISTRY.names if need in attack_named(name).needs)


def _packaged(package: str, file: str) -> Path | None:
    """A file of an installed package; None if the package is not installed."""
    try:
        return Path(str(importlib.metadata.distribution(package).locate_file(file)))
    except importlib.metadata.PackageNotFoundError:
        return None


def _sentence_encoder(config: ResourcesConfig) -> Resource:
    packaged = _packaged(ENCODER_PACKAGE, f"{ENCODER_FOLDER}/{WEIGHTS}")
    own = config.sentence_encoder
    return Resource(
        "sentence encoder",
        _attacks_with("sentence_encoder"),
        own or f"all-MiniLM-L6-v2 in package {ENCODER_PACKAGE}",
        "the user's" if own else "Apache-2.0",
        "Universal Sentence Encoder of TensorFlow Hub",
        "--sentence-encoder",
        Path(own) / WEIGHTS if own else packaged,
        None if own else ENCODER_SHA256,
    )


def _word_vectors(config: ResourcesConfig) -> Resource:
    attacks, instead = _attacks_with("word_vectors"), "counter-fitted GloVe vectors of TextAttack's server"
    if config.word_vectors:
        file = Path(config.word_vectors)
        return Resource(
            "word vectors", attacks, str(file), "the user's", instead, "--word-vectors", file, None
        )
    directory = sentence_encoder_directory(config)
    vectors = _encoded_vectors(directory)
    checksum = None if vectors is None else checksum_file(vectors)
    return Resource(
        "word vectors",
        attacks,
        "the sentence encoder's vocabulary, encoded by it",
        "as the sentence encoder's",
        instead,
        "--word-vectors",
        vectors,
        checksum.read_text().strip() if checksum is not None and checksum.is_file() else None,
        built=True,
    )


def _encoded_vectors(directory: Path) -> Path | None:
    """Where the vectors are that an encoder makes; None if there is no encoder to make them."""
    if not (directory / WEIGHTS).is_file():
        return None
    return cached_vectors(encoded_key(directory, encoded_words(load_tokenizer(str(directory)))))


def _synonyms(config: ResourcesConfig) -> Resource:
    own = config.wordnet
    return Resource(
        "synonyms",
        _attacks_with("synonyms"),
        own or f"Roget's thesaurus in package {QUOTES_PACKAGE}, among neighbours of MiniLM's word vectors",
        "WordNet's" if own else "Apache-2.0",
        "NLTK's corpus WordNet",
        "--wordnet",
        Path(own) / "data.noun" if own else _packaged(QUOTES_PACKAGE, THESAURUS_FILE),
        None if own else THESAURUS_SHA256,
    )


def _masked_language_model(config: ResourcesConfig) -> Resource:
    source = config.masked_language_model
    directory = Path(source)
    return Resource(
        MASKED_LANGUAGE_MODEL,
        _attacks_with("masked_language_model"),
        source if directory.is_dir() else f"{source} of the Hugging Face hub",
        "Apache-2.0" if source == "bert-base-uncased" else "the user's",
        "bert-base-uncased of the Hugging Face hub",
        "--masked-language-model",
        directory / WEIGHTS if directory.is_dir() else _cached_from_hub(source),
        None,
    )


def _cached_from_hub(source: str) -> Path | None:
    """The weights of a hub model, where an earlier download left them."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(source, WEIGHTS)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None
