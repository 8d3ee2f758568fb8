"""Local stand-ins for what TextAttack would download: nothing here touches the network.

TextAttack fetches NLTK data when it is imported, word vectors and a sentence encoder when
TextFooler is built. Here come a stop word list, a part-of-speech tagger (TextBlob's, whose data are
in its package), a MiniLM sentence encoder, and word vectors of a file or of that encoder. Figures
under these resources do not compare with published ones; the report names what was used.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.assets import encoder_directory
from compressor.batching import encode_texts, pad, sorted_batches
from compressor.console import Progress
from compressor.environment import cache_directory
from compressor.errors import UserError
from compressor.output import sha256_of
from compressor.recipe import AttackConfig

STOPWORDS = Path(__file__).with_name("stopwords.txt")
NEIGHBOURS = 50
LONGEST_ENCODED = 128
NEEDS = {
    "textfooler": frozenset({"word_vectors", "sentence_encoder", "part_of_speech"}),
    "textbugger": frozenset({"word_vectors", "sentence_encoder"}),
    "bertattack": frozenset({"sentence_encoder", "masked_language_model"}),
}
_TEXTATTACK_READY = "post_install_check_3"


def import_textattack() -> ModuleType:
    """Import TextAttack without its downloads and without its changes to the environment.

    NLTK's stop words are used where they are installed; otherwise the list beside this file is.
    """
    if "textattack" in sys.modules:
        return sys.modules["textattack"]
    # Imported first, so that TextAttack's setting of HF_HOME comes too late to move their caches.
    for name in ("datasets", "transformers"):
        importlib.import_module(name)
    folder = cache_directory() / "textattack"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _TEXTATTACK_READY).touch()
    _provide_stopwords()
    with _environment_restored():
        os.environ["TA_CACHE_DIR"] = str(folder)
        textattack = importlib.import_module("textattack")
    textattack.shared.utils.logger.setLevel("ERROR")
    # It segments Chinese, and tells at length how it loads.
    logging.getLogger("jieba").setLevel("ERROR")
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

    folder = cache_directory() / "nltk_data"
    target = folder / "corpora" / "stopwords" / "english"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(target, "\n".join(STOPWORDS.read_text().split()).encode())
    if str(folder) not in nltk.data.path:
        nltk.data.path.append(str(folder))


def _write_whole(path: Path, content: bytes) -> None:
    """Write a cache file so that another process never sees half of it."""
    handle, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
    Path(name).replace(path)


class SentenceEncoder:
    """Mean-pooled, normalised BERT embeddings of sentences.

    Raises:
        UserError: `directory` holds no BERT encoder.
    """

    def __init__(self, directory: Path) -> None:
        from transformers import AutoTokenizer, BertModel

        if not (directory / "config.json").is_file():
            raise UserError(f"{directory}: is no directory of a BERT sentence encoder (no config.json)")
        try:
            self._model = BertModel.from_pretrained(directory, use_safetensors=True, dtype=torch.float32)
            self.tokenizer = AutoTokenizer.from_pretrained(directory, use_fast=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"{directory}: cannot be loaded as a sentence encoder: {error}") from error
        self._model.eval()

    def encode(self, texts: Sequence[str]) -> Tensor:
        """`(texts, hidden)` float32, each of unit length."""
        # TextAttack gives the original once for every candidate that it is compared with.
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        return self.encode_each(list(places))[[places[text] for text in texts]]

    @torch.inference_mode()
    def encode_each(self, texts: Sequence[str]) -> Tensor:
        """As `encode`, without a look for texts that are alike."""
        encoded = encode_texts(self.tokenizer, texts, None, LONGEST_ENCODED)
        result = torch.empty(len(encoded), int(self._model.config.hidden_size))
        for indices in sorted_batches(encoded, 64):
            batch = pad([encoded[i] for i in indices], int(self.tokenizer.pad_token_id))
            hidden = self._model(**batch).last_hidden_state
            weights = batch["attention_mask"][:, :, None].float()
            result[indices] = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
        return torch.nn.functional.normalize(result, dim=1)


@dataclass(frozen=True)
class WordVectors:
    """Word vectors of unit length with each word's nearest neighbours.

    Attributes:
        words: `(n,)`, lower case.
        vectors: `(n, d)` float32.
        neighbours: `(n, 1 + NEIGHBOURS)` int64, by cosine, the word itself first.
        description: where they are from.
    """

    words: list[str]
    vectors: NDArray[np.float32]
    neighbours: NDArray[np.int64]
    description: str


def load_word_vectors(path: Path, progress: Progress) -> WordVectors:
    """Read word vectors from an .npz file with arrays `words` and `vectors`; neighbours are cached.

    Raises:
        UserError: no such file, or other arrays in it.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            words = [str(word) for word in arrays["words"]]
            vectors = arrays["vectors"].astype(np.float32)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: cannot be read as word vectors (an .npz with arrays words and vectors): {error}"
        ) from error
    if vectors.ndim != 2 or len(words) != len(vectors) or len(words) <= NEIGHBOURS:
        raise UserError(f"{path}: needs more than {NEIGHBOURS} words, and as many vectors as words")
    digest = sha256_of(path)
    return _with_neighbours(words, vectors, digest, f"{path.name} (sha256 {digest[:12]})", progress)


def encoded_word_vectors(directory: Path, encoder: SentenceEncoder, progress: Progress) -> WordVectors:
    """Word vectors made by a sentence encoder: one for each whole word of its vocabulary; cached."""
    vocabulary = encoder.tokenizer.get_vocab()
    words = sorted(word for word in vocabulary if word.isascii() and word.isalpha() and len(word) > 2)
    digest = hashlib.sha256((sha256_of(directory / "model.safetensors") + "\n".join(words)).encode())
    key = digest.hexdigest()
    cached = _cached_arrays(key)
    if cached is None:
        chunks = [words[i : i + 512] for i in range(0, len(words), 512)]
        tracked = progress.track(chunks, f"Encoding {len(words)} words for TextFooler")
        vectors = torch.cat([encoder.encode(chunk) for chunk in tracked]).numpy()
    else:
        vectors = cached["vectors"]
    description = f"{len(words)} words encoded by {directory.name} (sha256 {key[:12]})"
    return _with_neighbours(words, vectors, key, description, progress)


def _cached_arrays(key: str) -> dict[str, NDArray[Any]] | None:
    path = cache_directory() / "word_vectors" / f"{key}.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _with_neighbours(
    words: list[str], vectors: NDArray[np.float32], key: str, description: str, progress: Progress
) -> WordVectors:
    cached = _cached_arrays(key)
    if cached is not None:
        return WordVectors(words, cached["vectors"], cached["neighbours"], description)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)
    neighbours = nearest_neighbours(vectors, NEIGHBOURS, progress)
    folder = cache_directory() / "word_vectors"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".npz", delete=False) as stream:
        np.savez(stream, vectors=vectors, neighbours=neighbours)
    Path(stream.name).replace(folder / f"{key}.npz")
    return WordVectors(words, vectors, neighbours, description)


def nearest_neighbours(vectors: NDArray[np.float32], count: int, progress: Progress) -> NDArray[np.int64]:
    """Each vector's `count` nearest by dot product, itself first: `(n, 1 + count)` int64."""
    table = torch.from_numpy(vectors)
    result = np.empty((len(table), count + 1), dtype=np.int64)
    starts = range(0, len(table), 1024)
    for start in progress.track(starts, f"Finding neighbours of {len(table)} words"):
        scores = table[start : start + 1024] @ table.T
        rows = torch.arange(len(scores))
        # Twins of a word may tie with it; it comes first all the same.
        scores[rows, rows + start] = torch.inf
        result[start : start + 1024] = scores.topk(count + 1, dim=1).indices.numpy()
    return result


@dataclass(frozen=True)
class MaskedLanguageModel:
    """What proposes words in their context."""

    model: Any
    tokenizer: Any


def load_masked_language_model(source: str) -> MaskedLanguageModel:
    """Load a masked language model from a directory or from the hub; safetensors only.

    Raises:
        UserError: it is not there, or it is none.
    """
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    try:
        model = AutoModelForMaskedLM.from_pretrained(source, use_safetensors=True, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source, use_fast=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{source}: cannot be loaded as a masked language model: {str(error).splitlines()[0]}; give the "
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
    description: dict[str, str]


def attack_resources(config: AttackConfig, progress: Progress) -> AttackResources:
    """Load or make what the attack of that name needs.

    Raises:
        UserError: a resource is missing or broken.
    """
    needs = NEEDS.get(config.attack, frozenset())
    vectors = encoder = masked = None
    description = {}
    if "sentence_encoder" in needs:
        directory = Path(config.sentence_encoder) if config.sentence_encoder else encoder_directory()
        encoder = SentenceEncoder(directory)
        if "word_vectors" in needs:
            if config.word_vectors:
                vectors = load_word_vectors(Path(config.word_vectors), progress)
            else:
                vectors = encoded_word_vectors(directory, encoder, progress)
            description["word_vectors"] = vectors.description
        name = directory.name if config.sentence_encoder else "all-MiniLM-L6-v2"
        digest = sha256_of(directory / "model.safetensors")[:12]
        description["sentence_encoder"] = f"{name} (sha256 {digest})"
    if "part_of_speech" in needs:
        description["part_of_speech"] = f"TextBlob {version('textblob')}"
    if "masked_language_model" in needs:
        masked = load_masked_language_model(config.masked_language_model)
        weights = Path(config.masked_language_model) / "model.safetensors"
        digest = f" (sha256 {sha256_of(weights)[:12]})" if weights.is_file() else ""
        description["masked_language_model"] = f"{Path(config.masked_language_model).name}{digest}"
    return AttackResources(vectors, encoder, masked, description)
