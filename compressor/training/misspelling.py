"""Words as people misspell and disguise them: pure functions of a word and a generator.

The edits of letters are those of DeepWordBug (Gao et al., "Black-box Generation of Adversarial Text
Sequences to Evade Deep Learning Classifiers", 2018), and slips to a neighbouring key. Letters that look alike
are a few of Unicode's confusables (technical standard 39).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

LETTERS = "abcdefghijklmnopqrstuvwxyz"
KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
# Cyrillic, Greek and accented letters that are drawn like a Latin one.
HOMOGLYPHS: Mapping[str, str] = {
    "a": "аɑ", "c": "сϲ", "d": "ԁ", "e": "еҽ", "g": "ɡ", "h": "һ", "i": "іı", "j": "ϳ", "k": "κ", "l": "ⅼ",
    "m": "ⅿ", "n": "ո", "o": "оο", "p": "рρ", "q": "ԛ", "s": "ѕ", "u": "υս", "v": "ν", "w": "ԝ", "x": "х",
    "y": "уγ", "z": "ᴢ",
    "A": "АΑ", "B": "ВΒ", "C": "С", "E": "ЕΕ", "H": "НΗ", "I": "ІΙ", "J": "Ј", "K": "КΚ", "M": "МΜ", "N": "Ν",
    "O": "ОΟ", "P": "РΡ", "S": "Ѕ", "T": "ТΤ", "X": "ХΧ", "Y": "ҮΥ", "Z": "Ζ",
}  # fmt: skip


def _neighbouring_keys() -> dict[str, str]:
    """The keys beside, above and below each letter; rows are shifted by half a key."""
    found = {}
    for row, keys in enumerate(KEYBOARD):
        for place, key in enumerate(keys):
            beside = keys[max(0, place - 1) : place] + keys[place + 1 : place + 2]
            above = KEYBOARD[row - 1][place : place + 2] if row else ""
            below = KEYBOARD[row + 1][max(0, place - 1) : place + 1] if row + 1 < len(KEYBOARD) else ""
            found[key] = beside + above + below
    return found


KEYS_BESIDE: Mapping[str, str] = _neighbouring_keys()


def swapped(word: str, generator: np.random.Generator) -> str:
    """The word with two neighbouring letters swapped; of one letter as it is."""
    if len(word) < 2:
        return word
    place = int(generator.integers(len(word) - 1))
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]


def deleted(word: str, generator: np.random.Generator) -> str:
    """The word without one of its letters; of one letter as it is."""
    if len(word) < 2:
        return word
    place = int(generator.integers(len(word)))
    return word[:place] + word[place + 1 :]


def inserted(word: str, generator: np.random.Generator) -> str:
    """The word with a letter more, somewhere."""
    place = int(generator.integers(len(word) + 1))
    return word[:place] + _drawn(LETTERS, generator) + word[place:]


def replaced(word: str, generator: np.random.Generator) -> str:
    """The word with another letter in place of one of its own."""
    place = int(generator.integers(len(word)))
    others = LETTERS.replace(word[place].lower(), "")
    return _with_letter(word, place, _drawn(others, generator))


def mistyped(word: str, generator: np.random.Generator) -> str:
    """The word with a neighbouring key's letter in place of one of its own; as it is if it has none."""
    places = [place for place, letter in enumerate(word) if letter.lower() in KEYS_BESIDE]
    if not places:
        return word
    place = places[int(generator.integers(len(places)))]
    return _with_letter(word, place, _drawn(KEYS_BESIDE[word[place].lower()], generator))


EDITS: tuple[Callable[[str, np.random.Generator], str], ...] = (
    swapped,
    deleted,
    inserted,
    replaced,
    mistyped,
)


def misspelt(word: str, generator: np.random.Generator) -> str:
    """The word with one edit of its letters, of a kind that is drawn."""
    return EDITS[int(generator.integers(len(EDITS)))](word, generator)


def disguised(word: str, generator: np.random.Generator) -> str:
    """The word with a letter that looks alike in place of one of its own; as it is if none does."""
    places = [place for place, letter in enumerate(word) if letter in HOMOGLYPHS]
    if not places:
        return word
    place = places[int(generator.integers(len(places)))]
    return word[:place] + _drawn(HOMOGLYPHS[word[place]], generator) + word[place + 1 :]


def _drawn(letters: str, generator: np.random.Generator) -> str:
    return letters[int(generator.integers(len(letters)))]


def _with_letter(word: str, place: int, letter: str) -> str:
    """The word with a letter replaced, as large as it was."""
    own = letter.upper() if word[place].isupper() else letter
    return word[:place] + own + word[place + 1 :]
