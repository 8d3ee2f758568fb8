"""Word vectors of files, and each word's neighbours."""

import numpy as np
import pytest

from compressor.errors import UserError
from compressor.lexicon.word_vectors import load_word_vectors, nearest_neighbours
from compressor.system.console import SilentProgress

WORDS = [f"word{number}" for number in range(60)]


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))


def text_of(vectors):
    rows = [" ".join([word, *map(repr, row.tolist())]) for word, row in zip(WORDS, vectors, strict=True)]
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize("first_line", ["", "60 4\n"])
def test_text_gives_what_arrays_give(tmp_path, vectors, first_line):
    np.savez(tmp_path / "v.npz", words=np.array(WORDS), vectors=vectors)
    (tmp_path / "v.txt").write_text(first_line + text_of(vectors))
    arrays, text = (load_word_vectors(tmp_path / name, SilentProgress()) for name in ("v.npz", "v.txt"))
    assert text.words == arrays.words == WORDS
    np.testing.assert_array_equal(text.vectors, arrays.vectors)
    np.testing.assert_array_equal(text.neighbours, arrays.neighbours)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("odd 1 2 3\n", "line 61: 3 numbers, not 4 as in those above"),
        ("odd 1 2 3 four\n", "line 61: could not convert string to float: 'four'"),
        ("odd\n", "line 61: 0 numbers, not 4"),
        ("odd 1 2 3 nan\n", "a number that is not finite"),
    ],
)
def test_bad_text_is_refused_and_the_line_named(tmp_path, vectors, line, what):
    (tmp_path / "v.txt").write_text(text_of(vectors) + line)
    with pytest.raises(UserError, match=rf"v\.txt: .*{what}"):
        load_word_vectors(tmp_path / "v.txt", SilentProgress())


def test_neighbours_are_the_nearest_with_the_word_itself_first():
    vectors = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[7] = vectors[3]  # twins tie
    found = nearest_neighbours(vectors, 5, SilentProgress())
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, np.inf)
    expected = np.sort(scores, axis=1)[:, ::-1][:, :6]
    assert (found[:, 0] == np.arange(200)).all()
    np.testing.assert_allclose(np.take_along_axis(scores, found, axis=1), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "content",
    [
        {"words": np.array(["a"] * 60), "vectors": np.zeros((59, 3))},
        {"words": np.array(["a"]), "vectors": np.zeros((1, 3))},
        {"other": np.zeros(3)},
        {"words": np.array(["a"] * 60, dtype=object), "vectors": np.zeros((60, 3))},
        {"words": np.array(["a"] * 60), "vectors": np.full((60, 3), np.nan)},
    ],
)
def test_bad_arrays_are_refused(tmp_path, content):
    path = tmp_path / "v.npz"
    np.savez(path, **content)
    with pytest.raises(UserError, match=r"v\.npz"):
        load_word_vectors(path, SilentProgress())
