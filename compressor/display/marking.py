"""Two versions of a text as HTML, in which the words that differ are marked."""

from __future__ import annotations

import difflib
import re

from markupsafe import Markup

CUT = "…"


def mark_changes(original: str, perturbed: str, context: int | None = None) -> tuple[Markup, Markup]:
    """Return both texts as HTML in which the words that differ are marked.

    Args:
        context: number of equal words that are kept on either side of a change; all if None.
    """
    before, after = (re.findall(r"\S+", text) for text in (original, perturbed))
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    changes = matcher.get_opcodes()
    return (
        _marked([(tag, before[start:end]) for tag, start, end, _, _ in changes], context),
        _marked([(tag, after[start:end]) for tag, _, _, start, end in changes], context),
    )


def _marked(runs: list[tuple[str, list[str]]], context: int | None) -> Markup:
    """The runs of words one after another, those that are not equal marked."""
    same, changed = Markup("{}"), Markup("<mark>{}</mark>")
    if context is not None:
        last = len(runs) - 1
        runs = [
            (tag, _beside_changes(words, context, place > 0, place < last) if tag == "equal" else words)
            for place, (tag, words) in enumerate(runs)
        ]
    return Markup(" ").join(
        (same if tag == "equal" else changed).format(" ".join(words)) for tag, words in runs if words
    )


def _beside_changes(words: list[str], context: int, changed_before: bool, changed_behind: bool) -> list[str]:
    head = words[:context] if changed_before else []
    tail = words[len(words) - context :] if changed_behind else []
    return words if len(head) + len(tail) >= len(words) else [*head, CUT, *tail]
