"""The two failures that are not bugs. Anything else that is raised is a bug and shows its traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn, TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")

# Transformers lists all models that it knows where it does not know one.
LONGEST_LINE = 300


class UserError(Exception):
    """Bad input: one clear line that names the file, key or value and the way out. Exit code 2."""


class SeveralUserErrors(UserError):
    """Several independent mistakes in one input, each with a line of its own.

    Attributes:
        where: the input, such as a file.
        heading: the first line of the message.
        problems: one line each, as a `UserError` has.
    """

    def __init__(self, where: str, problems: Sequence[str]) -> None:
        self.heading = f"{len(problems)} problems in {where}:"
        super().__init__("\n".join([self.heading, *problems]))
        self.where = where
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type[SeveralUserErrors], tuple[str, tuple[str, ...]]]:
        return type(self), (self.where, self.problems)


class GateFailed(Exception):
    """A finished validation whose figures break a bound, or a failed health check. Exit code 1."""


def raise_problems(where: str, problems: Sequence[str], cause: BaseException | None = None) -> NoReturn:
    """Raise the `UserError` of one mistake, or of several in the same input.

    Args:
        where: the input, such as a file; of one mistake, its own line says it.
        problems: at least one.
    """
    if len(problems) == 1:
        raise UserError(problems[0]) from cause
    raise SeveralUserErrors(where, problems) from cause


def problems_of(error: UserError) -> list[str]:
    """The mistakes that an error names, one line each."""
    return list(error.problems) if isinstance(error, SeveralUserErrors) else [str(error)]


def read_all(where: str, read: Callable[[Item], Value], items: Iterable[Item]) -> list[Value]:
    """What `read` makes of each item, though it cannot read some.

    Args:
        where: the input that holds the items, for the error.

    Raises:
        UserError: all mistakes that were found.
    """
    values: list[Value] = []
    problems: list[str] = []
    cause: UserError | None = None
    for item in items:
        try:
            values.append(read(item))
        except UserError as error:
            cause = cause or error
            problems += [problem for problem in problems_of(error) if problem not in problems]
    if problems:
        raise_problems(where, problems, cause)
    return values


def check_all(where: str, checks: Iterable[Callable[[], object]]) -> None:
    """Make all checks, though some fail.

    Raises:
        UserError: all mistakes that they found.
    """
    read_all(where, lambda check: check(), checks)


def first_line(error: BaseException) -> str:
    """The first line of what a library says, cut, or the name of its error where it says nothing."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}..."
