"""What a word of a training text may be replaced by: a mixture of kinds of substitutions, with weights.

A kind is drawn for each word, of those that have something for it. Neighbours in word vectors and synonyms
are what TextFooler and PWWS replace words by, misspellings what DeepWordBug does. Stop words stay: attacks
leave them, and the answer may hang on a "not" that is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from compressor.lexicon.stopwords import STOPWORDS
from compressor.lexicon.synonyms import Synonyms, thesaurus_synonyms, wordnet_synonyms
from compressor.lexicon.word_vectors import WordVectors, encoded_word_vectors, load_word_vectors
from compressor.options import SubstitutionConfig, SubstitutionKind, parse_mixture
from compressor.system.assets import encoder_directory
from compressor.system.console import Progress
from compressor.training.misspelling import disguised, misspelt

# Cosine from which one word may stand for another: TextFooler's.
LEAST_COSINE = 0.5
# How many misspellings of a word are drawn to choose from.
VARIANTS = 4

# What may replace a word as it is written, of one kind; nothing where that has none.
Replacements = Callable[[str, np.random.Generator], Sequence[str]]


@dataclass(frozen=True)
class SubstitutionWords:
    """Words that stand for others.

    Attributes:
        vectors: whose neighbours they are; None where the mixture has none of these.
        synonyms: None where the mixture has none of these.
    """

    vectors: WordVectors | None = None
    synonyms: Synonyms | None = None

    def record(self) -> dict[str, str | None]:
        """Return where they are from, for a stage's record."""
        return {
            "substitution_vectors": None if self.vectors is None else self.vectors.description,
            "substitution_synonyms": None if self.synonyms is None else self.synonyms.description,
        }


def load_substitution_words(config: SubstitutionConfig, progress: Progress) -> SubstitutionWords:
    """Load what the kinds of a mixture need.

    Raises:
        UserError: word vectors or synonyms are missing or broken.
    """
    kinds = parse_mixture(config.substitution_mixture)
    by_thesaurus = "synonyms" in kinds and config.substitution_wordnet is None
    vectors = _vectors(config, progress) if "words" in kinds or by_thesaurus else None
    synonyms = None
    if "synonyms" in kinds:
        wordnet = config.substitution_wordnet
        if wordnet is not None:
            synonyms = wordnet_synonyms(Path(wordnet))
        elif vectors is not None:
            synonyms = thesaurus_synonyms(vectors)
    return SubstitutionWords(vectors, synonyms)


def _vectors(config: SubstitutionConfig, progress: Progress) -> WordVectors:
    """The word vectors that a recipe names, or those of the packaged encoder."""
    if config.substitution_vectors:
        return load_word_vectors(Path(config.substitution_vectors), progress)
    return encoded_word_vectors(encoder_directory(), progress)


@dataclass(frozen=True)
class Mixture:
    """What may replace a word.

    Attributes:
        kinds: of each kind what it has for a word, with its weight, in a fixed order.
        stopwords: in lower case; they stay.
    """

    kinds: Sequence[tuple[float, Replacements]]
    stopwords: frozenset[str] = frozenset()

    def replacements(self, word: str, generator: np.random.Generator) -> Sequence[str]:
        """Return what may replace a word, of a kind that is drawn among those that have something for it."""
        if word.lower() in self.stopwords:
            return ()
        left = list(self.kinds)
        while left:
            weights = np.array([weight for weight, _ in left])
            place = int(np.searchsorted(weights.cumsum(), generator.random() * weights.sum(), side="right"))
            _, drawn = left.pop(min(place, len(left) - 1))
            if found := drawn(word, generator):
                return found
        return ()


def mixture_of(config: SubstitutionConfig, words: SubstitutionWords) -> Mixture:
    """Return the mixture that options describe."""
    made: dict[SubstitutionKind, Replacements] = {
        "letters": _variants(misspelt),
        "homoglyphs": _variants(disguised),
        "casing": _cases,
        "dropped": lambda word, generator: [""],
    }
    if words.vectors is not None:
        made["words"] = _written(close_words(words.vectors))
    if words.synonyms is not None:
        made["synonyms"] = _written(_of(words.synonyms.of))
    weights = parse_mixture(config.substitution_mixture)
    return Mixture([(weight, made[kind]) for kind, weight in weights.items()], _stopwords())


def close_words(vectors: WordVectors) -> Callable[[str], Sequence[str]]:
    """A function that gives the neighbours of a word in lower case, from a cosine of 0.5 on."""
    places = {word: place for place, word in enumerate(vectors.words)}

    @cache
    def close_to(word: str) -> Sequence[str]:
        place = places.get(word)
        if place is None:
            return ()
        neighbours = vectors.neighbours[place, 1:]
        cosines = vectors.vectors[neighbours] @ vectors.vectors[place]
        return [vectors.words[other] for other in neighbours[cosines >= LEAST_COSINE]]

    return close_to


def written_as(word: str, other: str) -> str:
    """The other word with the capitals of the first."""
    if word.isupper() and len(word) > 1:
        return other.upper()
    return other.capitalize() if word[0].isupper() else other


@cache
def _stopwords() -> frozenset[str]:
    return frozenset(STOPWORDS.read_text().split())


def _of(synonyms: Mapping[str, list[str]]) -> Callable[[str], Sequence[str]]:
    # Not `get` alone: WordNet looks each word up in its files' tables.
    return cache(lambda word: synonyms.get(word, ()))


def _written(others: Callable[[str], Sequence[str]]) -> Replacements:
    """Words by their lower case, each written as the replaced one."""
    return lambda word, generator: [written_as(word, other) for other in others(word.lower())]


def _variants(edit: Callable[[str, np.random.Generator], str]) -> Replacements:
    """Some edits of a word that change it."""

    def drawn(word: str, generator: np.random.Generator) -> Sequence[str]:
        found = dict.fromkeys(edit(word, generator) for _ in range(VARIANTS))
        return [other for other in found if other != word]

    return drawn


def _cases(word: str, generator: np.random.Generator) -> Sequence[str]:
    found = dict.fromkeys((word.lower(), word.upper(), word.capitalize(), word.swapcase()))
    return [other for other in found if other != word]
