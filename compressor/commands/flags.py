"""Command-line flags made from recipe sections, so that an option is defined once.

A command takes a section as an argument, `def prune(..., prune: PruneConfig)`; `section_flags`
gives Typer one flag for each of its fields instead, and builds and checks the section.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from compressor.options import Registry, SeveralOf
from compressor.options.keywords import is_section, options_of, repeated, sort_options
from compressor.options.section import flag_name, is_common

ADVANCED = "Advanced: "


def section_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of `command` that is a recipe section by the section's flags.

    The flags of common fields are in the first panel of the help, between the command's required and
    optional parameters. All others are in one advanced panel for each section, also for a section within
    a section. The name of a field must be unique in a command.

    Raises:
        TypeError: two parameters of the same name.
    """
    signature = inspect.signature(command, eval_str=True)
    sections: dict[str, type[BaseModel]] = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if is_section(parameter.annotation)
    }
    plain = [p for name, p in signature.parameters.items() if name not in sections]
    flags = [_flag(*found) for section in sections.values() for found in options_of(section)]
    required = [p for p in plain if p.default is inspect.Parameter.empty]
    parameters = [*required, *flags, *(p for p in plain if p not in required)]
    names = [parameter.name for parameter in parameters]
    if repeated(names):
        raise TypeError(f"{command.__name__}: a flag is defined twice: {sorted(names)}")

    @functools.wraps(command)
    def with_flags(**values: Any) -> None:
        found = sort_options(sections.values(), values, flag_name)
        plain = {name: value for name, value in values.items() if name in signature.parameters}
        command(**plain, **{name: found.of(section) for name, section in sections.items()})

    with_flags.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    )
    with_flags.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_flags


def _plain(annotation: Any) -> Any:
    """What Typer reads a value as; pydantic checks it.

    `list[Annotated[int, ...]]` is `list[int]`, names are `list[str]`, and so are the pairs of a mapping.
    """
    if get_origin(annotation) is UnionType:
        return functools.reduce(operator.or_, map(_plain, get_args(annotation)))
    if get_origin(annotation) is dict:
        return list[str]
    if get_origin(annotation) is not list:
        return annotation
    (item,) = get_args(annotation)
    if get_origin(item) not in (Annotated, Literal):
        return annotation
    first = get_args(item)[0]
    return list[first] if get_origin(item) is Annotated else list[type(first)]  # type: ignore[misc,valid-type]


def _flag(name: str, field: FieldInfo, heading: str) -> inspect.Parameter:
    panel = None if is_common(field) else ADVANCED + heading
    names = [flag_name(name)]
    if field.annotation is bool:
        names = [f"{flag_name(name)}/--no-{name.replace('_', '-')}"]
    option = typer.Option(*names, help=field.description, rich_help_panel=panel, **_choices(field))
    default = field.get_default(call_default_factory=True)
    if isinstance(default, dict):
        default = [f"{key}={value}" for key, value in default.items()]
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[_plain(field.annotation), option],
    )


def _choices(field: FieldInfo) -> dict[str, Any]:
    """What help and completion say of names that are registered; pydantic checks them."""
    found = next((entry for entry in field.metadata if isinstance(entry, Registry | SeveralOf)), None)
    if found is None:
        return {}
    several = isinstance(found, SeveralOf)
    names = found.registry.names if isinstance(found, SeveralOf) else found.names

    def completions(incomplete: str) -> list[str]:
        before, comma, begun = incomplete.rpartition(",") if several else ("", "", incomplete)
        return [f"{before}{comma}{name}" for name in names if name.startswith(begun)]

    return {
        "metavar": f"<{'|'.join(names)}>{'[,...]' if several else ''}",
        "autocompletion": completions,
    }
