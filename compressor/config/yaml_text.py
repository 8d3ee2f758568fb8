"""YAML that people write, read strictly: as YAML 1.2 has numbers, each key once, and within bounds.

PyYAML reads `2:4` as 124 and `1e-4` as a text, takes the last of two equal keys, and follows aliases
into texts of any size.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import yaml

from compressor.errors import UserError

MOST_CHARACTERS = 200_000
MOST_VALUES = 10_000
DEEPEST = 50

_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_LINE_BREAK = re.compile("[\\n\\r\\x85\\u2028\\u2029]")
_PLAIN_TYPES = {"null", "bool", "merge"}


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """By first character, what a scalar without quotes may be: as PyYAML, but YAML 1.2's numbers."""
    prefix = "tag:yaml.org,2002:"
    known = yaml.SafeLoader.yaml_implicit_resolvers
    found = {
        first: [(tag, pattern) for tag, pattern in entries if tag.removeprefix(prefix) in _PLAIN_TYPES]
        for first, entries in known.items()
    }
    for first in "-+0123456789.":
        numbers = [(f"{prefix}int", _whole(_INTEGER)), (f"{prefix}float", _whole(_FLOAT))]
        found[first] = numbers + found.get(first, [])
    return found


def _whole(pattern: re.Pattern[str]) -> re.Pattern[str]:
    return re.compile(f"(?:{pattern.pattern})$")


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _resolvers()


# A text that either version of YAML would take for a number gets quotes.
_QUOTED = {
    first: _Loader.yaml_implicit_resolvers.get(first, []) + entries
    for first, entries in yaml.SafeDumper.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _QUOTED

    def ignore_aliases(self, data: Any) -> bool:
        """Whether a value that comes twice is written twice."""
        del data
        return True


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node)
    # Python writes infinity and NaN without the dot.
    return float(text.replace(".", "") if text[-1:].isalpha() else text)


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    # Between single quotes PyYAML would write line breaks as they are, and read some of them as spaces.
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", value, style='"' if _LINE_BREAK.search(value) else None
    )


_Dumper.add_representer(str, _text)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def parse_yaml(text: str, name: str) -> tuple[Any, yaml.Node | None]:
    """The value that a YAML text stands for, and the tree from which `line_of` tells its lines.

    Args:
        name: of the text, for errors.

    Raises:
        UserError: no YAML, a key given twice, too long, too deep, or too large once its aliases are
            followed.
    """
    if len(text) > MOST_CHARACTERS:
        raise UserError(f"{name}: has {len(text):,} characters; at most {MOST_CHARACTERS:,} are read")
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, None
            _check_tree(node, name)
            return loader.construct_document(node), node
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        # PyYAML lets what its constructors raise through, for such as `!!timestamp x` or `!!bool x`.
        raise UserError(f"{name}: not valid YAML: {' '.join(str(error).split())[:300]}") from error


def dump_yaml(value: Any) -> str:
    """Plain mappings, lists and scalars as YAML that `parse_yaml` reads back, in the order given."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def dump_yaml_line(value: Any) -> str:
    """A scalar or list as `dump_yaml` writes it, on one line."""
    # Within a list, since a scalar of its own ends with the end of a document.
    text = yaml.dump([value], Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=sys.maxsize)
    return str(text).strip()[1:-1]


def line_of(node: yaml.Node, location: tuple[Any, ...]) -> int:
    """Line, from 1, of the deepest part of `location` that the document has."""
    line = _line(node)
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next((pair for pair in node.value if pair[0].value == str(part)), None)
            if found is None:
                break
            line, node = _line(found[0]), found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = _line(node)
        else:
            break
    return line


def _check_tree(root: yaml.Node, name: str) -> None:
    """Raise a `UserError` for what PyYAML would construct but no one can have meant."""
    measured: dict[int, tuple[int, int]] = {}
    above: set[int] = set()

    def measure(node: yaml.Node) -> tuple[int, int]:
        """Values in a node and levels below it, aliases followed; each node is walked once."""
        if id(node) in above:
            raise UserError(f"{name}:{_line(node)}: a value holds itself through an alias")
        if id(node) not in measured:
            above.add(id(node))
            inner = [measure(child) for child in _children(node, name)]
            above.remove(id(node))
            sizes, depths = zip((0, 0), *inner, strict=True)
            measured[id(node)] = 1 + sum(sizes), 1 + max(depths)
        return measured[id(node)]

    size, depth = measure(root)
    if depth > DEEPEST:
        raise UserError(f"{name}: its values are nested {depth} deep; at most {DEEPEST} levels are read")
    if size > MOST_VALUES:
        raise UserError(
            f"{name}: holds more than {MOST_VALUES:,} values once its aliases are followed; write fewer"
        )


def _children(node: yaml.Node, name: str) -> list[yaml.Node]:
    if isinstance(node, yaml.ScalarNode):
        if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in node.value):
            raise UserError(f"{name}:{_line(node)}: a text holds a NUL or half of a surrogate pair")
        return []
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in seen:
                raise UserError(f"{name}:{_line(key)}: {key.value!r} is given more than once")
            seen.add((key.tag, key.value))
    return [child for pair in node.value for child in pair]


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
