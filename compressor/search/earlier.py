"""A search beside an earlier one: is what it found better than what is in use?"""

from __future__ import annotations

from pathlib import Path

from compressor.errors import UserError
from compressor.options import Objective
from compressor.search.record import EarlierFigures, OutcomeFigures, SearchRecord, read_search

# Share by which times of one artifact differ between two runs: no less is called better.
MARGIN = 0.05


def read_earlier(directory: str, objective: Objective) -> SearchRecord:
    """Read the outcome of an earlier search, which chose an artifact.

    Args:
        directory: output of the search.
        objective: of the new one.

    Raises:
        UserError: there is none, it chose nothing, or it had another objective.
    """
    found = read_search(Path(directory))
    if found.test_figures is None:
        raise UserError(f"earlier {directory}: that search chose nothing; leave --earlier out")
    if found.objective != objective:
        raise UserError(
            f"earlier {directory}: that search was for {found.objective}, this one is for {objective}; give "
            f"--objective {found.objective}, or leave --earlier out"
        )
    return found


def held_against(record: SearchRecord, earlier: SearchRecord) -> EarlierFigures:
    """Compare the chosen artifact of a search with that of an earlier one, each on its own test texts.

    It is better if it holds its gates, and is faster or smaller, whatever the objective is, by more than
    `MARGIN`. Speeds are ratios to dense PyTorch in the same run, so that two machines can be compared.

    Args:
        earlier: chose an artifact.
    """
    old, new = earlier.test_figures, record.test_figures
    if old is None:
        raise ValueError("the earlier search chose nothing")
    past, better = _in_words(old), False
    if new is None:
        sentence = f"This search chose nothing; the earlier one has {past}."
    else:
        ratio = new.speedup / old.speedup
        if record.objective == "size":
            ratio = old.artifact.size_bytes / new.artifact.size_bytes
        better = record.verdict == "pass" and ratio > 1 + MARGIN
        gates = "" if record.gates == earlier.gates else ", which had other gates"
        word = "Better" if better else "No better"
        sentence = f"{word} than the earlier search{gates}: {_in_words(new)}, in place of {past}."
    return EarlierFigures(
        source=str(earlier.path),
        speedup=old.speedup,
        size_bytes=old.artifact.size_bytes,
        better=better,
        sentence=sentence,
    )


def _in_words(found: OutcomeFigures) -> str:
    return f"{found.speedup:.1f} times dense PyTorch, {found.artifact.size_bytes / 1e6:.1f} MB"
