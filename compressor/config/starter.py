"""A starter recipe: every option with its default and its meaning, made from the options themselves."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from compressor.config.recipe import Recipe
from compressor.config.yaml_text import dump_yaml_line
from compressor.options import fields_of
from compressor.system.files import write_new_file

WIDTH = 100
HEADER = (
    "A whole run: compress run THIS-FILE --output FOLDER. Fill in the model and the data. Every other "
    "option has its default here, and may be left out. What is commented out is not used as long as it "
    "is. Paths are relative to where the command runs."
)
# What has no default stands for itself.
PLACES = {"model": "MODEL", "calibration": "CALIBRATION.tsv", "test": "TEST.tsv"}


def starter_recipe() -> str:
    """The text of the starter recipe.

    It loads to the defaults. Sections that are off, and those within sections, are commented out
    with `#` at the start of the line; without it they load to their defaults too.
    """
    lines = list(_comment(HEADER, ""))
    for name, field in Recipe.model_fields.items():
        section = _section_of(field)
        lines.append("")
        if section is None:
            lines += _entry(name, field, "")
        else:
            lines += _section(field.alias or name, section, "", off=field.default is None)
    return "\n".join(lines) + "\n"


def _section(name: str, section: type[BaseModel], indent: str, *, off: bool) -> Iterator[str]:
    lines = [f"{indent}{name}:"]
    inner = indent + "  "
    for key, field in fields_of(section).items():
        within = _section_of(field)
        if within is None:
            lines += _entry(key, field, inner)
        else:
            lines += _section(key, within, inner, off=not off)
    yield from _comment((section.__doc__ or "").split("\n")[0], indent)
    yield from (f"#{line}" for line in lines) if off else lines


def _entry(name: str, field: FieldInfo, indent: str) -> Iterator[str]:
    yield from _comment(field.description or "", indent)
    value: Any = PLACES[name] if field.is_required() else field.get_default(call_default_factory=True)
    yield f"{indent}{name}: {dump_yaml_line(value)}"


def _comment(text: str, indent: str) -> Iterator[str]:
    return (f"{indent}# {line}" for line in textwrap.wrap(text, WIDTH - len(indent) - 2))


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a field holds; None if it holds a value."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def write_starter(path: Path, *, force: bool) -> None:
    """Write the starter recipe; the file appears whole or not at all.

    Raises:
        UserError: the file exists and `force` is not given, or it cannot be written.
    """
    write_new_file(path, starter_recipe(), force=force)
