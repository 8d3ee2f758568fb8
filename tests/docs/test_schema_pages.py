"""The reference of recipes, reports and searches is made from their schemas."""

import pytest
import schema_pages
from schema_pages import schema_page, type_of


def texts(folder):
    return {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*-schema.md")}


def test_the_pages_are_those_of_the_schemas(tmp_path, monkeypatch):
    """`make docs` writes them anew."""
    committed = texts(schema_pages.REFERENCE)
    monkeypatch.setattr(schema_pages, "REFERENCE", tmp_path)
    schema_pages.main()
    assert committed == texts(tmp_path)
    assert len(committed) == 3


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ({"$ref": "#/$defs/RunConfig"}, "[RunConfig](#runconfig)"),
        (
            {"anyOf": [{"type": "number", "exclusiveMinimum": 0, "maximum": 1}, {"type": "null"}]},
            "number, > 0, ≤ 1 or null",
        ),
        ({"enum": ["a", "b"]}, "`a`, `b`"),
        ({"const": 3}, "`3`"),
        ({"type": "array", "items": {"type": "integer", "minimum": 1}}, "list of integer, ≥ 1"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "mapping to string"),
        ({"type": "object"}, "object"),
        ({}, "any"),
    ],
)
def test_a_type_is_in_words_with_its_bounds(field, expected):
    assert type_of(field) == expected


def test_meanings_come_from_the_field_its_docstring_or_its_section():
    schema = {
        "properties": {
            "own": {"type": "string", "description": "one | two <b>"},
            "listed": {"type": "integer", "default": 2},
            "section": {"$ref": "#/$defs/Part", "default": {"x": 1}},
            "optional": {"anyOf": [{"$ref": "#/$defs/Part"}, {"type": "null"}]},
        },
        "required": ["own"],
        "description": "Whole.\n\nAttributes:\n    listed: of the\n        docstring.\n",
        "$defs": {"Part": {"description": "A part.\n\nMore.", "properties": {"x": {"type": "number"}}}},
    }
    page = schema_page("Title", "Introduction.", schema)
    assert page.startswith("# Title\n\nIntroduction.\n\n| key |")
    assert "| `own` | string | required | one \\| two &lt;b> |" in page
    assert "| `listed` | integer | `2` | of the docstring. |" in page
    assert "| `section` | [Part](#part) | its defaults | A part. |" in page
    assert "| `optional` | [Part](#part) or null | `null` | A part. |" in page
    assert "## Part\n\nA part.\n\n| key |" in page
    assert page.endswith("| `x` | number | `null` |  |\n")
