"""Texts that an export works with: which of a source are not those of its proof."""

import pytest

from compressor.data.texts import TextData
from exporters.texts import places_of_others


def texts(*rows):
    firsts = [row[0] for row in rows]
    pairs = [row[1] for row in rows] if len(rows[0]) == 2 else None
    return TextData(firsts, pairs, None, [], "texts")


@pytest.mark.parametrize(
    ("drawn", "proof", "expected"),
    [
        (texts("a", "b", "c"), texts("b"), [0, 2]),
        # One text of a pair may be that of another pair.
        (texts("ab", "ac", "cb"), texts("ac"), [0, 2]),
        (texts("ab", "cd", "ef"), texts("d"), [0, 2]),
        (texts("a", "b", "c", "d"), texts("ac"), [1, 3]),
        (texts("a", "a"), texts("a"), []),
    ],
)
def test_others_are_in_no_example_of_the_proof(drawn, proof, expected):
    assert places_of_others(drawn, proof) == expected
