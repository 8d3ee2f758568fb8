"""Labelled texts: a hub id or a local file becomes texts, (second texts,) and classes or numbers.

Files and data sets of the hub pass through the same checks of their columns, see `compressor.data.reading`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from compressor.data.labels import (
    Column,
    LabelMapping,
    LabelValues,
    absent_classes,
    number_labels,
    read_classes,
    task_of,
)
from compressor.data.reading import Table, is_data_file, read_dataset, read_file
from compressor.errors import UserError
from compressor.options import ColumnsConfig, TaskName
from compressor.system.hub import (
    cached_commits,
    hub_data,
    hub_problem,
    hub_reason,
    network_or,
    split_revision,
)

if TYPE_CHECKING:
    from datasets import Dataset

    from compressor.system.console import Progress

Role = Literal["train", "calibration", "vocabulary", "reference", "selection", "test"]

TEXT_PAIRS = (
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("query", "passage"),
    ("query", "document"),
)
TEXT_COLUMNS = ("text", "sentence", "review", "content", "document", "sentence1", "premise")
LABEL_COLUMNS = ("label", "labels", "target", "class", "category", "sentiment")
# Hub collections whose second name is a configuration and not an owner's repository.
COLLECTIONS = {"glue": "nyu-mll/glue", "super_glue": "aps/super_glue"}
SPLITS: dict[Role, tuple[str, ...]] = {
    "train": ("train",),
    "calibration": ("train",),
    "vocabulary": ("train",),
    "reference": ("train",),
    # A validation reads both. Of one data set they would be the same texts, which is refused.
    "selection": ("validation", "validation_matched", "test"),
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
        notes: what reading left out or understood in a way that the user may want to know of, a line each.
        mapping: how labels became classes; None where there is no column of labels.
        fingerprint: SHA-256 of texts, pairs and labels or numbers.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: list[int] | None
    label_names: list[str]
    source: str
    numbers: list[float] | None = None
    notes: tuple[str, ...] = ()
    mapping: LabelMapping | None = None

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
    def texts_fingerprint(self) -> str:
        """SHA-256 of texts and pairs, white space apart; whether there are labels or not."""
        digest = hashlib.sha256()
        for text, pair in zip(self.texts, self.pairs or [""] * len(self), strict=True):
            digest.update(repr((" ".join(text.split()), " ".join(pair.split()))).encode())
        return digest.hexdigest()

    @property
    def task(self) -> TaskName:
        """Whether its labels are classes or numbers."""
        return task_of(self.label_names) if self.labels is None else "classification"

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
        notes = {"notes": list(self.notes)} if self.notes else {}
        return notes | {
            "source": str(path.absolute()) if path.is_file() else self.source,
            "fingerprint": self.fingerprint,
            "texts": self.texts_fingerprint,
            "examples": len(self),
            "columns": columns.model_dump(include=set(ColumnsConfig.model_fields)),
            "labels": self.mapping and self.mapping.record(),
        }

    def majority_share(self) -> float:
        """Share of the most frequent label: what a constant answer would get."""
        return float(np.bincount(self.class_labels).max() / len(self))

    def absent_classes(self) -> list[str]:
        """Names of the classes that no text has."""
        return absent_classes(self.class_labels, self.label_names)


def log_notes(data: TextData, progress: Progress, *, labels: bool = True) -> None:
    """Show what reading the data left out or understood in a way of its own.

    Args:
        labels: also show how labels became classes, where these do not have the labels' names.
    """
    for note in data.notes:
        progress.log(f"{data.source}: {note}")
    if labels and data.mapping is not None and data.mapping.line is not None:
        progress.log(data.mapping.line)


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
            `name[/configuration][@revision][:split]`, such as `glue/sst2:validation`.
        columns: names of the columns; those not given are found by convention.
        role: decides the split of a hub data set whose id names none; labels to test with may be of one
            class.
        label_names: the model's classes, to which labels are matched by the rule in `compressor.data.labels`;
            None takes the data's own. A single name is a regression's: labels are numbers.
        needs_labels: whether labels must be there. Where they need not, those that cannot be read are left
            out, and `mapping` has the reason.

    Raises:
        UserError: missing or empty file, unknown column or format, a label that the model does not
            know or that is no number, one class or number only, no connection to the hub.
    """
    path = Path(source)
    from_hub = not is_data_file(path)
    table = read_dataset(source, _load_hub(source, role)) if from_hub else read_file(path, columns)
    learns = needs_labels and role != "test"
    return _text_data(
        table, columns, label_names, needs_labels=needs_labels, learns=learns, from_hub=from_hub
    )


def text_data(
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    labels: Sequence[Any] | None,
    columns: ColumnsConfig,
    *,
    label_names: Sequence[str],
    needs_labels: bool,
) -> TextData:
    """Check texts that are in memory, by the rules of those that are read from a file.

    Args:
        texts: one text an example.
        pairs: the second text of each example; None for single texts.
        labels: names or indices of the model's classes, or numbers of a regression; None for no labels.
        columns: its label map is used, and nothing else of it.
        label_names: the model's classes.
        needs_labels: whether labels must be there.

    Raises:
        UserError: no texts, another number of pairs or labels, a value that is no text, or a label that the
            model does not know.
    """
    given = {"text": texts, "text_pair": pairs, "label": labels}
    found = {name: list(values) for name, values in given.items() if values is not None}
    for name, values in found.items():
        if len(values) != len(texts):
            raise UserError(f"texts: {len(texts)} examples, and {len(values)} of {name}; give one to each")
    table = Table("texts", list(found), len(texts), found.__getitem__)
    own = ColumnsConfig(label_map=columns.label_map)
    return _text_data(table, own, label_names, needs_labels=needs_labels, learns=needs_labels)


def _text_data(
    table: Table,
    columns: ColumnsConfig,
    label_names: Sequence[str] | None,
    *,
    needs_labels: bool,
    learns: bool,
    from_hub: bool = False,
) -> TextData:
    """Find and read the columns of texts and labels of a table; see `load_text_data`."""
    source = table.source
    if not table.rows:
        raise UserError(f"{source}: is empty; it must hold at least one example")
    text_column, pair_column = _text_columns(table, columns)
    texts = table.texts(text_column)
    pairs = None if pair_column is None else table.texts(pair_column)
    label_column = _label_column(table, columns, {text_column, pair_column}, needs_labels)
    data = TextData(texts, pairs, None, list(label_names or []), source, notes=table.notes)
    if label_column is None:
        return data
    values = LabelValues(
        Column(source, label_column),
        table.labels(label_column),
        table.class_names.get(label_column),
        from_hub=from_hub,
    )
    try:
        return _labelled(data, values, columns, learns=learns)
    except UserError as error:
        if needs_labels:
            raise
        return replace(data, mapping=LabelMapping("unread", reason=str(error)))


def _labelled(data: TextData, values: LabelValues, columns: ColumnsConfig, *, learns: bool) -> TextData:
    """The data with their labels or numbers."""
    if data.task == "regression":
        if columns.label_map is not None:
            raise UserError(f"{values.column}: label_map: is of classes, and the model gives a number")
        return replace(data, numbers=number_labels(values), mapping=LabelMapping("number"))
    names = data.label_names or None
    classes = read_classes(values, names, columns.label_map, learns=learns)
    return replace(data, labels=classes.labels, label_names=classes.names, mapping=classes.mapping)


def _load_hub(source: str, role: Role) -> Dataset:
    import datasets

    place, _, split = source.partition(":")
    path, revision = split_revision(place)
    name, configuration = _repository(path)
    try:
        with hub_data():
            splits = datasets.get_dataset_split_names(name, configuration, revision=revision)
        wanted = [split] if split else list(SPLITS[role])
        chosen = next((s for s in wanted if s in splits), None)
        if chosen is None:
            raise UserError(
                f"{source}: has no split {' or '.join(map(repr, wanted))}; it has {', '.join(splits)}; "
                f"write {place}:SPLIT"
            )
        with hub_data():
            dataset = datasets.load_dataset(name, configuration, split=chosen, revision=revision)
    except network_or(OSError, ValueError, RuntimeError) as error:  # not found, offline, no connection
        raise UserError(
            f"{source}: no such file, and it could not be loaded from the hub: "
            f"{hub_reason(error, 'data set', name, revision)}"
        ) from error
    if hub_problem() is not None:
        _check_cached_revision(source, dataset, cached_commits(name), revision)
    return dataset


def _check_cached_revision(
    source: str, dataset: Dataset, commits: Mapping[str, str], revision: str | None
) -> None:
    """Raise a `UserError` if a data set of the cache is of another revision than asked for.

    Without the hub, `datasets` takes the version that was written last, whatever revision is asked for.

    Args:
        commits: of the revisions that the hub's cache knows, by name.
        revision: that was asked for; None for the default.
    """
    for file in dataset.cache_files:
        # Named after the commit, of most data sets.
        folder = Path(file["filename"]).parent
        asked = revision or "main"
        wanted = commits.get(asked, asked)
        is_known = revision is not None or folder.name in commits.values()
        if is_known and folder.name != wanted:
            raise UserError(
                f"{source}: the newest version in the cache of data sets is of commit {folder.name}, and "
                f"{asked} is {commits.get(asked, 'not in it')}; remove {folder}, or connect to the hub "
                f"({hub_problem()})"
            )


def _repository(path: str) -> tuple[str, str | None]:
    """The id of a data set and its configuration; None of an id alone."""
    parts = path.split("/")
    if parts[0] in COLLECTIONS and len(parts) == 2:
        return COLLECTIONS[parts[0]], parts[1]
    return ("/".join(parts[:2]), parts[2]) if len(parts) == 3 else (path, None)


def _text_columns(table: Table, columns: ColumnsConfig) -> tuple[str, str | None]:
    """Names of the columns of the text and of the second text, if there is one.

    Raises:
        UserError: a name that is not there or is given twice, no column or several by convention.
    """
    given: dict[str, str] = {}
    for key in ("text_column", "text_pair_column", "label_column"):
        name = getattr(columns, key)
        if name is None or (key == "label_column" and name not in table.names):
            continue
        if name not in table.names:
            raise UserError(f"{table.source}: {key}: no column {name!r}; it has {_listed(table.names)}")
        if name in given:
            raise UserError(
                f"{table.source}: {key}: column {name!r} is the {given[name]} as well; each needs its own"
            )
        given[name] = key
    if columns.text_column is not None:
        return columns.text_column, columns.text_pair_column
    free = [name for name in table.names if name not in given]
    pairs = [
        (first, second)
        for first_name, second_name in TEXT_PAIRS
        for first in _called(free, first_name)
        for second in _called(free, second_name)
    ]
    paired = {name for pair in pairs for name in pair}
    singles = [name for known in TEXT_COLUMNS for name in _called(free, known) if name not in paired]
    if len(pairs) + len(singles) > 1:
        names = [name for name in free if name in paired or name in singles]
        raise UserError(
            f"{table.source}: the text may be in {' or '.join(map(repr, names))}; name its column with "
            f"text_column (--text-column), and that of a second text with --text-pair-column"
        )
    if pairs:
        first, second = pairs[0]
        return first, columns.text_pair_column or second
    if singles:
        return singles[0], columns.text_pair_column
    hint = f"; {table.hint}" if table.hint else ""
    raise UserError(
        f"{table.source}: no text column found; it has {_listed(table.names)}; name one with text_column "
        f"(--text-column){hint}"
    )


def _label_column(
    table: Table, columns: ColumnsConfig, taken: Collection[str | None], needed: bool
) -> str | None:
    """The name of the column of labels; None if there is none and none is needed.

    Args:
        taken: columns of texts.

    Raises:
        UserError: no column or several by convention, where one is needed.
    """
    given = columns.label_column
    if given is not None and given not in table.names and needed:
        raise UserError(f"{table.source}: label_column: no column {given!r}; it has {_listed(table.names)}")
    if given is not None:
        return given if given in table.names else None
    free = [name for name in table.names if name not in taken]
    found = [name for known in LABEL_COLUMNS for name in _called(free, known)]
    if len(found) == 1:
        return found[0]
    if not needed:
        return None
    if found:
        raise UserError(
            f"{table.source}: the label may be in {' or '.join(map(repr, found))}; name its column with "
            f"label_column (--label-column)"
        )
    raise UserError(
        f"{table.source}: no label column found; it has {_listed(table.names)}; name one with "
        f"label_column (--label-column)"
    )


def _called(names: Sequence[str], known: str) -> list[str]:
    """Those of `names` that are a known one, in capitals or not."""
    return [name for name in names if name.lower() == known]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
