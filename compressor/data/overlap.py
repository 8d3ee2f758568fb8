"""Texts that a model was made with and is tested on: counted, and refused unless they are allowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from compressor.data.texts import TextData
from compressor.errors import UserError
from compressor.system.files import read_json

FIRST_ROWS = 5
# Records of stages that made a model of texts, and what these texts are to it.
MADE_WITH = {"training.json": "train", "soup.json": "train", "pruning.json": "calibration"}


def shared_rows(data: TextData, test: TextData) -> list[int]:
    """Rows of `data`, from 0, whose text and second text are those of a test example, white space apart."""
    tested = set(_texts(test))
    return [row for row, text in enumerate(_texts(data)) if text in tested]


def _texts(data: TextData) -> Iterator[tuple[str, str]]:
    for text, pair in zip(data.texts, data.pairs or [""] * len(data), strict=True):
        yield " ".join(text.split()), " ".join(pair.split())


def check_shared(key: str, data: TextData, test: TextData, *, allowed: bool) -> int:
    """Count the texts of `data` that are test texts too.

    Args:
        key: of the data in a recipe.
        allowed: whether there may be some.

    Raises:
        UserError: there are some, and they are not allowed.
    """
    rows = shared_rows(data, test)
    if rows and not allowed:
        first = ", ".join(str(row + 1) for row in rows[:FIRST_ROWS])
        more = ", ..." if len(rows) > FIRST_ROWS else ""
        raise UserError(
            f"{key}: {data.source}: {len(rows)} of its {len(data)} texts are test texts too ({test.source}), "
            f"in rows {first}{more}, so a test would not be of new texts; leave these rows out, or allow it "
            f"with data.allow_test_texts: true (--set data.allow_test_texts=true)"
        )
    return len(rows)


def check_made_with(directories: Mapping[str, str], test: TextData, *, allowed: bool) -> dict[str, int]:
    """Find models whose record says that they were made with the very test texts.

    Args:
        directories: of the models, by name; hub ids have no record.
        allowed: whether they may be.

    Returns:
        Number of test texts by what they were to a model, "train" or "calibration"; 0 where its record names
        other texts.

    Raises:
        UserError: there is one, and it is not allowed.
    """
    found: dict[str, int] = {}
    for directory in directories.values():
        for record, role in MADE_WITH.items():
            path = Path(directory) / record
            if not path.is_file():
                continue
            same = _is_of(read_json(path), test)
            if same and not allowed:
                raise UserError(
                    f"{test.source}: are the texts that {directory} was made with ({path}), so a test would "
                    f"not be of new texts; give others with --data, or allow it with --allow-test-texts"
                )
            found[role] = max(found.get(role, 0), len(test) if same else 0)
    return found


def _is_of(record: Any, test: TextData) -> bool:
    """Whether a record names the test texts as its data."""
    data = record.get("data") if isinstance(record, dict) else None
    if not isinstance(data, dict):
        return False
    # Labels are part of the fingerprint; earlier versions knew no other one.
    return test.texts_fingerprint == data.get("texts") or test.fingerprint == data.get("fingerprint")
