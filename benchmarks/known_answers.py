"""Rewrites of valid inputs whose right answer is known: the same answer, or a refusal. Pure functions.

Each gives files in place of valid ones. Some mean the same and must be answered the same; some may be
refused as well, since nobody promises to read them; some are wrong in a way that must be found.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from benchmarks.mutations import dump_json, join_safetensors, parquet_bytes, split_safetensors
from benchmarks.tiny_inputs import LABELS

Expected: TypeAlias = Literal["any", "same", "same or refused", "refused"]
# By path within the folder of an input; None removes the file.
Files: TypeAlias = dict[str, bytes | None]
Row: TypeAlias = dict[str, Any]
FORMATS = ("csv", "tsv", "jsonl", "json", "parquet")
# In the data, in place of the model's names, to be translated by --label-map.
RENAMED = {"negative": "rotten", "positive": "fresh"}
LABEL_MAP = ("--label-map", "rotten=negative,fresh=positive")
# What a command's answer depends on besides texts and labels: the order of the rows, the names of the labels.
ROW_ORDER, LABEL_NAMES = "row order", "label names"


@dataclass(frozen=True)
class Rewrite:
    """A rewritten input.

    Attributes:
        name: what was done.
        files: in place of, or besides, the valid ones.
        expected: of a command that reads them.
        options: that the command needs to read them.
        changes: what is not as in the valid input, though what a model answers is.
    """

    name: str
    files: Files
    expected: Expected
    options: tuple[str, ...] = ()
    changes: frozenset[str] = field(default_factory=frozenset)


# --- data -----------------------------------------------------------------------------------------


def rewrite_data(
    rows: Sequence[tuple[str, str]], generator: random.Random, options: frozenset[str]
) -> Rewrite:
    """Write labelled texts in another form; the one file is `data` with the suffix of its format.

    Args:
        rows: texts and labels.
        options: names of the product's options for data, some of which it may not have.
    """
    kind = generator.choice(FORMATS)
    table: list[Row] = [{"text": text, "label": label} for text, label in rows]
    twists = [*_TABLE_TWISTS, *([_mapped] if "label_map" in options else [])]
    names: list[str] = []
    settings: tuple[str, ...] = ()
    changes: set[str] = set()
    done: set[Any] = set()
    expected: Expected = "same"
    for twist in generator.sample(twists, generator.choice((0, 1, 1, 2))):
        # Of those that give labels, or columns, other names one alone makes sense.
        if any(twist in group and group & done for group in _EXCLUSIVE):
            continue
        done.add(twist)
        name, table, more, changed = twist(table, generator)
        names.append(name)
        settings += more
        changes |= changed
    form = generator.choice(_FORMS[kind])
    content, may_be_refused = form(table, generator)
    if may_be_refused:
        expected = "same or refused"
    name = f"{kind}: {' and '.join([*names, form.__name__.strip('_').replace('_', ' ')])}"
    return Rewrite(name, {f"data.{kind}": content}, expected, settings, frozenset(changes))


Twisted: TypeAlias = tuple[str, list[Row], tuple[str, ...], set[str]]


def _columns_permuted(table: list[Row], generator: random.Random) -> Twisted:
    names = generator.sample(sorted(table[0]), len(table[0]))
    return "columns permuted", [{name: row[name] for name in names} for row in table], (), set()


def _columns_added(table: list[Row], generator: random.Random) -> Twisted:
    values: dict[str, Callable[[int], Any]] = {
        "id": lambda place: place,
        "weight": lambda place: place / 7,
        "note": lambda place: f"note, {place} \"quoted\" 'x'",
        "source": lambda place: "",
        "flag": lambda place: place % 2 == 0,
    }
    chosen = generator.sample(sorted(values), generator.randint(1, 3))
    first = generator.random() < 0.5
    added = [{name: values[name](place) for name in chosen} for place in range(len(table))]
    pairs = zip(added, table, strict=True)
    return "columns added", [{**new, **row} if first else {**row, **new} for new, row in pairs], (), set()


def _rows_permuted(table: list[Row], generator: random.Random) -> Twisted:
    return "rows permuted", generator.sample(table, len(table)), (), {ROW_ORDER}


def _numbered(table: list[Row], generator: random.Random) -> Twisted:
    numbers = {name: place for place, name in enumerate(LABELS)}
    label = _label_column(table)
    as_text = generator.random() < 0.3
    new = [{**row, label: str(numbers[row[label]]) if as_text else numbers[row[label]]} for row in table]
    return "labels by number", new, (), {LABEL_NAMES}


def _capitals(table: list[Row], generator: random.Random) -> Twisted:
    label = _label_column(table)
    change = generator.choice((str.upper, str.title))
    return "labels in capitals", [{**row, label: change(str(row[label]))} for row in table], (), {LABEL_NAMES}


def _mapped(table: list[Row], generator: random.Random) -> Twisted:
    del generator
    label = _label_column(table)
    new = [{**row, label: RENAMED[row[label]]} for row in table]
    return "labels by --label-map", new, LABEL_MAP, {LABEL_NAMES}


def _other_names(table: list[Row], generator: random.Random) -> Twisted:
    text, label = (
        generator.choice(("sentence", "review", "content")),
        generator.choice(("labels", "class", "sentiment")),
    )
    return "columns of other names", _renamed(table, text, label), (), set()


def _asked_names(table: list[Row], generator: random.Random) -> Twisted:
    text, label = generator.choice(
        (("body", "verdict"), ("Text", "Label"), ("a b", "c.d"), ("Überschrift", "類"))
    )
    return (
        "columns by option",
        _renamed(table, text, label),
        ("--text-column", text, "--label-column", label),
        set(),
    )


def _renamed(table: list[Row], text: str, label: str) -> list[Row]:
    names = {"text": text, "label": label}
    return [{names.get(name, name): value for name, value in row.items()} for row in table]


def _label_column(table: list[Row]) -> str:
    known = ("label", "labels", "class", "sentiment", "verdict", "Label", "c.d", "類")
    return next(name for name in table[0] if name in known)


_TABLE_TWISTS = (
    _columns_permuted,
    _columns_added,
    _rows_permuted,
    _numbered,
    _capitals,
    _other_names,
    _asked_names,
)


_EXCLUSIVE = (frozenset({_numbered, _capitals, _mapped}), frozenset({_other_names, _asked_names}))


def _csv(
    table: Sequence[Row], quoting: Any = csv.QUOTE_MINIMAL, end: str = "\n", separator: str = ","
) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=quoting, lineterminator=end, delimiter=separator)
    writer.writerow(table[0])
    writer.writerows([row[name] for name in table[0]] for row in table)
    return stream.getvalue()


def _tsv(table: Sequence[Row], end: str = "\n") -> str:
    lines = ["\t".join(table[0]), *("\t".join(str(row[name]) for name in table[0]) for row in table)]
    return "".join(line + end for line in lines)


# The content, and whether it may be refused.
Formed: TypeAlias = tuple[bytes, bool]


def _csv_plain(table: list[Row], generator: random.Random) -> Formed:
    return _csv(table).encode(), False


def _csv_crlf(table: list[Row], generator: random.Random) -> Formed:
    return _csv(table, end="\r\n").encode(), False


def _csv_bom(table: list[Row], generator: random.Random) -> Formed:
    return _csv(table, end=generator.choice(("\n", "\r\n"))).encode("utf-8-sig"), False


def _csv_all_quoted(table: list[Row], generator: random.Random) -> Formed:
    return _csv(table, csv.QUOTE_ALL, generator.choice(("\n", "\r\n"))).encode(), False


def _csv_texts_quoted(table: list[Row], generator: random.Random) -> Formed:
    return _csv(table, csv.QUOTE_NONNUMERIC).encode(), False


def _csv_utf16(table: list[Row], generator: random.Random) -> Formed:
    return _csv(table, end="\r\n").encode("utf-16"), True


def _csv_no_last_line_end(table: list[Row], generator: random.Random) -> Formed:
    return _csv(table).rstrip("\n").encode(), False


def _csv_blank_last_lines(table: list[Row], generator: random.Random) -> Formed:
    return (_csv(table) + "\n" * generator.randint(1, 2)).encode(), True


def _csv_index_column(table: list[Row], generator: random.Random) -> Formed:
    return _csv([{"": place, **row} for place, row in enumerate(table)]).encode(), False


def _csv_semicolons(table: list[Row], generator: random.Random) -> Formed:
    return _csv(table, separator=";").encode(), True


def _csv_separator_named(table: list[Row], generator: random.Random) -> Formed:
    return ("sep=,\r\n" + _csv(table, end="\r\n")).encode(), True


def _tsv_plain(table: list[Row], generator: random.Random) -> Formed:
    return _tsv(table).encode(), False


def _tsv_crlf(table: list[Row], generator: random.Random) -> Formed:
    return _tsv(table, "\r\n").encode(), False


def _tsv_bom(table: list[Row], generator: random.Random) -> Formed:
    return _tsv(table, generator.choice(("\n", "\r\n"))).encode("utf-8-sig"), False


def _tsv_utf16(table: list[Row], generator: random.Random) -> Formed:
    return _tsv(table, "\r\n").encode("utf-16"), True


def _tsv_no_last_line_end(table: list[Row], generator: random.Random) -> Formed:
    return _tsv(table).rstrip("\n").encode(), False


def _jsonl(table: Sequence[Row], end: str = "\n", **settings: Any) -> str:
    return "".join(json.dumps(row, **settings) + end for row in table)


def _jsonl_plain(table: list[Row], generator: random.Random) -> Formed:
    return _jsonl(table, ensure_ascii=False).encode(), False


def _jsonl_escapes(table: list[Row], generator: random.Random) -> Formed:
    return _jsonl(table, ensure_ascii=True).encode(), False


def _jsonl_crlf(table: list[Row], generator: random.Random) -> Formed:
    return _jsonl(table, "\r\n").encode(), False


def _jsonl_compact(table: list[Row], generator: random.Random) -> Formed:
    return _jsonl(table, separators=(",", ":")).encode(), False


def _jsonl_spaces(table: list[Row], generator: random.Random) -> Formed:
    return _jsonl(table, separators=(" ,  ", " :\t")).encode(), False


def _jsonl_keys_in_any_order(table: list[Row], generator: random.Random) -> Formed:
    shuffled = [{name: row[name] for name in generator.sample(sorted(row), len(row))} for row in table]
    return _jsonl(shuffled).encode(), False


def _jsonl_no_last_line_end(table: list[Row], generator: random.Random) -> Formed:
    return _jsonl(table).rstrip("\n").encode(), False


def _jsonl_nested_beside(table: list[Row], generator: random.Random) -> Formed:
    return _jsonl([{**row, "meta": {"a": [place, None]}} for place, row in enumerate(table)]).encode(), False


def _jsonl_odd_encoding(table: list[Row], generator: random.Random) -> Formed:
    return _jsonl(table, ensure_ascii=False).encode(generator.choice(("utf-8-sig", "utf-16"))), True


def _jsonl_blank_last_line(table: list[Row], generator: random.Random) -> Formed:
    return (_jsonl(table) + "\n").encode(), True


def _json_array(table: list[Row], generator: random.Random) -> Formed:
    indent = generator.choice((None, 0, 2, "\t"))
    return json.dumps(table, indent=indent, ensure_ascii=generator.random() < 0.5).encode(), False


def _json_lines(table: list[Row], generator: random.Random) -> Formed:
    return _jsonl(table).encode(), False


def _json_wrapped(table: list[Row], generator: random.Random) -> Formed:
    return json.dumps({"version": 1, "data": table}).encode(), True


def _arrow(table: Sequence[Row]) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist(list(table))


def _parquet_plain(table: list[Row], generator: random.Random) -> Formed:
    return parquet_bytes(_arrow(table)), False


def _parquet_layout(table: list[Row], generator: random.Random) -> Formed:
    return parquet_bytes(
        _arrow(table),
        row_group_size=generator.choice((1, 5, 1000)),
        compression=generator.choice(("none", "snappy", "gzip", "zstd", "brotli")),
        use_dictionary=generator.random() < 0.5,
        version=generator.choice(("1.0", "2.4", "2.6")),
        data_page_version=generator.choice(("1.0", "2.0")),
    ), False


def _parquet_types(table: list[Row], generator: random.Random) -> Formed:
    import pyarrow as pa

    found = _arrow(table)
    for place, (name, kind) in enumerate(zip(found.column_names, found.schema.types, strict=True)):
        column = found.column(name)
        if pa.types.is_string(kind):
            column = generator.choice(
                (column.cast(pa.large_string()), column.combine_chunks().dictionary_encode(), column)
            )
        elif pa.types.is_integer(kind):
            column = column.cast(generator.choice((pa.int8(), pa.uint16(), pa.int32(), pa.int64())))
        found = found.set_column(place, name, column)
    return parquet_bytes(found), False


def _parquet_of_pandas(table: list[Row], generator: random.Random) -> Formed:
    import pandas as pd

    frame = pd.DataFrame(table)
    frame.index = generator.choice(
        (frame.index, pd.Index(range(5, 5 + len(frame)), name="row"), frame.index[::-1])
    )
    stream = io.BytesIO()
    frame.to_parquet(stream)
    return stream.getvalue(), False


_FORMS: dict[str, tuple[Callable[[list[Row], random.Random], Formed], ...]] = {
    "csv": (_csv_plain, _csv_crlf, _csv_bom, _csv_all_quoted, _csv_texts_quoted, _csv_utf16,
    _csv_no_last_line_end,
            _csv_blank_last_lines, _csv_index_column, _csv_semicolons, _csv_separator_named),
    "tsv": (_tsv_plain, _tsv_crlf, _tsv_bom, _tsv_utf16, _tsv_no_last_line_end),
    "jsonl": (_jsonl_plain, _jsonl_escapes, _jsonl_crlf, _jsonl_compact, _jsonl_spaces,
    _jsonl_keys_in_any_order,
              _jsonl_no_last_line_end, _jsonl_nested_beside, _jsonl_odd_encoding, _jsonl_blank_last_line),
    "json": (_json_array, _json_lines, _json_wrapped),
    "parquet": (_parquet_plain, _parquet_layout, _parquet_types, _parquet_of_pandas),
}  # fmt: skip


def plain_data(rows: Sequence[tuple[str, str]]) -> Files:
    """Labelled texts in each format, as it is written most often."""
    table: list[Row] = [{"text": text, "label": label} for text, label in rows]
    texts: Files = {
        "data.csv": _csv(table).encode(),
        "data.tsv": _tsv(table).encode(),
        "data.jsonl": _jsonl(table, ensure_ascii=False).encode(),
        "data.json": json.dumps(table, indent=2).encode(),
    }
    return texts | {"data.parquet": parquet_bytes(_arrow(table))}


def wrong_data(rows: Sequence[tuple[str, str]], generator: random.Random) -> Rewrite:
    """Write labelled texts with a fault that every command that reads labels must find."""
    table = [{"text": text, "label": label} for text, label in rows]
    place = generator.randrange(len(table))
    faults: dict[str, Callable[[], Files]] = {
        "csv row longer": lambda: {"data.csv": _line_changed(_csv(table), place,
        lambda line: line + ",more")},
        "csv row of three separators": lambda: {"data.csv": _line_changed(_csv(table), place,
        lambda line: line + ",,")},
        "csv rows all longer": lambda: {"data.csv": _lines_longer(_csv(table), ",x")},
        "csv row shorter": lambda: {"data.csv": _line_changed(_csv(table), place,
        lambda line: line.rpartition(",")[0])},
        "tsv row longer": lambda: {"data.tsv": _line_changed(_tsv(table), place,
        lambda line: line + "\tmore")},
        "tsv rows all longer": lambda: {"data.tsv": _lines_longer(_tsv(table), "\tx")},
        "tsv row shorter": lambda: {"data.tsv": _line_changed(_tsv(table), place,
        lambda line: line.partition("\t")[0])},
        "unknown label": lambda: {"data.csv": _csv(_with(table, place, label="neither")).encode()},
        "empty label": lambda: {"data.csv": _csv(_with(table, place, label="")).encode()},
        "empty text": lambda: {"data.csv": _csv(_with(table, place, text=" ")).encode()},
        "label null": lambda: {"data.jsonl": _jsonl(_with(table, place, label=None)).encode()},
        "text null": lambda: {"data.jsonl": _jsonl(_with(table, place, text=None)).encode()},
        "texts are lists": lambda: {"data.jsonl": _jsonl([{**row,
        "text": row["text"].split()} for row in table]).encode()},
        "texts are objects": lambda: {"data.jsonl": _jsonl([{**row,
        "text": {"en": row["text"]}} for row in table]).encode()},
        "labels are lists": lambda: {"data.jsonl": _jsonl([{**row,
        "label": [row["label"]]} for row in table]).encode()},
        "texts are dates": lambda: {"data.parquet": _dated(table)},
        "texts are bytes of UTF-16": lambda: {"data.parquet": parquet_bytes(_arrow([{**row,
        "text": row["text"].encode("utf-16")} for row in table]))},
        "latin-1": lambda: {"data.csv": _csv(_with(table, place, text="déjà vu")).encode("latin-1",
        "replace")},
        "a column twice": lambda: {"data.csv": _csv(table).replace("text,label", "text,text", 1).encode()},
    }  # fmt: skip
    name = generator.choice(sorted(faults))
    return Rewrite(name, faults[name](), "refused")


def _with(table: Sequence[Row], place: int, **values: Any) -> list[Row]:
    return [{**row, **values} if at == place else row for at, row in enumerate(table)]


def _line_changed(text: str, place: int, change: Callable[[str], str]) -> bytes:
    lines = text.rstrip("\n").split("\n")
    lines[1 + place] = change(lines[1 + place])
    return ("\n".join(lines) + "\n").encode()


def _lines_longer(text: str, end: str) -> bytes:
    head, *lines = text.rstrip("\n").split("\n")
    return "\n".join([head, *(line + end for line in lines), ""]).encode()


def _dated(table: Sequence[Row]) -> bytes:
    import pyarrow as pa

    dates = pa.array([86_400_000_000 * place for place in range(len(table))], pa.timestamp("us"))
    return parquet_bytes(_arrow(table).set_column(0, "text", dates))


# --- models ---------------------------------------------------------------------------------------

# Keys of config.json that decide nothing of what a model answers, and values for them.
IDLE_KEYS: dict[str, tuple[Any, ...]] = {
    "_name_or_path": ("", "x/y", "../none"),
    "transformers_version": ("4.0.0", "99.0", None),
    "initializer_range": (0.02, 0.5),
    "hidden_dropout_prob": (0.0, 0.5),
    "attention_probs_dropout_prob": (0.0, 0.3),
    "classifier_dropout": (0.0, 0.2, None),
    "use_cache": (True, False),
    "my_note": ("a note", ["x"], {"a": 1}),
    "finetuning_task": ("sst2", None),
    "dtype": ("float32",),
    "torch_dtype": ("float32",),
    "problem_type": ("single_label_classification", None),
    "task_specific_params": (None, {"a": {"max_length": 5}}),
    "early_stopping": (False,),
    "num_beams": (1, 4),
}


def rewrite_model(model: Mapping[str, bytes], generator: random.Random) -> Rewrite:
    """Write a classifier's files in another way that means the same.

    Args:
        model: its files by name.
    """
    rewrites = (_idle_keys, _idle_keys, _json_layout, _json_layout, _key_order, _fewer_files, _longer_limit,
    _weights_layout,
                _weights_layout, sharded, _position_ids, _double_precision, _tokenizer_state,
                _unmeant_keys)  # fmt: skip
    return generator.choice(rewrites)(model, generator)


def _json_of(model: Mapping[str, bytes], name: str) -> Any:
    return json.loads(model[name])


def _idle_keys(model: Mapping[str, bytes], generator: random.Random) -> Rewrite:
    config = _json_of(model, "config.json")
    chosen = generator.sample(sorted(IDLE_KEYS), generator.randint(1, 3))
    values = {name: generator.choice(IDLE_KEYS[name]) for name in chosen}
    return Rewrite(f"config.json: {values}", {"config.json": dump_json(config | values)}, "same")


# What changes how a library calls a model or what it returns, and not what the model answers.
UNMEANT: tuple[dict[str, Any], ...] = (
    {"output_attentions": True}, {"output_hidden_states": True}, {"return_dict": False},
    {"torchscript": True},
    {"label2id": {"a": 0, "b": 1}}, {"architectures": None}, {"architectures": []},
    {"is_encoder_decoder": True},
    {"chunk_size_feed_forward": 8}, {"tie_word_embeddings": False}, {"pruned_heads": {}},
    {"_attn_implementation": "eager"},
    {"attn_implementation": "eager"}, {"pad_token_id": None}, {"gradient_checkpointing": True},
    {"label2id": None},
    {"tokenizer_class": "BertTokenizer"}, {"auto_map": {"AutoConfig": "own.Config"}}, {"num_labels": 2},
)  # fmt: skip


def _unmeant_keys(model: Mapping[str, bytes], generator: random.Random) -> Rewrite:
    values = generator.choice(UNMEANT)
    content = dump_json(_json_of(model, "config.json") | values)
    return Rewrite(f"config.json: {values}", {"config.json": content}, "same or refused")


JSON_FILES = ("config.json", "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json")


def _json_layout(model: Mapping[str, bytes], generator: random.Random) -> Rewrite:
    name = generator.choice(JSON_FILES)
    value = _json_of(model, name)
    form = generator.choice(("indented", "compact", "escaped", "CRLF", "spaces around"))
    text = {
        "indented": json.dumps(value, indent=7, ensure_ascii=False),
        "compact": json.dumps(value, separators=(",", ":"), ensure_ascii=False),
        "escaped": json.dumps(value, ensure_ascii=True),
        "CRLF": json.dumps(value, indent=2, ensure_ascii=False).replace("\n", "\r\n"),
        "spaces around": f"\n\t {json.dumps(value, ensure_ascii=False)} \n\n",
    }[form]
    return Rewrite(f"{name}: {form}", {name: text.encode()}, "same")


def _key_order(model: Mapping[str, bytes], generator: random.Random) -> Rewrite:
    name = generator.choice(JSON_FILES)
    value = _json_of(model, name)
    shuffled = {key: value[key] for key in generator.sample(sorted(value), len(value))}
    if name == "tokenizer.json":
        words = shuffled["model"]["vocab"]
        shuffled["model"]["vocab"] = {key: words[key] for key in generator.sample(sorted(words), len(words))}
    return Rewrite(f"{name}: keys in another order", {name: dump_json(shuffled)}, "same")


def _fewer_files(model: Mapping[str, bytes], generator: random.Random) -> Rewrite:
    # tokenizer.json holds all that the others do; without it the words alone make a tokenizer.
    name = generator.choice(
        ("vocab.txt", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json")
    )
    expected: Expected = "same" if name == "vocab.txt" else "same or refused"
    return Rewrite(f"without {name}", {name: None}, expected)


def _longer_limit(model: Mapping[str, bytes], generator: random.Random) -> Rewrite:
    config = _json_of(model, "tokenizer_config.json")
    config |= {
        "model_max_length": generator.choice((64, 512, 10**30)),
        "clean_up_tokenization_spaces": generator.random() < 0.5,
    }
    return Rewrite(
        f"model_max_length {config['model_max_length']}",
        {"tokenizer_config.json": dump_json(config)},
        "same or refused",
    )


def _weights_layout(model: Mapping[str, bytes], generator: random.Random) -> Rewrite:
    """Tensors in another order in the file, the header's keys in another order or with spaces at its end."""
    header, body = split_safetensors(model["model.safetensors"])
    metadata = header.pop("__metadata__", None)
    names = generator.sample(sorted(header), len(header))
    form = generator.choice(("tensors reordered", "header reordered", "header padded", "no metadata"))
    new_header: dict[str, Any] = (
        {} if form == "no metadata" or metadata is None else {"__metadata__": metadata}
    )
    new_body = body
    if form == "tensors reordered":
        new_body = b""
        for name in names:
            start, end = header[name]["data_offsets"]
            new_header[name] = {**header[name], "data_offsets": [len(new_body), len(new_body) + end - start]}
            new_body += body[start:end]
    else:
        new_header |= {name: header[name] for name in (names if form == "header reordered" else header)}
    text = json.dumps(new_header, separators=(",", ":")).encode()
    if form == "header padded":
        text += b" " * (64 - len(text) % 8)
    # Transformers asks for the framework that wrote a file.
    expected: Expected = "same or refused" if form == "no metadata" else "same"
    return Rewrite(f"safetensors: {form}", {"model.safetensors": join_safetensors(text, new_body)}, expected)


def sharded(model: Mapping[str, bytes], generator: random.Random) -> Rewrite:
    """Spread a model's weights over two to four files."""
    from safetensors.torch import load, save

    tensors = load(model["model.safetensors"])
    names = generator.sample(sorted(tensors), len(tensors))
    count = generator.randint(2, 4)
    files: Files = {"model.safetensors": None}
    places: dict[str, str] = {}
    for shard in range(count):
        file = f"model-{shard + 1:05d}-of-{count:05d}.safetensors"
        own = {name: tensors[name] for name in names[shard::count]}
        files[file] = save(own, {"format": "pt"})
        places |= dict.fromkeys(own, file)
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    files["model.safetensors.index.json"] = dump_json(index)
    return Rewrite(f"in {count} shards", files, "same")


def _changed_tensors(model: Mapping[str, bytes], change: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
    from safetensors.torch import load, save

    found: bytes = save(change(load(model["model.safetensors"])), {"format": "pt"})
    return found


def _position_ids(model: Mapping[str, bytes], generator: random.Random) -> Rewrite:
    """With the buffer that older versions of transformers saved."""
    import torch

    name = "bert.embeddings.position_ids"
    content = _changed_tensors(model, lambda tensors: {**tensors, name: torch.arange(64)[None]})
    return Rewrite("with position_ids", {"model.safetensors": content}, "same")


def _double_precision(model: Mapping[str, bytes], generator: random.Random) -> Rewrite:
    content = _changed_tensors(
        model, lambda tensors: {name: tensor.double() for name, tensor in tensors.items()}
    )
    return Rewrite("weights in float64", {"model.safetensors": content}, "same or refused")


def _tokenizer_state(model: Mapping[str, bytes], generator: random.Random) -> Rewrite:
    """With cutting and padding in the tokenizer's file, as a program that used the tokenizer leaves them."""
    value = _json_of(model, "tokenizer.json")
    value["truncation"] = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    value["padding"] = {
        "strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }  # fmt: skip
    return Rewrite(
        "tokenizer.json cuts at 5 and pads to 20", {"tokenizer.json": dump_json(value)}, "same or refused"
    )


def wrong_model(model: Mapping[str, bytes], generator: random.Random) -> Rewrite:
    """Write a classifier with a fault that every command that loads it must find."""
    import torch

    config = _json_of(model, "config.json")
    values = generator.choice(
        ({"problem_type": "multi_label_classification"},
        {"num_hidden_layers": config["num_hidden_layers"] + 1},
         {"num_hidden_layers": config["num_hidden_layers"] - 1}, {"vocab_size": config["vocab_size"] + 1},
         {"hidden_size": 32}, {"model_type": "roberta"}, {"model_type": "none"},
         {"architectures": ["BertForMaskedLM"]},
         {"hidden_act": "nothing"}, {"max_position_embeddings": 128}, {"id2label": {"0": "a", "1": "b",
         "2": "c"}},
         {"num_attention_heads": 3}, {"type_vocab_size": 3}, {"intermediate_size": 8},
         {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}})
    )  # fmt: skip
    layer = "bert.encoder.layer.0.output.dense.weight"

    def without(tensors: dict[str, Any]) -> dict[str, Any]:
        return {name: tensor for name, tensor in tensors.items() if name != layer}

    def spoilt(tensors: dict[str, Any]) -> dict[str, Any]:
        changed = copy.deepcopy(tensors[layer])
        changed[0, 0] = generator.choice((float("nan"), float("inf")))
        return {**tensors, layer: changed}

    weights = model["model.safetensors"]
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "x", "target_modules": ["query"], "r": 4}
    faults: dict[str, Callable[[], Files]] = {
        "weights cut": lambda: {"model.safetensors": weights[: generator.randrange(len(weights))]},
        "a layer missing": lambda: {"model.safetensors": _changed_tensors(model, without)},
        "a weight that is not finite": lambda: {"model.safetensors": _changed_tensors(model, spoilt)},
        "no tokenizer": lambda: {"tokenizer.json": None, "vocab.txt": None},
        "no config.json": lambda: {"config.json": None},
        "no weights": lambda: {"model.safetensors": None},
        "an adapter beside it": lambda: {
            "adapter_config.json": dump_json(adapter),
            "adapter_model.safetensors": join_safetensors({}, b""),
        },
        "a layer too many": lambda: {
            "model.safetensors": _changed_tensors(
                model, lambda tensors: {**tensors, layer.replace(".0.", ".7."): torch.ones(4, 4)}
            )
        },
    }
    if generator.random() < 0.6:
        return Rewrite(f"config.json: {values}", {"config.json": dump_json(config | values)}, "refused")
    name = generator.choice(sorted(faults))
    return Rewrite(name, faults[name](), "refused")


# --- artifacts and recipes ------------------------------------------------------------------------


def rewrite_artifact(artifact: Mapping[str, bytes], generator: random.Random) -> Rewrite:
    """Write an artifact's manifest in another way, or put a file beside it that it does not list."""
    manifest = _json_of(artifact, "manifest.json")
    form = generator.choice(("compact", "keys in another order", "a key more", "a file beside", "CRLF"))
    if form == "a file beside":
        return Rewrite(form, {"notes.txt": b"a note\n"}, "same")
    if form == "keys in another order":
        manifest = {key: manifest[key] for key in generator.sample(sorted(manifest), len(manifest))}
    elif form == "a key more":
        manifest["note"] = {"a": 1}
    text = json.dumps(manifest) if form == "compact" else json.dumps(manifest, indent=2)
    if form == "CRLF":
        text = text.replace("\n", "\r\n")
    return Rewrite(f"manifest.json: {form}", {"manifest.json": text.encode()}, "same")


def rewrite_recipe(recipe: bytes, generator: random.Random) -> Rewrite:
    """Write a recipe in another way that means the same."""
    import yaml

    value = yaml.safe_load(recipe)
    form = generator.choice(
        ("keys in another order", "flow", "JSON", "quoted", "comments", "CRLF", "BOM", "document marks",
        "anchor", "wide indent",
         "no last line end", "UTF-16")
    )  # fmt: skip
    expected: Expected = "same or refused" if form in ("BOM", "UTF-16", "CRLF") else "same"
    plain = recipe.decode()
    texts: dict[str, Callable[[], str]] = {
        "keys in another order": lambda: yaml.safe_dump(_shuffled(value, generator), sort_keys=False),
        "flow": lambda: yaml.safe_dump(value, default_flow_style=True, width=10**6),
        "JSON": lambda: json.dumps(value, indent=generator.choice((None, 2))),
        "quoted": lambda: plain.replace("cpu", '"cpu"').replace("adaptive", "'adaptive'"),
        "comments": lambda: "# first\n" + plain.replace("\n", " # a comment\n"),
        "CRLF": lambda: plain.replace("\n", "\r\n"),
        "BOM": lambda: "\ufeff" + plain,
        "document marks": lambda: f"---\n{plain}...\n",
        "anchor": lambda: plain.replace("threads: 1", "threads: &one 1").replace("epochs: 1", "epochs: *one"),
        "wide indent": lambda: yaml.safe_dump(value, indent=8, sort_keys=False),
        "no last line end": lambda: plain.rstrip("\n"),
        "UTF-16": lambda: plain,
    }
    content = texts[form]().encode("utf-16" if form == "UTF-16" else "utf-8")
    return Rewrite(f"recipe: {form}", {"recipe.yaml": content}, expected)


def _shuffled(value: Any, generator: random.Random) -> Any:
    if isinstance(value, dict):
        return {key: _shuffled(value[key], generator) for key in generator.sample(sorted(value), len(value))}
    return value
