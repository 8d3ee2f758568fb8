"""Synonyms of a word, for PWWS: from WordNet's database files, or from a thesaurus and word vectors.

WordNet is read from the files that Princeton publishes (`index.noun`, `data.noun`, `noun.exc` and so on; see
its manual pages wndb and morphy), as Debian's package wordnet-base puts them into /usr/share/wordnet.
"""

from __future__ import annotations

import bz2
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from compressor.errors import UserError
from compressor.lexicon.word_vectors import WordVectors
from compressor.system.assets import QUOTES_PACKAGE, THESAURUS_FILE, asset_file
from compressor.system.files import sha256_of

# Endings that morphy takes off each part of speech, and what it puts there.
DETACHMENTS: dict[str, tuple[tuple[str, str], ...]] = {
    "noun": (
        ("s", ""),
        ("ses", "s"),
        ("ves", "f"),
        ("xes", "x"),
        ("zes", "z"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("men", "man"),
        ("ies", "y"),
    ),
    "verb": (
        ("s", ""),
        ("ies", "y"),
        ("es", "e"),
        ("es", ""),
        ("ed", "e"),
        ("ed", ""),
        ("ing", "e"),
        ("ing", ""),
    ),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}
# Cosine of two words' vectors from which they may stand for each other.
LEAST_COSINE = 0.6


@dataclass(frozen=True)
class Synonyms:
    """Single words that mean nearly the same.

    Attributes:
        of: synonyms of a word in lower case, sorted; a word without any is absent.
        description: where they are from.
    """

    of: Mapping[str, list[str]]
    description: str


class WordNet(Mapping[str, list[str]]):
    """Synonyms of every word of WordNet and of its inflected forms, as NLTK's `synsets` would find them.

    NLTK's own reader cannot take these files: it also wants `lexnames`, which wordnet-base does not have, and
    reads from the folders of its data alone.

    Args:
        directory: holds the database files.

    Raises:
        UserError: a file is missing or is none of WordNet's.
    """

    def __init__(self, directory: Path) -> None:
        try:
            self._exceptions = {pos: _exceptions(directory / f"{pos}.exc") for pos in DETACHMENTS}
            self._offsets = {pos: _index(directory / f"index.{pos}") for pos in DETACHMENTS}
            self._lemmas = {pos: _lemmas(directory / f"data.{pos}") for pos in DETACHMENTS}
        except (OSError, ValueError, IndexError) as error:
            raise UserError(
                f"{directory}: cannot be read as WordNet's database files: {error}; give the directory that "
                f"has index.noun and data.noun, such as /usr/share/wordnet of Debian's package wordnet-base"
            ) from error

    def __getitem__(self, word: str) -> list[str]:
        found = {
            lemma
            for pos in DETACHMENTS
            for form in self._base_forms(word, pos)
            for offset in self._offsets[pos][form]
            for lemma in self._lemmas[pos][offset]
            if lemma != word and "_" not in lemma
        }
        if not found:
            raise KeyError(word)
        return sorted(found)

    def __iter__(self) -> Iterator[str]:
        return iter({word for offsets in self._offsets.values() for word in offsets})

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _base_forms(self, word: str, pos: str) -> list[str]:
        """The forms of `word` that WordNet has as that part of speech (morphy)."""
        forms = self._exceptions[pos].get(word) or [
            word.removesuffix(ending) + other for ending, other in DETACHMENTS[pos] if word.endswith(ending)
        ]
        return [form for form in dict.fromkeys([word, *forms]) if form in self._offsets[pos]]


def _exceptions(path: Path) -> dict[str, list[str]]:
    rows = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {row[0]: row[1:] for row in rows if row}


def _index(path: Path) -> dict[str, list[str]]:
    """The offsets of each word's synsets."""
    offsets = {}
    for line in _entries(path):
        word, _, synsets, *rest = line.split()
        offsets[word] = rest[-int(synsets) :]
    return offsets


def _lemmas(path: Path) -> dict[str, list[str]]:
    """The words of each synset, by its offset."""
    lemmas = {}
    for line in _entries(path):
        offset, _, _, count, *rest = line.split()
        # A number follows each word; adjectives may end in (a), (p) or (ip).
        words = rest[: 2 * int(count, 16) : 2]
        lemmas[offset] = [word.split("(")[0] for word in words]
    return lemmas


def _entries(path: Path) -> Iterator[str]:
    """The lines behind the licence, which is indented."""
    with path.open(encoding="utf-8") as lines:
        yield from (line for line in lines if not line.startswith(" "))


def wordnet_synonyms(directory: Path) -> Synonyms:
    """Synonyms by WordNet.

    Raises:
        UserError: a file is missing or is none of WordNet's.
    """
    wordnet = WordNet(directory)
    digest = sha256_of(directory / "data.noun")[:12]
    return Synonyms(wordnet, f"WordNet in {directory.name} (sha256 of data.noun {digest})")


def thesaurus_synonyms(vectors: WordVectors) -> Synonyms:
    """Words under a common head of Roget's thesaurus that are near neighbours of each other as well.

    A head alone gathers hundreds of words. Some opposites remain, which WordNet would not offer.

    Raises:
        UserError: the package with the thesaurus is missing.
    """
    path = asset_file(QUOTES_PACKAGE, THESAURUS_FILE)
    heads = _thesaurus_heads(path)
    none: frozenset[str] = frozenset()
    synonyms = {}
    for word, places in zip(vectors.words, vectors.neighbours, strict=True):
        alike = vectors.vectors[places] @ vectors.vectors[places[0]] >= LEAST_COSINE
        near = {vectors.words[place] for place in places[alike]} - {word}
        found = sorted(other for other in near if heads.get(word, none) & heads.get(other, none))
        if found:
            synonyms[word] = found
    source = f"Roget's thesaurus (sha256 {sha256_of(path)[:12]})"
    return Synonyms(synonyms, f"{source} among neighbours of {vectors.description}")


def _thesaurus_heads(path: Path) -> dict[str, frozenset[str]]:
    """The heads under which the thesaurus has each single word."""
    heads = defaultdict(set)
    with bz2.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            word, _, head = line.strip().rpartition(",")
            if word.isalpha():
                heads[word.lower()].add(head)
    return {word: frozenset(found) for word, found in heads.items()}
