"""Several attacks on the same examples: what becomes of each example under all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from compressor.attacks.records import AttackedExample
from compressor.system.checkpoint import NoCheckpoint


def under_all(attacks: Sequence[Sequence[AttackedExample]]) -> list[AttackedExample]:
    """Return what becomes of each example if all attacks may be tried on it.

    An example holds if it holds against each attack, and one that the model had wrong before does not. Of
    the attacks that succeeded, the one is told that changed the fewest words, the first of several. So the
    example holds within a word budget exactly if it does against each attack.

    Args:
        attacks: examples of each attack, the same texts in the same order.

    Raises:
        ValueError: attacks on other examples.
    """
    return [_of_one(parts) for parts in zip(*attacks, strict=True)]


def _of_one(parts: Sequence[AttackedExample]) -> AttackedExample:
    """Return what becomes of one example under the attacks whose records are given."""
    first = parts[0]
    if any(
        (part.text, part.text_pair, part.label) != (first.text, first.text_pair, first.label)
        for part in parts
    ):
        raise ValueError("other examples were attacked")
    skipped = [part for part in parts if part.outcome == "skipped"]
    succeeded = [part for part in parts if part.outcome == "succeeded"]
    if skipped:
        told = skipped[0]
    elif succeeded:
        told = min(succeeded, key=lambda part: part.words_changed * part.words)
    else:
        # Input reduction tells what it took away of texts that hold.
        told = replace(first, perturbed=first.text, perturbed_pair=first.text_pair, words_changed=0.0)
    return replace(
        told,
        queries=sum(part.queries for part in parts),
        scored=sum(part.scored for part in parts),
        seconds=round(sum(part.seconds for part in parts), 4),
    )


class KeptOfOne(NoCheckpoint):
    """The lines of one of several attacks in the checkpoint of all."""

    def __init__(self, checkpoint: NoCheckpoint, attack: str) -> None:
        self._all, self._prefix = checkpoint, f"{attack}."

    def lines(self, name: str) -> list[str]:
        """The lines that were appended under that name."""
        return self._all.lines(self._prefix + name)

    def append(self, name: str, line: str) -> None:
        """Keep one more line."""
        self._all.append(self._prefix + name, line)

    def line_names(self) -> list[str]:
        """The names under which lines were appended."""
        names = self._all.line_names()
        return [name.removeprefix(self._prefix) for name in names if name.startswith(self._prefix)]

    def open(self) -> None:
        """Make room for what is to be kept."""
        self._all.open()

    def note(self, line: str) -> None:
        """Show one line on what is kept."""
        self._all.note(line)
