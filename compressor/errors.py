"""The two failures that are not bugs. Anything else that is raised is a bug and shows its traceback."""

from __future__ import annotations

# Transformers lists all models that it knows where it does not know one.
LONGEST_LINE = 300


class UserError(Exception):
    """Bad input: one clear line that names the file, key or value and the way out. Exit code 2."""


class GateFailed(Exception):
    """A finished validation whose figures break a bound, or a failed health check. Exit code 1."""


def first_line(error: BaseException) -> str:
    """The first line of what a library says, cut, or the name of its error where it says nothing."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}..."
