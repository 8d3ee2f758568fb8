"""Resources of attacks, small enough for tests; all are made here, nothing is downloaded."""

from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.assets import encoder_directory
from compressor.data import TextData
from compressor.robustness.resources import SentenceEncoder

# Test quotes that the tests attack: their words have vectors.
ATTACKED = 12


@pytest.fixture(scope="session")
def word_vectors(tmp_path_factory: pytest.TempPathFactory, test_quotes: TextData) -> Path:
    """Vectors of the attacked words and of frequent ones, by the packaged encoder."""
    encoder = SentenceEncoder(encoder_directory())
    words = {word.lower() for text in test_quotes.texts[:ATTACKED] for word in text.split() if word.isalpha()}
    vocabulary = [w for w in encoder.tokenizer.get_vocab() if w.isascii() and w.isalpha() and len(w) > 3]
    words |= set(sorted(vocabulary)[::40])
    path = tmp_path_factory.mktemp("vectors") / "words.npz"
    np.savez(path, words=np.array(sorted(words)), vectors=encoder.encode(sorted(words)).numpy())
    return path


@pytest.fixture(scope="session")
def masked_language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM with an untrained head over its own word embeddings: it proposes words, if odd ones."""
    from transformers import AutoTokenizer, BertForMaskedLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("masked") / "model"
    BertForMaskedLM.from_pretrained(encoder_directory()).save_pretrained(folder)
    AutoTokenizer.from_pretrained(encoder_directory()).save_pretrained(folder)
    return folder
