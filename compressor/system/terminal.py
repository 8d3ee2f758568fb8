"""What a command writes to its standard streams, whatever these can hold and whatever is written."""

from __future__ import annotations

import contextlib
import os
import sys
import unicodedata
from typing import TextIO

from compressor.errors import UserError

LONGEST_LINE, LONGEST_BEGINNING, LONGEST_END = 2_000, 1_500, 400
# Control characters and halves of surrogate pairs; line and paragraph separators.
_ESCAPED = {"Cc", "Cs", "Zl", "Zp"}
# They reorder what a terminal shows, so that it reads otherwise than it is.
_REORDERING = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str, keep: str = "\n\t") -> str:
    """Write what could steer a terminal, or what no encoding holds, as escapes such as `\\x1b`.

    Args:
        keep: control characters that stay.
    """
    if text.isprintable():
        return text
    return "".join(_shown(character, keep) for character in text)


def _shown(character: str, keep: str) -> str:
    if character in keep or character.isprintable():
        return character
    if character in _REORDERING or unicodedata.category(character) in _ESCAPED:
        # Such as "\n" between quotes, without these.
        return ascii(character)[1:-1]
    return character


def on_one_line(text: str) -> str:
    """A message on one line: line breaks within it, as a path may have, are written as escapes.

    Of a very long one, as a name in a file may make it, the beginning and the end, where the way out is.
    """
    line = printable(text.strip(), keep="").replace("\\t", " ")
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_BEGINNING]} ... {line[-LONGEST_END:]}"


def prepare_streams() -> None:
    """Make the standard streams take every text; to be called by a program that has them for itself.

    What their encoding does not have is written as escapes. A stream that was closed goes nowhere, so that
    no file that is opened later takes its number and with it what libraries print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free, which is this one.
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or _to_nowhere()
    sys.stderr = sys.stderr or _to_nowhere()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _to_nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123


def can_write(text: str) -> bool:
    """Whether the encoding of stdout has all characters of a text."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def write_out(text: str) -> None:
    """Print a result on stdout. A reader that has gone, as `head` does, changes nothing.

    Raises:
        UserError: stdout cannot be written, such as on a full disk.
    """
    try:
        print(text)
        sys.stdout.flush()
    except BrokenPipeError:
        silence_stdout()
    except UnicodeEncodeError:
        # Only where a program that has the streams to itself did not prepare them.
        encoding = sys.stdout.encoding
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError as error:
        silence_stdout()
        raise UserError(
            f"stdout: cannot be written: {error.strerror}; what the command writes to files is there"
        ) from error


def write_error(text: str) -> None:
    """Print lines on stderr; where that cannot be written there is nobody to complain to."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def flush_out() -> None:
    """As `write_out` of nothing: write what waits in the buffer.

    Raises:
        UserError: stdout cannot be written.
    """
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            silence_stdout()
        except OSError as error:
            silence_stdout()
            raise UserError(f"stdout: cannot be written: {error.strerror}") from error


def silence_stdout() -> None:
    """Send what is still to be printed nowhere; what waits in the buffer as well."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):
        sys.stdout = _to_nowhere()
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def stdout_is_broken() -> bool:
    """Whether the reader of stdout has gone; if so it is silenced.

    What could not be written waits in the buffer, so that another attempt fails as well.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        silence_stdout()
        return True
    except (OSError, ValueError, AttributeError):
        return False
    return False
