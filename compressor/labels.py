"""Labels as they stand in a data set become class indices, or a regression's numbers. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from compressor.errors import UserError
from compressor.options import TaskName, shown

# Of a regression's model, which has one output; a model with one label name is a regression.
NUMBER_NAMES = ("score",)


def task_of(label_names: Sequence[str]) -> TaskName:
    """What a model with these labels does: one output is a number, several are classes."""
    return "regression" if len(label_names) == 1 else "classification"


@dataclass(frozen=True)
class Column:
    """A column of a data set, for errors."""

    source: str
    name: str

    def __str__(self) -> str:
        return f"{self.source}: column {self.name!r}"

    def row(self, index: int) -> str:
        """One of its rows, of an index from 0."""
        return f"{self.source}: row {index + 1}: column {self.name!r}"


def class_labels(
    column: Column,
    raw: Sequence[Any],
    label_names: Sequence[str] | None,
    feature_names: Sequence[str] | None,
    needed: bool,
) -> tuple[list[int] | None, list[str]]:
    """Class indices and names; no indices where a label is missing and none are needed.

    Args:
        raw: the column's values.
        label_names: the model's classes; None takes the data's own.
        feature_names: the names that the data set declares, if it does.
        needed: whether all labels must be there, with at least two classes.

    Raises:
        UserError: a label that is missing or that the model does not know, one class only, or numbers.
    """
    keys = [str(int(v)) if isinstance(v, float) and v.is_integer() else str(v).strip() for v in raw]
    for row, (value, key) in enumerate(zip(raw, keys, strict=True)):
        if value is None or key in ("", "nan", "-1"):
            if not needed:
                return None, list(label_names or [])
            raise UserError(f"{column.row(row)} has no label; drop the row or fill it")
    if label_names is None and _are_measurements(keys):
        if not needed:
            return None, []
        number = next(key for key in keys if not float(key).is_integer())
        raise UserError(
            f"{column}: has numbers such as {number}, and no classes; for a model that gives a number use: "
            f"compress finetune --task regression"
        )
    numeric = all(key.isdecimal() for key in keys)
    if label_names is None:
        known = feature_names or sorted(set(keys), key=(lambda k: (int(k), k)) if numeric else str)
        label_names = known
    by_name = {name: index for index, name in enumerate(label_names)}
    by_number = {str(index): index for index in range(len(label_names))}
    lookup = by_name if set(keys) <= set(by_name) else by_number if numeric else by_name
    for row, key in enumerate(keys):
        if key not in lookup:
            raise UserError(
                f"{column.row(row)}: label {key!r} is not one of the model's: {', '.join(label_names)}"
            )
    labels = [lookup[key] for key in keys]
    if needed and len(set(labels)) < 2:
        raise UserError(
            f"{column} has one class only ({label_names[labels[0]]}); a classifier needs at least two"
        )
    return labels, list(label_names)


def number_labels(column: Column, raw: Sequence[Any], needed: bool) -> list[float] | None:
    """A regression's numbers; None where one is missing and none are needed.

    Args:
        raw: the column's values.
        needed: whether all numbers must be there, not all the same.

    Raises:
        UserError: a value that is missing or no finite number, or numbers that are all the same.
    """
    numbers = [_number(value) for value in raw]
    for row, number in enumerate(numbers):
        if number is None:
            if not needed:
                return None
            raise UserError(
                f"{column.row(row)}: {shown(raw[row])} is no number; a regression needs one in each row"
            )
    found = [number for number in numbers if number is not None]
    if needed and len(set(found)) < 2:
        raise UserError(f"{column} has one number only ({found[0]:g}); a regression needs at least two")
    return found


def _number(value: Any) -> float | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _are_measurements(keys: Sequence[str]) -> bool:
    """Whether labels are numbers and not all whole ones."""
    numbers = [_number(key) for key in keys]
    return None not in numbers and any(number is not None and not number.is_integer() for number in numbers)
