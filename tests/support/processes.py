"""What processes of their own do in tests; light on imports, since each of them imports it."""

import os
import signal
import time
from dataclasses import dataclass
from typing import NamedTuple

from compressor.errors import GateFailed, SeveralUserErrors, UserError


class OddError(Exception):
    """Cannot be made again from what pickle keeps of it."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


ERRORS = {
    "user": UserError("file.csv: no column 'text'; give --text-column"),
    "several": SeveralUserErrors("file.csv", ["one", "two"]),
    "gate": GateFailed("accuracy is 0.5"),
    "bug": KeyError("a key"),
    "os": FileNotFoundError(2, "No such file or directory", "here"),
}


def fail(kind):
    raise OddError("one", "two") if kind == "odd" else ERRORS[kind]


def fail_with_cause():
    try:
        {}["absent"]
    except KeyError as error:
        raise ValueError("because of it") from error


def kill_self(number):
    os.kill(os.getpid(), number)
    time.sleep(60)


def begin(*_):
    """In place of a worker's preparation."""


def square(value):
    return value * value


def square_unless_13(value):
    if value == 13:
        kill_self(signal.SIGKILL)
    return value * value


def sleep_beside(folder, name):
    """Leave a file while asleep; remove it when this ends by an exception, as what cleans up does."""
    path = folder / name
    path.write_text(str(os.getpid()))
    try:
        time.sleep(60)
    except BaseException:
        path.unlink()
        raise


def sleep_and_clean_slowly(folder, name):
    """As `sleep_beside`, with a lot to clean up."""
    try:
        sleep_beside(folder, name)
    except BaseException:
        (folder / f"{name}-cleaning").touch()
        time.sleep(1.0)
        (folder / f"{name}-cleaning").unlink()
        raise


@dataclass(frozen=True)
class Example:
    """In place of an attacked example."""

    text: str
    label: int

    def holds_out(self):
        return True


def attacked_or_killed(index, text, pair, label):
    """In place of an attack on an example: the last of five kills its process."""
    del pair
    if index == 4:
        # The others are done by then.
        time.sleep(0.5)
        kill_self(signal.SIGKILL)
    return Example(text, label)


def made_or_killed(wanted):
    """In place of the making of a candidate: one kills its process, one fails."""
    if wanted.target == 13:
        kill_self(signal.SIGKILL)
    if wanted.target == 7:
        fail("user")
    return Made(1.0, [f"about {wanted.target}"])


class Made(NamedTuple):
    """In place of what a process tells of a candidate."""

    seconds: float
    lines: list
