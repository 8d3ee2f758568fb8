"""YAML is read as people mean it, and what no one can have meant is a user error, at once."""

import math
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from compressor.config.yaml_text import (
    DEEPEST,
    MOST_CHARACTERS,
    dump_yaml,
    dump_yaml_line,
    line_of,
    parse_yaml,
)
from compressor.errors import UserError

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(),
    st.from_regex(r"[-+0-9.:_eExo]{1,8}", fullmatch=True),
)  # fmt: skip
KEYS = st.text(max_size=5)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=10)


def read(text):
    return parse_yaml(text, "it")[0]


def without_nul(value):
    return "\0" not in repr(value).replace("\\x00", "\0")


@given(VALUES.filter(without_nul))
def test_what_is_written_is_read_back_here_and_by_others(value):
    assert read(dump_yaml(value)) == value
    assert yaml.safe_load(dump_yaml(value)) == value


@given((SCALARS | st.lists(SCALARS)).filter(without_nul))
def test_a_line_is_one_line_and_is_read_back(value):
    line = dump_yaml_line(value)
    assert "\n" not in line
    assert read(f"key: {line}") == {"key": value}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2:4", "2:4"), ("1e-4", 1e-4), ("5.", 5.0), (".5", 0.5), ("-3", -3), ("0x1F", 31), ("0o17", 15),
        ("010", 10), ("2024-01-01", "2024-01-01"), ("1_000", "1_000"), ("-.inf", -math.inf),
        (".INF", math.inf), ("true", True), ("~", None), ("'3'", "3"), ("", None),
    ],
)  # fmt: skip
def test_scalars(text, value):
    found = read(text)
    assert found == value
    assert type(found) is type(value)
    assert math.isnan(read(".NaN"))


def billion_laughs(kind):
    opening, closing = kind
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for level in range(1, 40):
        items = ", ".join(f"k{i}: *a{level - 1}" if kind == "{}" else f"*a{level - 1}" for i in range(9))
        lines.append(f"a{level}: &a{level} {opening}{items}{closing}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (billion_laughs("[]"), "once its aliases are followed"),
        (billion_laughs("{}"), "once its aliases are followed"),
        ("a: &a [*a]", "it:1: a value holds itself"),
        ("\n? &a {b: *a}\n: 1", "it:2: a value holds itself"),
        ("a: 1\nb:\n  c: 1\n  c: 2", "it:4: 'c' is given more than once"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "deep"),
        ("[" * 10_000, "not valid YAML"),
        ("a" * (MOST_CHARACTERS + 1), "has 200,001 characters"),
        ('"\\0"', "it:1: a text holds a NUL"),
        ('"\\ud800"', "half of a surrogate"),
        ("9" * 5000, "not valid YAML"),
        ("<<: 3", "not valid YAML"),
        ("!!python/object:os.system {}", "not valid YAML"),
        ("!!timestamp x", "not valid YAML"),
        ("{[]: 1}", "not valid YAML"),
        ("a: *b", "not valid YAML"),
        ("--- 1\n--- 2", "not valid YAML"),
    ],
    ids=range(17),
)
def test_what_no_one_can_have_meant_is_told_at_once(text, says):
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        read(text)
    assert time.monotonic() - start < 5
    assert str(caught.value).startswith("it:")
    assert says in str(caught.value)
    assert len(str(caught.value)) < 500


def test_aliases_and_merges_of_a_usual_size_are_followed():
    assert read("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]") == {
        "a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}, {"x": 1}],
    }  # fmt: skip


def test_lines_of_places():
    _, node = parse_yaml("a: 1\nb:\n  - x\n  - c: 3\n    d: 4\n", "it")
    places = [(), ("a",), ("b",), ("b", 1), ("b", 1, "d"), ("b", 1, "e"), ("b", 7), ("z",), ("a", "b")]
    assert [line_of(node, place) for place in places] == [1, 1, 2, 4, 5, 4, 2, 1, 1]
