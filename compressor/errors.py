"""The two failures that are not bugs. Anything else that is raised is a bug and shows its traceback."""

from __future__ import annotations


class UserError(Exception):
    """Bad input: one clear line that names the file, key or value and the way out. Exit code 2."""


class GateFailed(Exception):
    """A finished validation whose figures break a bound, or a failed health check. Exit code 1."""
