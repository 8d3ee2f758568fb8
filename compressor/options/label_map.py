"""The option `label_map`: which class each label of a data set stands for.

On the command line pairs `LABEL=CLASS`, or a JSON file of one object `{"LABEL": "CLASS"}`; in a recipe also
a mapping. Whatever it is given as, the value is the mapping itself: what a run records of its options holds
all that decides how labels are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from compressor.options.section import said, shown

FORM = "write LABEL=CLASS,LABEL=CLASS or name a JSON file that holds {LABEL: CLASS}"
LARGEST = 10**18


def parse_label_map(value: Any) -> dict[str, str] | None:
    """Read a label map in any of its forms; return None if there is none.

    Args:
        value: a mapping; a text, or a list of texts, each of them pairs `LABEL=CLASS` with commas between
            them, or the path of a JSON file.

    Raises:
        PydanticCustomError: another form, a label that is given twice, or a value of another type.
    """
    if value is None:
        return None
    if isinstance(value, dict):
        return _checked(value.items())
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, list | tuple) or not all(isinstance(entry, str) for entry in entries):
        raise said(f"{FORM}, or a mapping in a recipe; {shown(value)} is none of these")
    return _checked(pair for entry in entries for pair in (_pairs(entry) if "=" in entry else _file(entry)))


LabelMap = Annotated[
    dict[str, str] | None,
    BeforeValidator(parse_label_map, json_schema_input_type=dict[str, str | int] | list[str] | str | None),
]


def _checked(pairs: Iterable[tuple[Any, Any]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for label, name in pairs:
        key = _text("label", label)
        if key in found:
            raise said(f"label {key!r} is given more than once")
        found[key] = _text(f"class of label {key!r}", name)
    if not found:
        raise said(f"is empty; {FORM}")
    return found


def _text(what: str, value: Any) -> str:
    # YAML reads yes, no, null and 1.0 as other things than texts, and a label may be any of these words.
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise said(f"the {what} must be a text or a whole number, not {shown(value)}; put a word in quotes")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise said(f"the {what} is too large a number: {shown(value)}")
    text = str(value).strip()
    if not text:
        raise said(f"the {what} is empty")
    return text


def _pairs(entry: str) -> list[tuple[str, str]]:
    pairs = [part.split("=") for part in entry.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise said(f"{shown(entry)}: {FORM}; names that hold a comma or '=' go into a file")
    return [(label, name) for label, name in pairs]


class _Object(list[tuple[str, Any]]):
    """A JSON object's pairs, so that a key that is given twice is seen."""


def _file(entry: str) -> list[tuple[str, Any]]:
    try:
        found = json.loads(Path(entry).read_text(encoding="utf-8-sig"), object_pairs_hook=_Object)
    except OSError as error:
        raise said(f"{shown(entry)}: cannot be read: {error.strerror}; {FORM}") from error
    except (ValueError, RecursionError) as error:
        raise said(f"{shown(entry)}: is no JSON: {error}") from error
    if not isinstance(found, _Object):
        raise said(f'{shown(entry)}: must hold one JSON object, such as {{"LABEL": "CLASS"}}')
    return found
