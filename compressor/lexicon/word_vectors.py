"""Word vectors with each word's nearest neighbours: of a file, or made by a sentence encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from compressor.errors import UserError
from compressor.lexicon.sentence_encoder import SentenceEncoder
from compressor.models.classifier import model_content
from compressor.system.cache import cache_directory, cache_folder, unwritable
from compressor.system.code_version import code_version
from compressor.system.console import Progress
from compressor.system.environment import package_versions
from compressor.system.files import json_sha256, replaced_file, sha256_of, write_whole

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NEIGHBOURS = 50
COMPUTING = ("torch", "transformers", "tokenizers", "numpy")


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
    """Read word vectors from a file; neighbours are cached.

    Args:
        path: an .npz file with arrays `words` and `vectors`, or text as GloVe and counter-fitted vectors are
            published: on each line a word and its numbers.

    Raises:
        UserError: no such file, or another content.
    """
    try:
        words, vectors = _of_arrays(path) if path.suffix == ".npz" else _of_text(path)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: cannot be read as word vectors (an .npz with arrays words and vectors, or text with a "
            f"word and its numbers on each line): {error}"
        ) from error
    if vectors.ndim != 2 or len(words) != len(vectors) or len(words) <= NEIGHBOURS:
        raise UserError(f"{path}: needs more than {NEIGHBOURS} words, and as many vectors as words")
    if not np.isfinite(vectors).all():
        raise UserError(f"{path}: has a number that is not finite")
    digest = sha256_of(path)
    key = _cache_key({"file": digest})
    return _with_neighbours(words, vectors, key, f"{path.name} (sha256 {digest[:12]})", progress)


def _of_arrays(path: Path) -> tuple[list[str], NDArray[np.float32]]:
    with np.load(path, allow_pickle=False) as arrays:
        return [str(word) for word in arrays["words"]], arrays["vectors"].astype(np.float32)


def _of_text(path: Path) -> tuple[list[str], NDArray[np.float32]]:
    """Words and vectors of a text file; a first line with two numbers, as word2vec writes it, is left out.

    Raises:
        ValueError: a line of another length than the first, or without numbers.
    """
    words: list[str] = []
    rows: list[NDArray[np.float32]] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            word, *numbers = line.rstrip().split(" ")
            if number == 1 and len(numbers) == 1:
                continue
            try:
                row = np.array(numbers, dtype=np.float32)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
            if not len(row) or (rows and len(row) != len(rows[0])):
                length = f"{len(rows[0])} as in those above" if rows else "one and more"
                raise ValueError(f"line {number}: {len(row)} numbers, not {length}")
            words.append(word)
            rows.append(row)
    return words, np.array(rows, dtype=np.float32)


def encoded_word_vectors(directory: Path, progress: Progress) -> WordVectors:
    """Word vectors made by the sentence encoder of a directory: one for each whole word it knows; cached.

    Raises:
        UserError: `directory` holds no BERT encoder.
    """
    # On the CPU everywhere, so that what is kept does not depend on who made it first.
    encoder = SentenceEncoder(directory, torch.device("cpu"))
    words = encoded_words(encoder.tokenizer)
    key = encoded_key(directory, words)
    content = sha256_of(directory / "model.safetensors") + "\n".join(words)
    digest = hashlib.sha256(content.encode()).hexdigest()
    cached = _cached_arrays(key)
    if cached is None:
        chunks = [words[i : i + 512] for i in range(0, len(words), 512)]
        tracked = progress.track(chunks, f"Encoding {len(words)} words for TextFooler")
        vectors = torch.cat([encoder.encode(chunk) for chunk in tracked]).numpy()
    else:
        vectors = cached["vectors"]
    description = f"{len(words)} words encoded by {directory.name} (sha256 {digest[:12]})"
    return _with_neighbours(words, vectors, key, description, progress)


def encoded_words(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The whole words of an encoder's vocabulary."""
    return sorted(w for w in tokenizer.get_vocab() if w.isascii() and w.isalpha() and len(w) > 2)


def encoded_key(directory: Path, words: list[str]) -> str:
    """What the vectors of these words by that encoder are kept under."""
    return _cache_key({"encoder": model_content(str(directory)), "words": words})


def _cache_key(made_of: Mapping[str, Any]) -> str:
    """A SHA-256 over all that decides vectors and neighbours: what they are made of, by which code."""
    code = {"code": code_version(__name__), "packages": package_versions(COMPUTING)}
    return json_sha256({**made_of, **code})


def cached_vectors(key: str) -> Path:
    """Where vectors and neighbours are kept; beside the file is its checksum."""
    return cache_directory() / "word_vectors" / f"{key}.npz"


def checksum_file(path: Path) -> Path:
    """Where the SHA-256 of a cached file is kept."""
    return path.with_name(f"{path.name}.sha256")


def _cached_arrays(key: str) -> dict[str, NDArray[Any]] | None:
    path = cached_vectors(key)
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
    path = cached_vectors(key)
    cache_folder("word_vectors")
    try:
        with replaced_file(path) as working:
            with working.open("wb") as stream:
                np.savez(stream, vectors=vectors, neighbours=neighbours)
            write_whole(checksum_file(path), sha256_of(working) + "\n")
    except OSError as error:
        raise unwritable(path, error) from error
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
