"""Labels as they stand in a data set become class indices, or a regression's numbers. Pure functions.

One rule maps the labels of a column to a model's classes. It holds for the column as a whole: labels are
never read partly by one of its steps and partly by another, and what no step can read is an error.

1. `map`: where there is a label map, each label is in it, and its class is one of the model's.
2. `name`: else each label is the name of a class. Case and spaces around it do not count, unless two names of
   the model differ in nothing else.
3. `order`: else, for a model that has the default names `LABEL_0, LABEL_1, ...`, the order in which the data
   set itself declares its classes, if it declares as many.
4. `index`: else each label is an index of the model's classes, `0` or `0.0` or `LABEL_0`, unless a name of
   the model's, or of those that the data set declares, holds a number that is not its index: `1 star` is
   class 0.

Without a model (`own`, in training) the classes are those that the data set declares, or the labels
themselves: whole numbers ascending, names sorted.
"""

from __future__ import annotations

import datetime
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from compressor.errors import UserError
from compressor.options import TaskName, shown

# Of a regression's model, which has one output; a model with one label name is a regression.
NUMBER_NAMES = ("score",)
MOST_CLASSES = 1000
# Texts from which on a column with a class for every other one is taken for another column.
FEW_TEXTS = 20
MOST_LISTED = 20
WAY_OUT = "say which class each label stands for with --label-map LABEL=CLASS (label_map in a recipe)"

LabelRule = Literal["map", "name", "order", "index", "own", "number", "unread"]
_IN_WORDS: dict[LabelRule, str] = {
    "map": "by the label map",
    "name": "by name",
    "order": "by the data set's own order",
    "index": "by index",
    "own": "as the data have them",
}

_WHOLE = re.compile(r"([-+]?(?:0|[1-9][0-9]{0,17}))(?:\.0+)?")
_DEFAULT_NAME = re.compile(r"label_(0|[1-9][0-9]{0,8})")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_DIGITS = re.compile(r"\d{1,18}")
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER_WORD = re.compile(rf"(?<![a-z])(?:{'|'.join(_NUMBER_WORDS)})(?![a-z])")
# What pandas writes for a label that is missing, and how it writes a list of labels.
_MISSING_TEXTS = ("nan", "<NA>")
_LIST_TEXT = re.compile(
    r"""\[\s*(?:(?:['"\d.-]|True|False).*)?\]|\{.*[:,].*\}|\(\s*['"\d-].*,.*\)""", re.DOTALL
)
_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((list, tuple, set), "a list"),
    (dict, "an object"),
    (bytes, "bytes"),
    ((datetime.date, datetime.time, datetime.timedelta), "a date or time"),
)


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


@dataclass(frozen=True)
class LabelValues:
    """A column of labels as it was read.

    Attributes:
        column: where it is from.
        values: one a text.
        declared: names of the classes that the data set declares (`ClassLabel`), of which values are
            indices; None where it declares none.
        from_hub: whether -1 stands for no label, as in hub data sets; it does where names are declared.
    """

    column: Column
    values: Sequence[Any]
    declared: Sequence[str] | None = None
    from_hub: bool = False

    @property
    def named(self) -> list[Any]:
        """The values with declared names in place of indices; None where there is no label."""
        if self.declared is None:
            return list(self.values)
        return [self._named(row, value) for row, value in enumerate(self.values)]

    def _named(self, row: int, value: Any) -> Any:
        names = self.declared or ()
        # A column of integers in which one is missing comes as floats.
        if isinstance(value, float):
            value = None if math.isnan(value) else int(value) if value.is_integer() else value
        if value is None or value == -1:
            return None
        if isinstance(value, str) and value in names:
            return value
        if not isinstance(value, int) or not 0 <= value < len(names):
            raise UserError(
                f"{self.column.row(row)}: {shown(value)} is none of the {len(names)} classes that the data "
                f"set declares"
            )
        return names[value]


@dataclass(frozen=True)
class LabelMapping:
    """How the labels of a data set became a model's classes.

    Attributes:
        rule: which step of the rule read them; `number` of a regression, `unread` where they could not be
            used and are not needed.
        map: the class of each label that occurs.
        reason: why labels are unread.
    """

    rule: LabelRule
    map: dict[str, str] = field(default_factory=dict)
    reason: str | None = None

    def record(self) -> dict[str, Any]:
        """For a stage's record."""
        return {"rule": self.rule, "map": self.map} | ({"reason": self.reason} if self.reason else {})

    @property
    def line(self) -> str | None:
        """One line for people; None where labels are the names of their classes."""
        if self.rule == "unread":
            return f"labels: not used: {self.reason}"
        if all(label == name for label, name in self.map.items()):
            return None
        return f"labels: {listed(f'{a} -> {b}' for a, b in self.map.items())} ({_IN_WORDS[self.rule]})"


@dataclass(frozen=True)
class Classes:
    """Labels as class indices, one a text, and the names of the classes."""

    labels: list[int]
    names: list[str]
    mapping: LabelMapping


def read_classes(
    values: LabelValues,
    label_names: Sequence[str] | None,
    label_map: Mapping[str, str] | None = None,
    *,
    learns: bool = False,
) -> Classes:
    """Read a column of labels as classes, by the rule in the module's description.

    Args:
        values: the column.
        label_names: the model's classes; None takes the data's own.
        label_map: class of each label, where names and indices do not tell; without `label_names` the new
            name of each label.
        learns: whether a model learns from them, so that there must be several classes, each of which several
            texts can have.

    Raises:
        UserError: a label that is missing, no label, or not the model's; several labels a text; where a model
            learns from them, one class only, or as many as a column has that holds no classes.
    """
    named = (*(label_names or ()), *(label_map or ()), *(values.declared or ()))
    texts = _texts(values, {_folded(name) for name in named})
    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        first.setdefault(text, row)
    if label_names is None:
        names, indices, rule = _own_classes(values, first, len(texts), label_map, learns=learns)
    elif label_map is not None:
        targets = _targets(values, first, label_map)
        known = _known_targets(values, label_map, label_names)
        names, indices, rule = list(label_names), {text: known[name] for text, name in targets.items()}, "map"
    else:
        rule, indices = _match(values, first, label_names)
        names = list(label_names)
    labels = [indices[text] for text in texts]
    if learns and len(set(labels)) < 2:
        raise UserError(
            f"{values.column} has one class only ({names[labels[0]]}); to learn, a classifier needs at least "
            f"two"
        )
    order = sorted(indices, key=lambda text: (indices[text], text))
    return Classes(labels, names, LabelMapping(rule, {text: names[indices[text]] for text in order}))


def number_labels(values: LabelValues) -> list[float]:
    """Read a regression's numbers.

    Raises:
        UserError: a value that is missing or no finite number, or numbers that are all the same.
    """
    numbers = []
    for row, value in enumerate(values.named):
        number = _number(value)
        if number is None:
            raise UserError(
                f"{values.column.row(row)}: {shown(value)} is no number; a regression needs one in each row"
            )
        numbers.append(number)
    if len(set(numbers)) < 2:
        raise UserError(
            f"{values.column} has one number only ({numbers[0]:g}); a regression needs at least two"
        )
    return numbers


def absent_classes(labels: Iterable[int], label_names: Sequence[str]) -> list[str]:
    """Names of the classes that no label has, in the order of their indices."""
    present = set(labels)
    return [name for index, name in enumerate(label_names) if index not in present]


def listed(names: Iterable[str]) -> str:
    """Names with commas between them; of many the first ones, and how many there are besides."""
    found = list(names)
    more = f" and {len(found) - MOST_LISTED} more" if len(found) > MOST_LISTED else ""
    return ", ".join(found[:MOST_LISTED]) + more


# what a label is -------------------------------------------------------------------------------------


def _texts(values: LabelValues, known: Collection[str]) -> list[str]:
    """Each label as a text without spaces around it.

    Args:
        known: folded names of classes and labels that someone named, whatever they look like.
    """
    read: dict[tuple[type, Any], str] = {}
    texts = []
    for row, value in enumerate(values.named):
        key = (type(value), None if isinstance(value, list | dict | set) else value)
        if key not in read:
            read[key] = _text(values, row, value, known)
        texts.append(read[key])
    return texts


def _text(values: LabelValues, row: int, value: Any, known: Collection[str]) -> str:
    where = values.column.row(row)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise UserError(f"{where} has no label; drop the row or fill it")
    for kind, name in _KINDS:
        if isinstance(value, kind):
            raise UserError(_several(where, f"{name} ({shown(value)})"))
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, int | float | Decimal):
        text = _number_text(value)
        if not math.isfinite(value):
            raise UserError(f"{where}: {text} is no label; write the name or the number of a class")
    elif isinstance(value, str):
        text = value.strip()
    else:
        raise UserError(_several(where, f"a {type(value).__name__}"))
    if not text:
        raise UserError(f"{where} has no label; drop the row or fill it")
    if _folded(text) in known:
        return text
    if text in _MISSING_TEXTS:
        raise UserError(
            f"{where} has the label {text!r}, which pandas writes where there is none; drop the row or fill "
            f"it, or, if it is a class, {WAY_OUT}"
        )
    if text == "-1" and values.from_hub:
        raise UserError(
            f"{where} has no label (-1 in a data set of the hub); drop the row, or, if it is a class, "
            f"{WAY_OUT}"
        )
    if isinstance(value, str) and _LIST_TEXT.fullmatch(text):
        raise UserError(_several(where, f"a list ({shown(text)})"))
    return text


def _several(where: str, what: str) -> str:
    return (
        f"{where} holds {what}; one label a text, a name or a whole number, is what a classifier learns; "
        f"several labels a text (multi-label) are not supported"
    )


def _number_text(value: int | float | Decimal) -> str:
    """A number in Python's notation, however many digits it has."""
    try:
        return str(value)
    except ValueError:
        return shown(value)


def _folded(text: str) -> str:
    """What is left of a name if case, spaces around it and the composition of letters do not count."""
    return unicodedata.normalize("NFC", text.strip()).casefold()


def _whole(text: str) -> int | None:
    """The whole number that a text stands for, `2` or `2.0`, without leading zeros."""
    match = _WHOLE.fullmatch(text)
    return int(match[1]) if match else None


def _number(value: Any) -> float | None:
    """A finite number, of a number or of a text with a decimal point."""
    if isinstance(value, str):
        value = value.strip()
        if not _NUMBER.fullmatch(value):
            return None
    elif isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


# the data's own classes ------------------------------------------------------------------------------


def _own_classes(
    values: LabelValues,
    first: Mapping[str, int],
    examples: int,
    label_map: Mapping[str, str] | None,
    *,
    learns: bool,
) -> tuple[list[str], dict[str, int], LabelRule]:
    """Names of the classes, the index of each label, and the rule."""
    if label_map is not None:
        targets = _targets(values, first, label_map)
        # In the order of the labels, not of their new names: who gives the data without the map, as indices,
        # gets the same classes.
        names = list(dict.fromkeys(targets[text] for text in _ordered(first, values.declared)))
        return names, {text: names.index(name) for text, name in targets.items()}, "map"
    if values.declared is not None:
        names = list(values.declared)
        places = {name.strip(): index for index, name in enumerate(names)}
        return names, {text: places[text] for text in first}, "own"
    _check_measurements(values, first)
    if learns:
        _check_classes(values, first, examples)
    whole = {text: _whole(text) for text in first}
    if None in whole.values():
        names = _ordered(first)
        return names, {name: index for index, name in enumerate(names)}, "own"
    # 1 and 1.0 are one class.
    names = list(dict.fromkeys(str(whole[text]) for text in _ordered(first)))
    return names, {text: names.index(str(number)) for text, number in whole.items()}, "own"


def _ordered(labels: Iterable[str], declared: Sequence[str] | None = None) -> list[str]:
    """Labels in the declared order, or else whole numbers ascending, or else sorted names."""
    found = list(labels)
    if declared is not None:
        places = {name.strip(): index for index, name in enumerate(declared)}
        return sorted(found, key=lambda text: places[text])
    whole = [_whole(text) for text in found]
    numbers = [number for number in whole if number is not None]
    if len(numbers) < len(found):
        return sorted(found)
    return [text for _, text in sorted(zip(numbers, found, strict=True))]


def _check_measurements(values: LabelValues, first: Mapping[str, int]) -> None:
    """Raise a `UserError` if all labels are numbers and not all of them whole ones."""
    if all(_number(text.replace(",", ".", 1)) is not None for text in first):
        for text, row in first.items():
            if _whole(text) is None and not re.fullmatch(r"[-+]?[0-9]+", text):
                raise UserError(
                    f"{values.column.row(row)}: has numbers such as {text}, and no classes; for a model that "
                    f"gives a number use: compress finetune --task regression (with decimal points)"
                )


def _check_classes(values: LabelValues, first: Mapping[str, int], examples: int) -> None:
    """Raise a `UserError` for a column that hardly holds classes, and for names that differ by case alone."""
    if len(first) > MOST_CLASSES or (examples > FEW_TEXTS and 2 * len(first) > examples):
        raise UserError(
            f"{values.column} has {len(first):,} different labels in {examples:,} texts, so it is hardly the "
            f"one with the classes; name that with --label-column (label_column), or list all of its labels "
            f"in a --label-map file"
        )
    seen: dict[str, str] = {}
    for text, row in first.items():
        other = seen.setdefault(_folded(text), text)
        if other != text:
            raise UserError(
                f"{values.column.row(row)}: label {text!r} differs from label {other!r} by case alone; write "
                f"them alike, or {WAY_OUT}"
            )


# a model's classes -----------------------------------------------------------------------------------


class _Names:
    """Names to be found by case, or without it where no two of them differ in nothing else."""

    def __init__(self, names: Sequence[str]) -> None:
        counts = Counter(names)
        folded = [_folded(name) for name in names]
        self._exact = {name: index for index, name in enumerate(names) if counts[name] == 1}
        self._folded = (
            {name: index for index, name in enumerate(folded)} if len(set(folded)) == len(names) else {}
        )

    def index(self, text: str) -> int | None:
        """Index of a name as it is written, or, of a whole number, as whole numbers are."""
        whole = _whole(text)
        for form in (text,) if whole is None else (text, str(whole)):
            found = self._exact.get(form, self._folded.get(_folded(form)))
            if found is not None:
                return found
        return None


def _match(
    values: LabelValues, first: Mapping[str, int], names: Sequence[str]
) -> tuple[LabelRule, dict[str, int]]:
    """The rule that reads all labels, and the index of each of them.

    Raises:
        UserError: no rule reads them all; the line names the first one that it does not.
    """
    by_name = _by_name(first, names)
    if None not in by_name.values():
        return "name", _known(by_name)
    if values.declared is not None and len(values.declared) == len(names) and _are_default(names):
        places = {name.strip(): index for index, name in enumerate(values.declared)}
        return "order", {text: places[text] for text in first}
    by_index = {text: _index(text, len(names)) for text in first}
    contradiction = _contradiction(names) or _contradiction(values.declared or ())
    if None not in by_index.values() and contradiction is None:
        return "index", _known(by_index)
    are_indices = all(_place(text) is not None for text in first)
    wrong = by_index if are_indices and contradiction is None else by_name
    text = next(text for text, index in wrong.items() if index is None)
    why = f", and {contradiction}, so that it is no index" if are_indices and contradiction else ""
    raise UserError(
        f"{values.column.row(first[text])}: label {shown(text)} is not one of the model's: "
        f"{listed(names)}{why}; {WAY_OUT}"
    )


def _by_name(texts: Iterable[str], names: Sequence[str]) -> dict[str, int | None]:
    lookup = _Names(names)
    return {text: lookup.index(text) for text in texts}


def _known(indices: Mapping[str, int | None]) -> dict[str, int]:
    return {text: index for text, index in indices.items() if index is not None}


def _are_default(names: Sequence[str]) -> bool:
    return list(names) == [f"LABEL_{index}" for index in range(len(names))]


def _place(text: str) -> int | None:
    """The number of a whole number or of a default name."""
    match = _DEFAULT_NAME.fullmatch(text.casefold())
    return int(match[1]) if match else _whole(text)


def _index(text: str, classes: int) -> int | None:
    """The index that a label stands for where it is no name; None if there is no such class."""
    place = _place(text)
    return place if place is not None and 0 <= place < classes else None


def _contradiction(names: Sequence[str]) -> str | None:
    """Which name holds a number that is not its index: labels that are numbers may mean names then."""
    for index, name in enumerate(names):
        digits = _DIGITS.search(name)
        word = _NUMBER_WORD.search(name.casefold())
        number = int(digits[0]) if digits else _NUMBER_WORDS.index(word[0]) if word else index
        if number != index:
            return f"class {index} is named {name!r}"
    return None


# a label map -----------------------------------------------------------------------------------------


def _targets(values: LabelValues, first: Mapping[str, int], label_map: Mapping[str, str]) -> dict[str, str]:
    """The class that the map gives each label."""
    keys = list(label_map)
    if values.declared is not None:
        stray = next((key for key, place in _by_name(keys, values.declared).items() if place is None), None)
        if stray is not None:
            raise UserError(
                f"{values.column}: label_map: the data set declares no class {stray!r}; it has "
                f"{listed(values.declared)}"
            )
    targets = {}
    for text, place in _by_name(first, keys).items():
        if place is None:
            raise UserError(
                f"{values.column.row(first[text])}: label {shown(text)} is not in the label map, which has "
                f"{listed(keys)}; add it"
            )
        targets[text] = label_map[keys[place]]
    return targets


def _known_targets(values: LabelValues, label_map: Mapping[str, str], names: Sequence[str]) -> dict[str, int]:
    """Index of each class of the map, all of them by name or all of them by index."""
    targets = list(dict.fromkeys(label_map.values()))
    by_name = _by_name(targets, names)
    if None not in by_name.values():
        return _known(by_name)
    by_index = {text: _index(text, len(names)) for text in targets}
    if None not in by_index.values() and not _contradiction(names):
        return _known(by_index)
    stray = next(text for text in targets if by_name[text] is None)
    label = next(label for label, name in label_map.items() if name == stray)
    raise UserError(
        f"{values.column}: label_map: class {stray!r} of label {label!r} is not one of the model's: "
        f"{listed(names)}"
    )
