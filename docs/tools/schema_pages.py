"""Write the reference pages of recipes, reports and searches from their JSON schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compressor.config.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
REPORT_SCHEMA = ROOT / "compressor" / "validation" / "report.schema.json"
SEARCH_SCHEMA = ROOT / "compressor" / "search" / "search.schema.json"

RECIPE_INTRODUCTION = (
    "Keys, types, defaults and bounds of a recipe. `compress recipe schema` prints them as a JSON schema,\n"
    "and `compress recipe init` writes a recipe with all keys. [Recipes and runs](recipes.md) explains them."
)
REPORT_INTRODUCTION = (
    "Fields of `report.json`, generated from `compressor/validation/report.schema.json`.\n"
    "[Validation, gates, reports](validation.md) explains the metrics."
)
SEARCH_INTRODUCTION = (
    "Fields of `search.json`, generated from `compressor/search/search.schema.json`.\n"
    "[From gates to an artifact](../how-to/search.md) explains the search."
)

Schema = Mapping[str, Any]


def schema_page(title: str, introduction: str, schema: Schema) -> str:
    """Return a Markdown page with one table for the schema and one for each of its definitions.

    Args:
        title: heading of the page.
        introduction: first paragraph.
        schema: JSON schema of an object, with definitions of objects under `$defs`.
    """
    definitions = schema.get("$defs", {})
    parts = [f"# {title}", introduction, _table(schema, definitions)]
    for name, definition in definitions.items():
        parts += [f"## {name}", _summary(definition)]
        if "properties" in definition:
            parts.append(_table(definition, definitions))
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(schema: Schema, definitions: Schema) -> str:
    required = set(schema.get("required", ()))
    attributes = _attributes(schema.get("description", ""))
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for key, field in schema["properties"].items():
        default = "required" if key in required else _default(field.get("default"))
        meaning = field.get("description") or attributes.get(key) or _of_section(field, definitions)
        rows.append(f"| `{key}` | {type_of(field)} | {default} | {_cell(meaning)} |")
    return "\n".join(rows)


def _of_section(field: Schema, definitions: Schema) -> str:
    """The summary of the definition that a field refers to, also where it may be null."""
    references = [choice["$ref"] for choice in (field, *field.get("anyOf", ())) if "$ref" in choice]
    return _summary(definitions[references[0].rsplit("/", 1)[-1]]) if references else ""


def _summary(definition: Schema) -> str:
    """The first paragraph of a description, on one line."""
    return " ".join(definition.get("description", "").split("\n\n")[0].split())


def _attributes(description: str) -> dict[str, str]:
    """Meaning of each attribute that a docstring lists under `Attributes:`."""
    _, _, listed = description.partition("Attributes:\n")
    found = re.findall(r"^ {4}(\w+): (.*?)(?=^ {4}\w|\Z)", listed, re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()) for name, text in found}


def type_of(field: Schema) -> str:
    """Return the type of a field in words, with its bounds and a link to its definition."""
    if "$ref" in field:
        name = field["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        return " or ".join(type_of(choice) for choice in field["anyOf"])
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    kind = str(field.get("type", "any"))
    if kind == "array":
        return f"list of {type_of(field.get('items', {}))}"
    if kind == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"mapping to {type_of(field['additionalProperties'])}"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {field[name]:,}" for name, sign in signs.items() if name in field]
    return ", ".join([kind, *bounds])


def _default(value: Any) -> str:
    if isinstance(value, dict):
        return "its defaults"
    return f"`{json.dumps(value)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def main() -> None:
    """Write all pages."""
    report, search = (
        json.loads(schema.read_text(encoding="utf-8")) for schema in (REPORT_SCHEMA, SEARCH_SCHEMA)
    )
    pages = {
        "recipe-schema.md": schema_page("Recipe schema", RECIPE_INTRODUCTION, Recipe.model_json_schema()),
        "report-schema.md": schema_page("Report schema", REPORT_INTRODUCTION, report),
        "search-schema.md": schema_page("Search schema", SEARCH_INTRODUCTION, search),
    }
    for name, text in pages.items():
        (REFERENCE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
