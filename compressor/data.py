"""Labelled texts: a hub id or a local file becomes texts, (second texts,) and classes or numbers.

Local files are csv, tsv, jsonl/json or parquet, read with `datasets`. A tsv file has no quoting, as
in GLUE: a quote mark is part of the text. A csv file has the usual quoting.
"""

from __future__ import annotations

import csv
import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from compressor.errors import UserError
from compressor.labels import Column, class_labels, number_labels, task_of
from compressor.loading import hub_data
from compressor.options import ColumnsConfig, TaskName

if TYPE_CHECKING:
    from datasets import Dataset

Role = Literal["train", "calibration", "test"]

FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
TEXT_PAIRS = (
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
)
TEXT_COLUMNS = ("text", "sentence", "review", "content", "document", "sentence1", "premise")
LABEL_COLUMNS = ("label", "labels", "target", "class", "category", "sentiment")
# Hub collections whose second name is a configuration and not an owner's repository.
COLLECTIONS = {"glue": "nyu-mll/glue", "super_glue": "aps/super_glue"}
SPLITS: dict[Role, tuple[str, ...]] = {
    "train": ("train",),
    "calibration": ("train",),
    # GLUE hides the labels of its test sets, so a validation set comes first.
    "test": ("validation", "validation_matched", "test"),
}


@dataclass(frozen=True)
class TextData:
    """Texts to classify, in memory.

    Attributes:
        texts: one text an example.
        pairs: the second text of each example, or None for single sentences.
        labels: class indices, or None where the data has no labels and none are needed, or has numbers.
        label_names: name of each class index; a single one for numbers.
        source: what the user wrote.
        numbers: what a regression learns, or None for classes.
        fingerprint: SHA-256 of texts, pairs and labels or numbers.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: list[int] | None
    label_names: list[str]
    source: str
    numbers: list[float] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        pairs = self.pairs or [""] * len(self)
        labels = self.labels or self.numbers or [-1] * len(self)
        for row in zip(self.texts, pairs, labels, strict=True):
            digest.update(repr(row).encode())
        return digest.hexdigest()

    @property
    def task(self) -> TaskName:
        """Whether its labels are classes or numbers."""
        return task_of(self.label_names)

    @property
    def class_labels(self) -> list[int]:
        """The classes of data that was loaded with `needs_labels`.

        Raises:
            UserError: it has numbers, or nothing.
        """
        if self.labels is None:
            found = "no labels" if self.numbers is None else "numbers and no classes"
            raise UserError(f"{self.source}: has {found}; classes are needed here")
        return self.labels

    @property
    def targets(self) -> list[int] | list[float]:
        """What is learnt: class indices, or numbers.

        Raises:
            UserError: there is neither.
        """
        return self.class_labels if self.numbers is None else self.numbers

    def select(self, indices: Sequence[int]) -> TextData:
        """The examples at `indices`, in that order."""
        return replace(
            self,
            texts=[self.texts[i] for i in indices],
            pairs=None if self.pairs is None else [self.pairs[i] for i in indices],
            labels=None if self.labels is None else [self.labels[i] for i in indices],
            numbers=None if self.numbers is None else [self.numbers[i] for i in indices],
        )

    def sample(self, count: int, seed: int) -> TextData:
        """`count` examples drawn without replacement, or all of them in their order if that is fewer."""
        if count >= len(self):
            return self
        return self.select(np.random.default_rng(seed).permutation(len(self))[:count].tolist())

    def hold_out(self, count: int, seed: int) -> tuple[TextData, TextData]:
        """All examples but `count` that are drawn with the seed, and those; a text is on one side only.

        Raises:
            UserError: nothing would be left.
        """
        order = np.random.default_rng(seed).permutation(len(self)).tolist()
        pairs = self.pairs or [""] * len(self)
        held = order[:count]
        texts = {(self.texts[i], pairs[i]) for i in held}
        rest = [i for i in range(len(self)) if (self.texts[i], pairs[i]) not in texts]
        if not rest:
            raise UserError(
                f"{self.source}: has {len(self)} examples, of which {count} would be held out; give more "
                f"data, or hold out fewer"
            )
        return self.select(rest), self.select(held)

    def record(self, columns: ColumnsConfig) -> dict[str, Any]:
        """Where the data is from and what it is, for a stage's record."""
        path = Path(self.source)
        return {
            "source": str(path.absolute()) if path.is_file() else self.source,
            "fingerprint": self.fingerprint,
            "examples": len(self),
            "columns": columns.model_dump(include=set(ColumnsConfig.model_fields)),
        }

    def majority_share(self) -> float:
        """Share of the most frequent label: what a constant answer would get."""
        return float(np.bincount(self.class_labels).max() / len(self))


def load_text_data(
    source: str,
    columns: ColumnsConfig,
    role: Role,
    *,
    label_names: Sequence[str] | None = None,
    needs_labels: bool = True,
) -> TextData:
    """Load a local file or a hub data set.

    Args:
        source: path of a csv, tsv, jsonl, json or parquet file, or a hub id
            `name[/configuration][:split]`, such as `glue/sst2:validation`.
        columns: names of the columns; those not given are found by convention.
        role: decides the split of a hub data set whose id names none.
        label_names: the model's classes, to which labels are matched; None takes the data's own. A single
            name is a regression's: labels are numbers.
        needs_labels: whether labels must be there, with at least two classes or numbers.

    Raises:
        UserError: missing or empty file, unknown column or format, a label that the model does not
            know or that is no number, one class or number only, no connection to the hub.
    """
    path = Path(source)
    is_file = path.suffix.lower() in FORMATS or path.exists()
    dataset = _load_file(path) if is_file else _load_hub(source, role)
    if not len(dataset):
        raise UserError(f"{source}: is empty; it must hold at least one example")
    text_column, pair_column = _text_columns(source, dataset.column_names, columns)
    texts = _text_values(source, dataset, text_column)
    pairs = None if pair_column is None else _text_values(source, dataset, pair_column)
    label_column = _label_column(source, dataset.column_names, columns, needs_labels)
    data = TextData(texts, pairs, None, list(label_names or []), source)
    if label_column is None:
        return data
    column = Column(source, label_column)
    feature_names = getattr(dataset.features[label_column], "names", None)
    raw = [feature_names[v] if feature_names and v >= 0 else v for v in dataset[label_column]]
    if data.task == "regression":
        return replace(data, numbers=number_labels(column, raw, needs_labels))
    labels, names = class_labels(column, raw, label_names, feature_names, needs_labels)
    return replace(data, labels=labels, label_names=names)


def _load_file(path: Path) -> Dataset:
    import datasets

    if not path.exists():
        raise UserError(f"{path}: no such file")
    if not path.is_file():
        raise UserError(f"{path}: is not a file; give a csv, tsv, jsonl or parquet file, or a hub id")
    builder = FORMATS.get(path.suffix.lower())
    if builder is None:
        raise UserError(f"{path}: unknown kind of file; known are {', '.join(FORMATS)}")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: is empty; it must hold at least one example")
    options = _csv_options(path) if builder == "csv" else {}
    try:
        # A cache of its own: the shared one would return an old copy of a file whose size and time match.
        with tempfile.TemporaryDirectory(prefix="compress-data-") as cache:
            loaded = datasets.load_dataset(
                builder, data_files=str(path), split="train", cache_dir=cache, keep_in_memory=True, **options
            )
    except Exception as error:  # datasets wraps whatever its readers raise
        cause = error.__cause__ or error
        raise UserError(f"{path}: cannot be read as {builder}: {_first_line(cause)}") from error
    return loaded


def _csv_options(path: Path) -> dict[str, Any]:
    """How pandas reads the file: every field as the text that it is, whatever it looks like."""
    import datasets

    is_tsv = path.suffix.lower() == ".tsv"
    layout: dict[str, Any] = {"quoting": csv.QUOTE_NONE} if is_tsv else {}
    separator = "\t" if is_tsv else ","
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            names = next(csv.reader(stream, delimiter=separator, **layout), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as text in UTF-8: {error}") from error
    if len(set(names)) != len(names):
        raise UserError(f"{path}: two columns have the same name; it has {', '.join(map(repr, names))}")
    features = datasets.Features({name: datasets.Value("string") for name in names})
    # Nothing is missing but what is empty: "null" and "NA" are texts.
    return {
        "sep": separator,
        "features": features,
        "keep_default_na": False,
        "encoding": "utf-8-sig",
        **layout,
    }


def _load_hub(source: str, role: Role) -> Dataset:
    import datasets

    name, _, split = source.partition(":")
    configuration = None
    parts = name.split("/")
    if parts[0] in COLLECTIONS and len(parts) == 2:
        name, configuration = COLLECTIONS[parts[0]], parts[1]
    elif len(parts) == 3:
        name, configuration = "/".join(parts[:2]), parts[2]
    try:
        with hub_data():
            splits = datasets.get_dataset_split_names(name, configuration)
        wanted = [split] if split else list(SPLITS[role])
        chosen = next((s for s in wanted if s in splits), None)
        if chosen is None:
            raise UserError(
                f"{source}: has no split {' or '.join(map(repr, wanted))}; it has {', '.join(splits)}; "
                f"write {name}:SPLIT"
            )
        with hub_data():
            return datasets.load_dataset(name, configuration, split=chosen)
    except (OSError, ValueError, RuntimeError) as error:  # not found, offline, no connection
        raise UserError(
            f"{source}: no such file, and it could not be loaded from the hub: {_first_line(error)}"
        ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _text_columns(source: str, present: list[str], columns: ColumnsConfig) -> tuple[str, str | None]:
    for key in ("text_column", "text_pair_column", "label_column"):
        name = getattr(columns, key)
        if name is not None and name not in present:
            raise UserError(f"{source}: {key}: no column {name!r}; it has {', '.join(map(repr, present))}")
    if columns.text_column is not None:
        return columns.text_column, columns.text_pair_column
    for first, second in TEXT_PAIRS:
        if first in present and second in present:
            return first, columns.text_pair_column or second
    for name in TEXT_COLUMNS:
        if name in present:
            return name, columns.text_pair_column
    raise UserError(
        f"{source}: no text column found; it has {', '.join(map(repr, present))}; name one with text_column "
        f"(--text-column)"
    )


def _label_column(source: str, present: list[str], columns: ColumnsConfig, needed: bool) -> str | None:
    if columns.label_column is not None:
        return columns.label_column
    found = next((name for name in LABEL_COLUMNS if name in present), None)
    if found is None and needed:
        raise UserError(
            f"{source}: no label column found; it has {', '.join(map(repr, present))}; name one with "
            f"label_column (--label-column)"
        )
    return found


def _text_values(source: str, dataset: Dataset, column: str) -> list[str]:
    values = list(dataset[column])
    for row, value in enumerate(values):
        if not isinstance(value, str):
            values[row] = value = "" if value is None else str(value)
        if not value.strip():
            raise UserError(f"{source}: row {row + 1}: column {column!r} is empty; drop the row or fill it")
    return values
