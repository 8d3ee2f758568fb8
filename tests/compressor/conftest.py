"""Resources of attacks, small enough for tests; all are made here, nothing is downloaded."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.data.texts import TextData
from compressor.lexicon.sentence_encoder import SentenceEncoder
from compressor.lexicon.word_vectors import load_word_vectors
from compressor.system.assets import encoder_directory
from compressor.system.console import SilentProgress

# Test quotes that the tests attack: their words have vectors.
ATTACKED = 12


@pytest.fixture(scope="session")
def word_vectors(tmp_path_factory: pytest.TempPathFactory, test_quotes: TextData) -> Path:
    """Vectors of the attacked words and of frequent ones, by the packaged encoder."""
    encoder = SentenceEncoder(encoder_directory(), torch.device("cpu"))
    words = {word.lower() for text in test_quotes.texts[:ATTACKED] for word in text.split() if word.isalpha()}
    vocabulary = [w for w in encoder.tokenizer.get_vocab() if w.isascii() and w.isalpha() and len(w) > 3]
    words |= set(sorted(vocabulary)[::40])
    path = tmp_path_factory.mktemp("vectors") / "words.npz"
    np.savez(path, words=np.array(sorted(words)), vectors=encoder.encode(sorted(words)).numpy())
    return path


LICENCE = "  1 This software and database is provided as is.\n"


@pytest.fixture(scope="session")
def write_wordnet() -> Callable[..., Path]:
    """A function that writes WordNet's database files: synsets by part of speech, exceptions of the verbs."""
    return _write_wordnet


def _write_wordnet(folder: Path, synsets: dict[str, list[list[str]]], exceptions: dict[str, str]) -> Path:
    for pos in ("noun", "verb", "adj", "adv"):
        data, offsets = LICENCE, defaultdict(list)
        for number, words in enumerate(synsets.get(pos, [])):
            offset = f"{number + 1:08d}"
            entries = " ".join(f"{word} 0" for word in words)
            pointers = "001 ! 00000000 n 0000"
            data += f"{offset} 00 {pos[0]} {len(words):02x} {entries} {pointers} | a gloss (of a kind)\n"
            for word in words:
                offsets[word.split("(")[0].lower()].append(offset)
        lines = [f"{w} {pos[0]} {len(o)} 1 ! {len(o)} 0 {' '.join(o)}  \n" for w, o in offsets.items()]
        (folder / f"data.{pos}").write_text(data)
        (folder / f"index.{pos}").write_text(LICENCE + "".join(lines))
        rows = exceptions.items() if pos == "verb" else ()
        (folder / f"{pos}.exc").write_text("".join(f"{word} {base}\n" for word, base in rows))
    return folder


@pytest.fixture(scope="session")
def wordnet(tmp_path_factory: pytest.TempPathFactory, word_vectors: Path) -> Path:
    """Database files in WordNet's form, in which each attacked word has its neighbours as synonyms."""
    vectors = load_word_vectors(word_vectors, SilentProgress())
    near = [[vectors.words[i] for i in places[:6]] for places in vectors.neighbours]
    return _write_wordnet(tmp_path_factory.mktemp("wordnet"), {"noun": near}, {})


@pytest.fixture(scope="session")
def masked_language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM with an untrained head over its own word embeddings: it proposes words, if odd ones."""
    from transformers import AutoTokenizer, BertForMaskedLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("masked") / "model"
    BertForMaskedLM.from_pretrained(encoder_directory()).save_pretrained(folder)
    AutoTokenizer.from_pretrained(encoder_directory()).save_pretrained(folder)
    return folder
