"""What of a search's time is left, and of the number of candidates that it may try."""

from __future__ import annotations

from collections.abc import Sequence

from compressor.options import SearchConfig
from compressor.search.record import CandidateFigures


def why_over(
    found: Sequence[CandidateFigures], tried: int, config: SearchConfig, *, is_made: bool
) -> str | None:
    """Return why no other candidate is begun; None if one is. The first one always is.

    Args:
        found: all candidates, of which the first is an exported dense model.
        tried: how many were pruned for this latency table.
        is_made: whether the next one has only to be measured, as exported dense models, which are slower.
    """
    if not found:
        return None
    used = sum(one.seconds for one in found)
    longest = max(one.seconds for one in found if one.target is None or not is_made)
    if used + longest > 60 * config.budget_minutes:
        return f"the time is up: {used / 60:.1f} of {config.budget_minutes:g} minutes are used"
    if tried >= config.candidates:
        return f"{config.candidates} candidates were tried"
    return None


def most_begun(found: Sequence[CandidateFigures], tried: int, config: SearchConfig) -> int:
    """Return how many candidates can begin at most, one after the other; the next one does.

    Each is thought to take as long as the longest before it, as if none were made ahead: near the end of the
    time nothing is made that would not be measured.
    """
    left = config.candidates - tried
    longest = max(one.seconds for one in found)
    seconds = 60 * config.budget_minutes - sum(one.seconds for one in found)
    return left if left * longest <= seconds else max(1, int(seconds / longest))
