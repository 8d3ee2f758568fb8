"""What readable pages have in common: templates that escape, one style, figures as text."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

NOTHING = "–"
_SHARED = Path(__file__).parent / "templates"


def page_templates(folder: Path) -> Environment:
    """Return the templates of `folder`, which may include `page.css`, the style of all pages."""
    return Environment(
        loader=FileSystemLoader([folder, _SHARED]),
        autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def percent(share: float | None) -> str:
    """Return a share as a percentage with one decimal, None as a dash."""
    return NOTHING if share is None else f"{share:.1%}"


def number(value: float | None, form: str) -> str:
    """Return `value` in that format, None as a dash."""
    return NOTHING if value is None else format(value, form)
