"""Text normalization within a tokenizer: steps in front of the normalizer of its `tokenizer.json`.

They answer characters that people do not see or cannot tell apart (Boucher et al., Bad Characters:
Imperceptible NLP Attacks, IEEE S&P 2022), in this order:

1. A character that a backspace follows goes with the backspace, up to three of them nested.
2. Controls that are not white space go, and what Unicode calls default-ignorable (zero-width and
   bidirectional characters, soft hyphens, tags, fillers), except joiners and selectors where a script or an
   emoji is written with them.
3. Characters are composed (NFC).
4. Characters that look like ASCII become it (`homoglyphs.txt`): compatibility forms of letters and digits
   everywhere, letters of other scripts only in words with a Latin letter, and letters that look like digits
   only beside ASCII digits, so that texts in Cyrillic, Greek and the like stay as they are.
5. Characters are composed again.

NFKC is not among them: it also rewrites what texts in other scripts are written with, such as Thai sara am,
the Russian numero sign and Chinese punctuation.

What replacements cannot undo stays: letters that bidirectional controls reorder keep the order in which they
are stored, words without any Latin letter stay in their script, and so do ASCII characters that look like
others (`l`, `I`, `1`). ASCII texts without control characters never change, and normalizing twice is the same
as once.

All functions are pure, but for reading the packaged table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, TypeAlias, cast

Folding: TypeAlias = Literal["always", "word", "number", "beside"]

UNICODE_VERSION = "17.0.0"
NESTED_BACKSPACES = 3
# So many characters of a word are looked at on each side of a homoglyph, so that time is linear in the text.
LONGEST_SIDE = 40

# Controls that are white space separate words.
_GONE = r"[\p{Cc}\p{Default_Ignorable_Code_Point}\x{FFF9}-\x{FFFB}&&[^\t\n\v\f\r\x{85}]]"
# Characters of these classes stay in them, so that what is kept after one is kept the next time.
_JOINED = (
    r"[[\p{L}\p{M}]&&[\p{Arabic}\p{Syriac}\p{Mongolian}\p{Devanagari}\p{Bengali}\p{Gurmukhi}\p{Gujarati}"
    r"\p{Oriya}\p{Tamil}\p{Telugu}\p{Kannada}\p{Malayalam}\p{Sinhala}\p{Khmer}\p{Myanmar}\p{Tibetan}]"
    r"&&[^\p{Default_Ignorable_Code_Point}]]"
)
_EMOJI = (
    r"[\x{A9}\x{AE}\x{203C}\x{2049}\x{2122}\x{2139}\x{2190}-\x{21FF}\x{2300}-\x{2328}\x{232B}-\x{23FF}"
    r"\x{25A0}-\x{27BF}\x{2B00}-\x{2BFF}\x{3030}\x{303D}\x{3297}\x{3299}\x{1F170}-\x{1F189}\x{1F200}-\x{1FAFF}]"
)
_KEPT = (
    rf"(?<={_JOINED})[\x{{200C}}\x{{200D}}]",
    rf"(?<={_EMOJI}\x{{FE0F}}|{_EMOJI})\x{{200D}}(?={_EMOJI})",
    rf"(?<={_EMOJI}|\p{{Han}}|\p{{Myanmar}})[\x{{FE00}}-\x{{FE0F}}]",
    r"(?<=[0-9#*])\x{FE0F}(?=\x{20E3})",
    r"(?<=\p{Han})[\x{E0100}-\x{E01EF}]",
    r"(?<=[\p{L}&&[\p{Mongolian}]])[\x{180B}-\x{180F}]",
    r"(?<=\x{1F3F4}[\x{E0020}-\x{E007E}]{0,8})[\x{E0020}-\x{E007F}]",
)
_TIMES, _MINUS = "\u00d7", "\u02d7"
# Within a class: symbols that are letters in a circle or square.
_ENCLOSED = r"\x{24B6}-\x{24E9}\x{1F12B}-\x{1F149}"
# Within a class: what words are of, with a sign that looks like a letter.
_IN_WORDS = rf"\p{{L}}\p{{M}}\p{{N}}{_TIMES}{_ENCLOSED}"
# Letters that are Latin, or always become so.
_LATIN = (
    rf"[\p{{Latin}}{_ENCLOSED}[\p{{L}}&&[\x{{2102}}-\x{{2134}}\x{{2145}}-\x{{2149}}\x{{1D400}}-\x{{1D6A3}}]]]"
)
# Within a class: digits that are ASCII, or always become it.
_DIGITS = r"0-9\x{FF10}-\x{FF19}\x{1D7CE}-\x{1D7FF}\x{1FBF0}-\x{1FBF9}"
# Alphabets that texts are written in, with letters that look like none of ASCII.
_ALPHABETS = ("Cyrillic", "Greek", "Armenian")
# Its letters stand after numbers, as in those of houses; there they must be between digits.
_COUNTED_WITH = "Cyrillic"


@dataclass(frozen=True)
class Homoglyph:
    """A character that looks like others of ASCII.

    Attributes:
        looks_like: these, in most cases one.
        folded: where it becomes them.
        script: by Unicode's name.
    """

    character: str
    looks_like: str
    folded: Folding
    script: str


@cache
def homoglyphs() -> tuple[Homoglyph, ...]:
    """Return the characters that are folded, by code point."""
    table = files(__package__).joinpath("homoglyphs.txt").read_text(encoding="utf-8")
    lines = [line.split("\t") for line in table.splitlines() if not line.startswith("#")]
    return tuple(
        Homoglyph(chr(int(code, 16)), looks_like, cast("Folding", folded), script)
        for code, looks_like, folded, script in lines
    )


@cache
def normalization_steps() -> tuple[dict[str, Any], ...]:
    """Return the steps as normalizers of a `tokenizer.json`, in their order."""
    return (
        *[_replace(r"[^\x{8}]\x{8}", "")] * NESTED_BACKSPACES,
        _replace(rf"(?!{'|'.join(_KEPT)}){_GONE}", ""),
        {"type": "NFC"},
        *_foldings(),
        _replace(_beside(_TIMES, "A-Za-z"), "x"),
        _replace(_beside(_MINUS, "A-Za-z0-9"), "-"),
        {"type": "NFC"},
    )


def is_normalized(content: Mapping[str, Any]) -> bool:
    """Return whether the normalizer in the content of a `tokenizer.json` begins with the steps."""
    steps = normalization_steps()
    return tuple(_normalizers(content)[: len(steps)]) == steps


def normalized_content(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a `tokenizer.json` with the steps in front of its normalizer, unless it has them.

    Args:
        content: as the tokenizers library writes it; it stays as it is.
    """
    if is_normalized(content):
        return dict(content)
    steps = [*normalization_steps(), *_normalizers(content)]
    return {**content, "normalizer": {"type": "Sequence", "normalizers": steps}}


def plain_content(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a `tokenizer.json` without the steps that its normalizer begins with."""
    following = _normalizers(content)[len(normalization_steps()) :]
    return {**content, "normalizer": {"type": "Sequence", "normalizers": following} if following else None}


def _normalizers(content: Mapping[str, Any]) -> list[Any]:
    """The normalizers of a `tokenizer.json`, in their order."""
    own = content.get("normalizer")
    if own is None:
        return []
    return list(own["normalizers"]) if own["type"] == "Sequence" else [own]


def _replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def _foldings() -> Iterator[dict[str, Any]]:
    """Replacements of homoglyphs, one for each of what they look like."""
    found = [glyph for glyph in homoglyphs() if glyph.folded != "beside"]
    in_word = _latin_word([glyph for glyph in found if glyph.folded == "word"])
    for look in sorted({glyph.looks_like for glyph in found}):
        of: dict[Folding, list[Homoglyph]] = {"always": [], "word": [], "number": []}
        for glyph in found:
            if glyph.looks_like == look:
                of[glyph.folded].append(glyph)
        ways = [_class(of["always"])] if of["always"] else []
        ways += [_class(of["word"]) + in_word] if of["word"] else []
        ways += [_in_number(of["number"])] if of["number"] else []
        yield _replace("|".join(ways), look)


def _class(glyphs: Sequence[Homoglyph]) -> str:
    return f"[{''.join(glyph.character for glyph in glyphs)}]"


def _latin_word(letters: Sequence[Homoglyph]) -> str:
    """Condition on a homoglyph, put after it: its word has a Latin letter, and none that only others have.

    Letters of the alphabets that look like none of ASCII say that the word is not Latin.
    """
    alike = "".join(glyph.character for glyph in letters if glyph.script in _ALPHABETS)
    others = "".join(rf"\p{{{script}}}" for script in _ALPHABETS)
    taken = f"[[{_IN_WORDS}&&[^{others}]]{alike}]"
    near = f"{taken}{{0,{LONGEST_SIDE}}}"
    whole = rf"(?={near}(?![{_IN_WORDS}]))(?<=\A{near}|[^{_IN_WORDS}]{near})"
    return rf"{whole}(?:(?={near}{_LATIN})|(?<={_LATIN}{near}))"


def _in_number(glyphs: Sequence[Homoglyph]) -> str:
    """Match homoglyphs of a digit beside an ASCII digit, with no letter and no other digit beside them."""
    counted = [glyph for glyph in glyphs if glyph.script == _COUNTED_WITH]
    others = _class([glyph for glyph in glyphs if glyph.script != _COUNTED_WITH])
    other = rf"[[{_IN_WORDS}]&&[^{_DIGITS}]]"
    found = rf"{others}(?:(?<=[{_DIGITS}].)(?!{other})|(?=[{_DIGITS}])(?<!{other}.))"
    return rf"{found}|{_class(counted)}(?<=[{_DIGITS}].)(?=[{_DIGITS}])" if counted else found


def _beside(character: str, neighbours: str) -> str:
    """Match a character with one of the neighbours beside it, and no second of its kind."""
    alone = f"(?<!{character}){character}(?!{character})"
    return f"{alone}(?:(?<=[{neighbours}].)|(?=[{neighbours}]))"
