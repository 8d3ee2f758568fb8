"""Ways to damage a file: by bytes, as JSON, as a table, as safetensors, as ONNX, as YAML. Pure functions.

Each takes the content of a valid file and a generator of random numbers, and returns the content of a file
that is most likely no longer valid, with the name of what was done. The same generator's state gives the
same file.
"""

from __future__ import annotations

import csv
import io
import json
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

# What was done, and the new content.
Damaged: TypeAlias = tuple[str, bytes]
Mutator: TypeAlias = Callable[[bytes, random.Random], Damaged]

NASTY_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e308, 2**31, 2**63, -(2**63), 10**30, "", " ", "0", "1",
    "nan", "null",
    "\0", "\n", "a" * 1000, "../../etc/passwd", "/dev/null", "/", ".", "~", "{}", "é", "\u2028", "\ud800",
    [], {}, [[]],
    [None], {"": None}, [0, 1], ["a", "a"], {"0": "a", "1": "b"}, float("nan"), float("inf"), "gelu",
    "relative_key",
    "float16", "bert", "BertModel", "auto",
)  # fmt: skip
FRAGMENTS = (
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\n", b"\r", b"\r\n", b"\t",
    b",", b'"', b"'",
    b'""', b"\\", b"{", b"}", b"[", b"]", b":", b"null", b"NaN", b"-Infinity", b"1e999", b"\x1a",
    b"\xe2\x80\xa8", b"\x85",
    b"[" * 2000, b'{"a":' * 1500, b"9" * 5000, b"-", b"#", b"&a ", b"*a", b"!!", b"|", b">", b"%", b"---\n",
    b"<<: ",
)  # fmt: skip
NASTY_CELLS = (
    "", " ", "\0", '"', '""', "'", "a,b", "a\tb", "a\nb", "\r", "nan", "NULL", "-1", "0", "1", "2", "1.0",
    "0.5", "1e400",
    "True", "é" * 40, "日本語", "\u2028", "\u200b", "\u202e", "😀", "a" * 50_000, "word " * 3000, "=cmd()",
    "\\",
    '\\"', "[]",
    "{}", "\ufeff", "\x1b[31m",
)  # fmt: skip


# --- bytes ----------------------------------------------------------------------------------------


def damage_bytes(content: bytes, generator: random.Random) -> Damaged:
    """Flip, cut, repeat, swap, blank or insert bytes, one to three times."""
    names = []
    for _ in range(generator.choice((1, 1, 1, 2, 3))):
        act = generator.choice(_BYTE_ACTS)
        content = act(content, generator)
        names.append(act.__name__.strip("_"))
    return "+".join(names), content


def _flip_bit(content: bytes, generator: random.Random) -> bytes:
    if not content:
        return b"\0"
    changed = bytearray(content)
    for _ in range(generator.choice((1, 1, 8))):
        changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
    return bytes(changed)


def _flip_bit_near_the_start(content: bytes, generator: random.Random) -> bytes:
    changed = bytearray(content or b"\0")
    changed[generator.randrange(min(64, len(changed)))] ^= 1 << generator.randrange(8)
    return bytes(changed)


def _truncate(content: bytes, generator: random.Random) -> bytes:
    return content[: generator.randrange(len(content) + 1)]


def _truncate_a_little(content: bytes, generator: random.Random) -> bytes:
    return content[: max(0, len(content) - generator.randint(1, 16))]


def _drop_piece(content: bytes, generator: random.Random) -> bytes:
    start, end = _span(content, generator)
    return content[:start] + content[end:]


def _repeat_piece(content: bytes, generator: random.Random) -> bytes:
    start, end = _span(content, generator)
    return content[:end] + content[start:end] + content[end:]


def _blank_piece(content: bytes, generator: random.Random) -> bytes:
    start, end = _span(content, generator)
    return content[:start] + bytes(end - start) + content[end:]


def _insert_fragment(content: bytes, generator: random.Random) -> bytes:
    start = generator.randrange(len(content) + 1)
    return content[:start] + generator.choice(FRAGMENTS) + content[start:]


def _insert_fragment_in_front(content: bytes, generator: random.Random) -> bytes:
    return generator.choice(FRAGMENTS) + content


def _append_fragment(content: bytes, generator: random.Random) -> bytes:
    return content + generator.choice(FRAGMENTS)


def _insert_noise(content: bytes, generator: random.Random) -> bytes:
    start = generator.randrange(len(content) + 1)
    return content[:start] + generator.randbytes(generator.randint(1, 32)) + content[start:]


def _empty(content: bytes, generator: random.Random) -> bytes:
    del content
    return generator.choice((b"", b"\n", b" ", b"\0" * 100, b"null", b"[]", b"{}"))


def _span(content: bytes, generator: random.Random) -> tuple[int, int]:
    start = generator.randrange(len(content) + 1)
    return start, min(len(content), start + generator.choice((1, 2, 8, 40, 200)))


_BYTE_ACTS = (
    _flip_bit, _flip_bit_near_the_start, _truncate, _truncate_a_little, _drop_piece, _repeat_piece,
    _blank_piece,
    _insert_fragment, _insert_fragment, _insert_fragment_in_front, _append_fragment, _insert_noise, _empty,
)  # fmt: skip


def reencode(content: bytes, generator: random.Random) -> Damaged:
    """Write a text in another encoding, one that nothing in the file says."""
    encoding = generator.choice(
        ("latin-1", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "utf-8-sig", "cp500")
    )
    return f"encoded as {encoding}", content.decode("utf-8", "replace").encode(encoding, "replace")


# --- JSON -----------------------------------------------------------------------------------------

Path_: TypeAlias = tuple[str | int, ...]


def paths_of(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """The path of each value within a JSON value, itself first; of a long list only the first values."""
    yield path
    items: Sequence[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        items = list(value.items())[:40]
    elif isinstance(value, list):
        items = list(enumerate(value))[:8]
    for key, inner in items:
        yield from paths_of(inner, (*path, key))


def parent_of(value: Any, path: Path_) -> Any:
    """The dict or list in which the last key of `path` is."""
    for key in path[:-1]:
        value = value[key]
    return value


def dump_json(value: Any) -> bytes:
    """JSON as Python writes it, lone surrogates and NaN included."""
    return json.dumps(value, indent=2, ensure_ascii=True).encode()


def damage_json(content: bytes, generator: random.Random) -> Damaged:
    """Change, drop, rename, add or nest a value of a JSON document."""
    value = json.loads(content)
    names = []
    for _ in range(generator.choice((1, 1, 1, 2))):
        name, value = damage_value(value, generator)
        names.append(name)
    return "+".join(names), dump_json(value)


def damage_value(value: Any, generator: random.Random) -> tuple[str, Any]:
    """As `damage_json`, on the value itself, which may be changed in place."""
    paths = [path for path in paths_of(value) if path]
    if not paths or generator.random() < 0.03:
        new = generator.choice(NASTY_VALUES)
        return f"all = {_short(new)}", new
    # Each level as likely as the next: the deep ones are many.
    depth = generator.choice(sorted({len(path) for path in paths}))
    path = generator.choice([path for path in paths if len(path) == depth])
    parent, key = parent_of(value, path), path[-1]
    place = ".".join(map(str, path))
    act = generator.choice(("set", "set", "set", "drop", "rename", "add", "nest", "shift", "repeat"))
    if act == "set":
        parent[key] = generator.choice(NASTY_VALUES)
        return f"{place} = {_short(parent[key])}", value
    if act == "drop":
        del parent[key]
        return f"{place} dropped", value
    if act == "nest":
        parent[key] = generator.choice(([parent[key]], {"value": parent[key]}))
        return f"{place} nested", value
    if act == "shift":
        parent[key] = _shifted(parent[key], generator)
        return f"{place} = {_short(parent[key])}", value
    if isinstance(parent, dict):
        new_key = generator.choice((f"{key}_", f"{key}"[:-1], f"{key}".upper(), "", "\0", "a" * 1000))
        parent[new_key] = parent.pop(key) if act == "rename" else generator.choice(NASTY_VALUES)
        return f"{place} {'renamed' if act == 'rename' else 'has a neighbour'} {_short(new_key)}", value
    parent.append(parent[key])
    return f"{place} repeated", value


def _shifted(value: Any, generator: random.Random) -> Any:
    """A value of the same type near to `value`."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + generator.choice((1, -1, 1000, -2 * value, value))
    if isinstance(value, float):
        return value * generator.choice((-1.0, 1e6, 0.0))
    if isinstance(value, str):
        return generator.choice((value + "x", value[1:], value.upper(), value + " ", value + "\n"))
    if isinstance(value, list):
        return generator.sample(value, len(value)) if generator.random() < 0.5 else value + value
    return str(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 40 else text[:37] + "..."


# --- tables ---------------------------------------------------------------------------------------


def read_table(content: bytes, separator: str) -> list[list[str]]:
    """Rows of a valid csv or tsv text, its header first."""
    quoting = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    # The constants of csv are plain integers to type checkers.
    return list(csv.reader(io.StringIO(content.decode()), delimiter=separator, quoting=quoting))  # type: ignore[arg-type]


def write_table(rows: Sequence[Sequence[str]], separator: str) -> bytes:
    """The inverse of `read_table`, where no cell of a tsv holds a separator."""
    if separator == "\t":
        return "".join("\t".join(row) + "\n" for row in rows).encode("utf-8", "surrogatepass")
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue().encode("utf-8", "surrogatepass")


def damage_table(content: bytes, generator: random.Random, separator: str) -> Damaged:
    """Change a cell, a row, a column or the header of a csv or tsv text."""
    rows = read_table(content, separator)
    act = generator.choice(("cell", "cell", "cell", "raw cell", "row", "header", "column", "quotes"))
    place = generator.randrange(1, len(rows))
    column = generator.randrange(len(rows[0]))
    if act in ("cell", "raw cell"):
        new = generator.choice(NASTY_CELLS)
        rows[place][column] = new
        name = f"{act} {rows[0][column]} = {_short(new)}"
        if act == "raw cell":
            # As no writer would: without the quotes that the cell needs.
            return name, "".join(separator.join(row) + "\n" for row in rows).encode("utf-8", "surrogatepass")
        return name, write_table(rows, separator)
    if act == "row":
        kind, new_rows = _damaged_rows(rows, place, generator)
        return f"row {kind}", write_table(new_rows, separator)
    if act == "header":
        kind, new_rows = _damaged_header(rows, column, generator)
        return f"header {kind}", write_table(new_rows, separator)
    if act == "column":
        kind, new_rows = _damaged_column(rows, column, generator)
        return f"column {kind}", write_table(new_rows, separator)
    text = write_table(rows, separator).decode()
    start = generator.randrange(len(text))
    return "one more quote mark", (text[:start] + '"' + text[start:]).encode()


def _damaged_rows(rows: list[list[str]], place: int, generator: random.Random) -> tuple[str, list[list[str]]]:
    kind = generator.choice(
        ("shorter", "longer", "empty", "blank", "repeated header", "none", "one", "doubled")
    )
    row = rows[place]
    changed = {
        "shorter": [*rows[:place], row[:-1], *rows[place + 1 :]],
        "longer": [*rows[:place], [*row, "more"], *rows[place + 1 :]],
        "empty": [*rows[:place], [""] * len(row), *rows[place + 1 :]],
        "blank": [*rows[:place], [], *rows[place:]],
        "repeated header": [*rows[:place], rows[0], *rows[place:]],
        "none": rows[:1],
        "one": rows[:2],
        "doubled": [*rows, *rows[1:]],
    }
    return kind, changed[kind]


def _damaged_header(
    rows: list[list[str]], column: int, generator: random.Random
) -> tuple[str, list[list[str]]]:
    kind = generator.choice(
        ("missing", "renamed", "repeated", "spaced", "upper", "longer", "shorter", "blank in front")
    )
    header = list(rows[0])
    if kind == "missing":
        return kind, rows[1:]
    if kind == "blank in front":
        return kind, [[], *rows]
    if kind in ("longer", "shorter"):
        return kind, [[*header, "more"] if kind == "longer" else header[:-1], *rows[1:]]
    header[column] = {
        "renamed": generator.choice(NASTY_CELLS[:-3]),
        "repeated": header[0],
        "spaced": f" {header[column]} ",
        "upper": header[column].upper(),
    }[kind]
    return kind, [header, *rows[1:]]


def _damaged_column(
    rows: list[list[str]], column: int, generator: random.Random
) -> tuple[str, list[list[str]]]:
    kind = generator.choice(("dropped", "constant", "numbers", "swapped", "mixed"))
    if kind == "dropped":
        return kind, [row[:column] + row[column + 1 :] for row in rows]
    if kind == "swapped":
        return kind, [rows[0], *(row[::-1] for row in rows[1:])]
    values: Callable[[int], str] = {
        "constant": lambda row: "same",
        "numbers": lambda row: f"{row / 4}",
        "mixed": lambda row: generator.choice(("0", "negative", "1.0", "positive", "-1", "2")),
    }[kind]
    return kind, [
        rows[0], *([*row[:column], values(place), *row[column + 1 :]] for place, row in enumerate(rows[1:]))
    ]  # fmt: skip


def damage_json_lines(content: bytes, generator: random.Random) -> Damaged:
    """Change one line of a jsonl text: a value, a key, or the line itself."""
    lines = content.decode().splitlines()
    place = generator.randrange(len(lines))
    act = generator.choice(("value", "value", "value", "line", "all lines", "array inside"))
    if act == "line":
        lines[place] = generator.choice(
            ("", "null", "1", "[]", '"text"', "{", "{}", "NaN", lines[place][:-1], lines[place] * 2)
        )
        return f"a line = {_short(lines[place])}", ("\n".join(lines) + "\n").encode()
    rows = [json.loads(line) for line in lines]
    if act == "all lines":
        key, new = generator.choice(sorted(rows[0])), generator.choice(NASTY_VALUES)
        rows = [{**row, key: new} for row in rows]
        name = f"{key} = {_short(new)} in all lines"
    elif act == "array inside":
        key = generator.choice(sorted(rows[0]))
        rows = [{**row, key: [row[key]]} for row in rows]
        name = f"{key} is a list in all lines"
    else:
        name, rows[place] = damage_value(rows[place], generator)
    return name, "".join(json.dumps(row) + "\n" for row in rows).encode()


def damage_parquet(content: bytes, generator: random.Random) -> Damaged:
    """Give a column of a parquet table another type, nulls or another name; or drop rows or columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(content))
    column = generator.randrange(table.num_columns)
    name = table.column_names[column]
    values = table.column(column).to_pylist()
    kinds: dict[str, Callable[[], Any]] = {
        "bytes": lambda: pa.array([value.encode("utf-16") for value in values]),
        "lists": lambda: pa.array([[value] for value in values]),
        "structs": lambda: pa.array([{"a": value} for value in values]),
        "dates": lambda: pa.array(
            [86_400_000_000 * place for place in range(len(values))], pa.timestamp("us")
        ),
        "numbers": lambda: pa.array([place / 2 for place in range(len(values))]),
        "whole numbers": lambda: pa.array([place % 3 for place in range(len(values))], pa.int8()),
        "booleans": lambda: pa.array([place % 2 == 0 for place in range(len(values))]),
        "nothing": lambda: pa.nulls(len(values)),
        "one null": lambda: pa.array([None, *values[1:]]),
        "decimals": lambda: pa.array(range(len(values))).cast(pa.decimal128(25, 2)),
        "categories with null": lambda: pa.array([None, *values[1:]]).dictionary_encode(),
        "maps": lambda: pa.array([[("a", value)] for value in values], pa.map_(pa.string(), pa.string())),
    }
    kind = generator.choice((*kinds, "no rows", "dropped", "renamed", "no columns", "repeated"))
    if kind == "no rows":
        table = table.slice(0, 0)
    elif kind == "dropped":
        table = table.remove_column(column)
    elif kind == "no columns":
        table = table.select([])
    elif kind == "repeated":
        table = table.append_column(name, table.column(column))
    elif kind == "renamed":
        new = generator.choice(("", " ", "\n", "Text", "LABEL", "é", "a" * 1000))
        table = table.rename_columns(
            [new if place == column else old for place, old in enumerate(table.column_names)]
        )
    else:
        table = table.set_column(column, name, kinds[kind]())
    return f"{name}: {kind}", parquet_bytes(table)


def parquet_bytes(table: Any, **settings: Any) -> bytes:
    """The parquet file of a table."""
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    pq.write_table(table, stream, **settings)
    return stream.getvalue()


# --- safetensors ----------------------------------------------------------------------------------


def split_safetensors(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the tensors' bytes of a safetensors file."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join_safetensors(header: Any, body: bytes, length: int | None = None) -> bytes:
    """The inverse of `split_safetensors`.

    Args:
        length: to be written in place of the header's own.
    """
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def damage_safetensors_header(content: bytes, generator: random.Random) -> Damaged:
    """Change the header of a safetensors file: its length, a tensor's name, type, shape or place."""
    header, body = split_safetensors(content)
    if generator.random() < 0.15:
        length = generator.choice((0, 1, 7, 2**63 - 1, 2**64 - 1, 10**8 + 1, len(content), len(content) * 2))
        return f"header length {length}", join_safetensors(header, body, length)
    name = generator.choice([key for key in sorted(header) if key != "__metadata__"])
    entry = header[name]
    act = generator.choice(("dtype", "shape", "offsets", "rename", "drop", "metadata", "value"))
    if act == "dtype":
        entry["dtype"] = generator.choice(
            ("F16", "F64", "I32", "I8", "BOOL", "BF16", "F8_E4M3", "X", "", None, 3)
        )
    elif act == "shape":
        shape = list(entry["shape"])
        entry["shape"] = generator.choice(
            (shape[::-1], [*shape, 1], [], [0], [-1], [2**40], None, [*shape[:-1], 1], "x")
        )
    elif act == "offsets":
        start, end = entry["data_offsets"]
        entry["data_offsets"] = generator.choice(
            ([end, start], [start, end + 4], [start + 4, end], [0, 2**62], [-4, end], [start], None, [0, 0])
        )
    elif act == "rename":
        header = {(f"{key}x" if key == name else key): value for key, value in header.items()}
    elif act == "drop":
        del header[name]
    elif act == "metadata":
        header["__metadata__"] = generator.choice(
            ({"format": "tf"}, {}, {"format": 3}, [], "x", {"format": "np"}, {"a": "\0"})
        )
    else:
        header[name] = generator.choice(NASTY_VALUES)
    return f"header {act} of {name}", join_safetensors(header, body)


def damage_tensors(content: bytes, generator: random.Random) -> Damaged:
    """Drop, add, rename, reshape, convert or spoil a tensor of a file, which stays a valid one."""
    import torch
    from safetensors.torch import load, save

    tensors = {name: tensor.clone() for name, tensor in load(content).items()}
    name = generator.choice(sorted(tensors))
    tensor = tensors[name]
    act = generator.choice(
        ("drop", "add", "rename", "transpose", "cut", "grow", "scalar", "nan", "inf", "huge", "zero", "half",
        "integer",
         "double", "swap", "empty", "bfloat16", "unprefixed", "drop many")
    )  # fmt: skip
    if act == "drop":
        del tensors[name]
    elif act == "drop many":
        for other in generator.sample(sorted(tensors), min(5, len(tensors))):
            del tensors[other]
    elif act == "add":
        new = generator.choice(
            (
                f"{name}.lora_A.weight",
                "bert.encoder.layer.9.output.dense.weight",
                "extra",
                "",
                f"{name}_scale",
            )
        )
        tensors[new] = torch.ones(4)
    elif act == "rename":
        tensors[generator.choice((name.upper(), f"model.{name}", name.replace(".", "/")))] = tensors.pop(name)
    elif act == "unprefixed":
        tensors = {key.removeprefix("bert."): value for key, value in tensors.items()}
    elif act == "swap":
        other = generator.choice(sorted(tensors))
        tensors[name], tensors[other] = tensors[other], tensor
    elif tensor.is_floating_point() and tensor.numel():
        tensors[name] = _spoilt(tensor, act)
    # What lies in memory that others use is copied: a safetensors file holds no tensor twice.
    return f"{act} {name}", save(
        {key: value.contiguous().clone() for key, value in tensors.items()}, {"format": "pt"}
    )


def _spoilt(tensor: Any, act: str) -> Any:
    import torch

    if act in ("nan", "inf", "huge"):
        tensor.view(-1)[0] = {"nan": float("nan"), "inf": float("-inf"), "huge": 3e38}[act]
        return tensor
    kinds: dict[str, Callable[[], Any]] = {
        "transpose": lambda: tensor.t() if tensor.dim() == 2 else tensor[None],
        "cut": lambda: tensor[:-1],
        "grow": lambda: torch.cat([tensor, tensor[:1]]),
        "scalar": lambda: tensor.view(-1)[0],
        "zero": lambda: torch.zeros_like(tensor),
        "half": tensor.half,
        "bfloat16": tensor.bfloat16,
        "double": tensor.double,
        "integer": tensor.int,
        "empty": lambda: tensor[:0],
    }
    return kinds[act]()


# --- ONNX -----------------------------------------------------------------------------------------


def damage_onnx(content: bytes, generator: random.Random) -> Damaged:
    """Change a node, a weight, an input or output, or the versions of an ONNX graph, which stays a valid
    protobuf.
    """
    import onnx

    model = onnx.load_from_string(content)
    graph = model.graph
    node = generator.choice(graph.node)
    weight = generator.choice(graph.initializer)
    act = generator.choice(
        ("drop node", "operator", "input", "output", "drop weight", "dims", "data type", "raw data", "nan",
        "opset", "ir",
         "graph input", "graph output", "input type", "external", "attribute", "repeat node", "no graph",
         "domain", "metadata")
    )  # fmt: skip
    if act == "drop node":
        graph.node.remove(node)
    elif act == "repeat node":
        graph.node.append(node)
    elif act == "operator":
        node.op_type = generator.choice(("Nothing", "", "Identity", "MatMul", "Add", "Relu"))
    elif act == "domain":
        node.domain = generator.choice(("nobody", "com.microsoft", "\0"))
    elif act in ("input", "output"):
        names = node.input if act == "input" else node.output
        if names:
            names[generator.randrange(len(names))] = generator.choice(("nothing", "", "input_ids", "logits"))
    elif act == "attribute":
        if node.attribute:
            del node.attribute[generator.randrange(len(node.attribute))]
    elif act == "drop weight":
        graph.initializer.remove(weight)
    elif act == "dims":
        dims = [*list(weight.dims)[::-1], *generator.choice(([], [1], [2**40], [-1], [0]))]
        del weight.dims[:]
        weight.dims.extend(dims)
    elif act == "data type":
        weight.data_type = generator.choice((0, 1, 6, 7, 10, 11, 16, 99))
    elif act == "raw data":
        weight.raw_data = weight.raw_data[: len(weight.raw_data) // 2]
    elif act == "nan":
        weight.raw_data = b"\xff" * len(weight.raw_data)
    elif act == "opset":
        model.opset_import[0].version = generator.choice((0, 1, 7, 99, -1, 2**40))
    elif act == "ir":
        model.ir_version = generator.choice((0, 1, 99, 2**40))
    elif act == "graph input":
        graph.input[generator.randrange(len(graph.input))].name = generator.choice(
            ("tokens", "", "input_ids")
        )
    elif act == "graph output":
        graph.output[0].name = generator.choice(("scores", "", "input_ids"))
    elif act == "input type":
        graph.input[0].type.tensor_type.elem_type = generator.choice((1, 6, 0, 99))
    elif act == "external":
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(
            key="location", value=generator.choice(("../../../etc/passwd", "/etc/passwd", "none", ""))
        )
    elif act == "metadata":
        del model.metadata_props[:]
        del graph.metadata_props[:]
        for each in graph.node:
            del each.metadata_props[:]
            each.name = ""
    else:
        model.ClearField("graph")
    return f"graph: {act}", model.SerializeToString()


# --- YAML -----------------------------------------------------------------------------------------

# A list of lists of lists of the same: some lines that stand for millions of values.
YAML_BOMB = "\n".join(
    [
        "a0: &a0 [x, x, x, x, x, x, x, x]",
        *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 9)),
    ]
)
YAML_LINES = (
    "model: again", "<<: *nothing", "<<: {model: other}", "? [a, b]\n: c",
    "!!python/object/apply:os.system [true]",
    "!!binary aGVsbG8=", "- item", "\tx: 1", "run: &r {seed: 1}\nrun2: *r", "prune: &p\n  adaptive: *p",
    "x: !unknown y",
    "%YAML 9.9", "---\nmodel: second", "...", "? ", ":", "'", '"', "@", "`", "prune: [", "data: {", "null",
    "~: ~", "1: 2",
    "true: yes", "2001-01-01: x", "0o17: 0x1F", "1:30: 2", "é: é", "unknown: 1", "prune.sparsity: 0.5",
    "prune:", "data:",
    "run: {seed: 1, seed: 2}", "gates: x", "model: [a]", "seed: 0", YAML_BOMB, "x: " + "[" * 3000,
    "x: &a [*a]",
    "model: |\n  two\n  lines", "model: >-\n  folded", "data: !!set {a, b}", "run: !!omap [a: 1]",
    "x: " + "9" * 5000,
)  # fmt: skip


def damage_yaml_lines(content: bytes, generator: random.Random) -> Damaged:
    """Drop, repeat, move, indent or add a line of a YAML text."""
    lines = content.decode().split("\n")
    place = generator.randrange(len(lines))
    act = generator.choice(
        ("drop", "repeat", "indent", "dedent", "swap", "tab", "add", "add", "add", "comment")
    )
    line = lines[place]
    if act == "add":
        new = generator.choice(YAML_LINES)
        where = generator.choice((0, len(lines) - 1, place))
        return f"line added: {_short(new)}", "\n".join([*lines[:where], new, *lines[where:]]).encode()
    if act == "swap":
        other = generator.randrange(len(lines))
        lines[place], lines[other] = lines[other], lines[place]
    else:
        pieces = {
            "drop": [],
            "repeat": [line, line],
            "indent": [f"  {line}"],
            "dedent": [line.removeprefix(" ")],
            "tab": [f"\t{line}"],
            "comment": [f"# {line}"],
        }
        lines[place : place + 1] = pieces[act]
    return f"line {act}: {_short(line)}", "\n".join(lines).encode()


def damage_yaml_values(content: bytes, generator: random.Random) -> Damaged:
    """Change, drop, rename, add or nest a value of a recipe."""
    import yaml

    name, value = damage_value(yaml.safe_load(content), generator)
    # JSON is YAML too, and writes what PyYAML refuses to.
    return name, json.dumps(value).encode() if generator.random() < 0.5 else _flow(value).encode(
        "utf-8", "replace"
    )


def _flow(value: Any) -> str:
    """YAML in flow style."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(character):08x}" for character in value) + '"'
    if isinstance(value, float):
        return {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}.get(repr(value), repr(value))
    return json.dumps(value)
