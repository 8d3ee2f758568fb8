"""Local stand-ins for what TextAttack would download: nothing here touches the network.

TextAttack fetches NLTK data when it is imported, word vectors and a sentence encoder when
TextFooler is built. Here come a stop word list, a part-of-speech tagger (TextBlob's, whose data are
in its package), a MiniLM sentence encoder, and word vectors of a file or of that encoder. Figures
under these resources do not compare with published ones; the report names what was used.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from compressor.attacks.stand_ins import standing_in
from compressor.errors import UserError
from compressor.lexicon.sentence_encoder import SentenceEncoder
from compressor.lexicon.stopwords import STOPWORDS
from compressor.lexicon.synonyms import Synonyms, thesaurus_synonyms, wordnet_synonyms
from compressor.lexicon.word_vectors import WordVectors, encoded_word_vectors, load_word_vectors
from compressor.models.checks import encoder_problems, raise_problems, tokenizer_facts, tokenizer_problems
from compressor.models.classifier import load_tokenizer
from compressor.models.loading import load_weights, read_config, reason_of
from compressor.options import AttackConfig, ResourcesConfig, SynonymsConfig, attack_named
from compressor.system.assets import encoder_directory
from compressor.system.cache import cache_folder, cache_note, unwritable
from compressor.system.carried import importable
from compressor.system.console import Progress
from compressor.system.files import sha256_of, write_whole
from compressor.system.hub import network_or, quiet

_TEXTATTACK_READY = "post_install_check_3"


def import_textattack() -> ModuleType:
    """Import TextAttack, as it is carried, without its downloads, flair, and its changes to the environment.

    NLTK's stop words are used where they are installed; otherwise the list beside this file is.
    """
    if "textattack" in sys.modules:
        return sys.modules["textattack"]
    # Imported first, so that TextAttack's setting of HF_HOME comes too late to move their caches.
    for name in ("datasets", "transformers"):
        importlib.import_module(name)
    folder = cache_folder("textattack")
    _provide(folder / _TEXTATTACK_READY, "")
    _provide_stopwords()
    with _environment_restored(), importable("textattack"), standing_in():
        os.environ["TA_CACHE_DIR"] = str(folder)
        textattack = importlib.import_module("textattack")
    textattack.shared.utils.logger.setLevel("ERROR")
    # It segments Chinese, tells at length how it loads, and reads what it keeps with marshal: not from a
    # folder that everybody can write.
    logging.getLogger("jieba").setLevel("ERROR")
    importlib.import_module("jieba").dt.tmp_dir = str(cache_folder("jieba"))
    return textattack


@contextmanager
def _environment_restored() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _provide_stopwords() -> None:
    import nltk

    folder = cache_folder("nltk_data")
    target = cache_folder("nltk_data", "corpora", "stopwords") / "english"
    _provide(target, "\n".join(STOPWORDS.read_text().split()))
    if str(folder) not in nltk.data.path:
        nltk.data.path.append(str(folder))


def _provide(path: Path, text: str) -> None:
    """Write a cache file, unless it is there, so that another process never sees half of it.

    Raises:
        UserError: it cannot be written.
    """
    if path.is_file():
        return
    try:
        write_whole(path, text)
    except OSError as error:
        raise unwritable(path, error) from error


@dataclass(frozen=True)
class MaskedLanguageModel:
    """What proposes words in their context."""

    model: Any
    tokenizer: Any

    @property
    def longest(self) -> int:
        """Tokens that it takes at most, of the 512 that TextAttack gives."""
        return min(512, int(getattr(self.model.config, "max_position_embeddings", 512)))


def load_masked_language_model(source: str) -> MaskedLanguageModel:
    """Load a masked language model from a directory or from the hub; safetensors only.

    Raises:
        UserError: it is not there, or it is none.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForMaskedLM

    try:
        config = read_config(source)
        tokenizer = load_tokenizer(source)
        facts = tokenizer_facts(tokenizer, ("pad_token", "mask_token", "unk_token"))
        raise_problems(source, [*encoder_problems(config), *tokenizer_problems(config, facts)])
    except UserError as error:
        raise UserError(f"--masked-language-model: {error}") from error
    try:
        with quiet():
            model = load_weights(AutoModelForMaskedLM, source)
    except network_or(OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        raise UserError(
            f"{source}: cannot be loaded as a masked language model: {reason_of(source, error)}; give the "
            f"directory of one with --masked-language-model"
        ) from error
    return MaskedLanguageModel(model.eval(), tokenizer)


@dataclass(frozen=True)
class AttackResources:
    """What an attack needs besides a victim; None is what it does not need.

    Attributes:
        description: of each, for the records; figures under different ones do not compare.
    """

    word_vectors: WordVectors | None
    encoder: SentenceEncoder | None
    masked_language_model: MaskedLanguageModel | None
    synonyms: Synonyms | None
    description: dict[str, str]


def attack_resources(config: AttackConfig, device: torch.device, progress: Progress) -> AttackResources:
    """Load or make what the attack of that name needs.

    Args:
        device: where the sentence encoder computes.

    Raises:
        UserError: a resource is missing or broken.
    """
    attack = attack_named(config.attack)
    needs = attack.needs
    note = cache_note()
    if note:
        progress.log(note)
    vectors = encoder = masked = synonyms = None
    description = {}
    if "word_vectors" in needs:
        if config.word_vectors:
            vectors = load_word_vectors(Path(config.word_vectors), progress)
        else:
            vectors = encoded_word_vectors(sentence_encoder_directory(config), progress)
        description["word_vectors"] = vectors.description
    if "sentence_encoder" in needs:
        encoder = SentenceEncoder(sentence_encoder_directory(config), device)
        description["sentence_encoder"] = describe_sentence_encoder(config)
    if "part_of_speech" in needs:
        description["part_of_speech"] = f"TextBlob {version('textblob')}"
    if "masked_language_model" in needs:
        masked = load_masked_language_model(config.masked_language_model)
        weights = Path(config.masked_language_model) / "model.safetensors"
        digest = f" (sha256 {sha256_of(weights)[:12]})" if weights.is_file() else ""
        description["masked_language_model"] = f"{Path(config.masked_language_model).name}{digest}"
    if "synonyms" in needs:
        synonyms = load_synonyms(config, progress)
        description["synonyms"] = synonyms.description
    description |= attack.differs
    return AttackResources(vectors, encoder, masked, synonyms, description)


def sentence_encoder_directory(config: ResourcesConfig) -> Path:
    """The directory of the encoder that a recipe names, or of the packaged one.

    Raises:
        UserError: none is named, and the package is missing or broken.
    """
    return Path(config.sentence_encoder) if config.sentence_encoder else encoder_directory()


def describe_sentence_encoder(config: ResourcesConfig) -> str:
    """Its name and the start of its weights' checksum."""
    directory = sentence_encoder_directory(config)
    name = directory.name if config.sentence_encoder else "all-MiniLM-L6-v2"
    return f"{name} (sha256 {sha256_of(directory / 'model.safetensors')[:12]})"


def load_synonyms(config: SynonymsConfig, progress: Progress) -> Synonyms:
    """Synonyms by WordNet if a recipe names it, or by what packages hold.

    Raises:
        UserError: the files are missing or broken.
    """
    if config.wordnet:
        return wordnet_synonyms(Path(config.wordnet))
    return thesaurus_synonyms(encoded_word_vectors(encoder_directory(), progress))
