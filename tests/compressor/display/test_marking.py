"""Changed words, marked in HTML."""

from __future__ import annotations

import pytest

from compressor.display.marking import mark_changes


@pytest.mark.parametrize(
    ("original", "perturbed", "marked"),
    [
        ("a b c", "a b c", ("a b c", "a b c")),
        ("a b c", "a x c", ("a <mark>b</mark> c", "a <mark>x</mark> c")),
        ("a b c d", "a d", ("a <mark>b c</mark> d", "a d")),
        ("a", "a b", ("a", "a <mark>b</mark>")),
        ("", "<i>", ("", "<mark>&lt;i&gt;</mark>")),
    ],
)
def test_mark_changes(original: str, perturbed: str, marked: tuple[str, str]) -> None:
    assert mark_changes(original, perturbed) == marked


@pytest.mark.parametrize(
    ("original", "perturbed", "marked"),
    [
        ("a b c d e", "a b X d e", ("… b <mark>c</mark> d …", "… b <mark>X</mark> d …")),
        ("a b", "X b", ("<mark>a</mark> b", "<mark>X</mark> b")),
        ("a b c d", "X b c Y", ("<mark>a</mark> b c <mark>d</mark>", "<mark>X</mark> b c <mark>Y</mark>")),
        (
            "a b c d e",
            "X b c d Y",
            ("<mark>a</mark> b … d <mark>e</mark>", "<mark>X</mark> b … d <mark>Y</mark>"),
        ),
        ("a b c", "a b c <i>", ("… c", "… c <mark>&lt;i&gt;</mark>")),
        ("a b", "a b", ("…", "…")),
    ],
)
def test_words_far_from_a_change_are_left_out(original: str, perturbed: str, marked: tuple[str, str]) -> None:
    assert mark_changes(original, perturbed, context=1) == marked


def test_no_context_leaves_the_changes_alone() -> None:
    assert mark_changes("a b c", "a X c", context=0) == ("… <mark>b</mark> …", "… <mark>X</mark> …")
