"""Command-line flags made from recipe sections, so that an option is defined once.

A command takes a section as an argument, `def prune(..., prune: PruneConfig)`; `section_flags`
gives Typer one flag for each of its fields instead, and builds and checks the section.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Iterator
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from compressor.errors import UserError
from compressor.options import describe, fields_of


def flag_name(field_name: str) -> str:
    """`max_length` -> `--max-length`."""
    return "--" + field_name.replace("_", "-")


def section_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of `command` that is a recipe section by the section's flags.

    Fields that are sections themselves give their own flags, under a heading of their own. The
    name of a field must be unique in a command.
    """
    signature = inspect.signature(command, eval_str=True)
    sections = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if isinstance(parameter.annotation, type) and issubclass(parameter.annotation, BaseModel)
    }
    parameters = [p for name, p in signature.parameters.items() if name not in sections]
    for section in sections.values():
        parameters += [_flag(name, field, panel) for name, field, panel in _fields(section)]
    names = [parameter.name for parameter in parameters]
    if len(set(names)) != len(names):
        raise TypeError(f"{command.__name__}: a flag is defined twice: {sorted(names)}")

    @functools.wraps(command)
    def with_flags(**values: Any) -> None:
        built = {name: _build(section, values) for name, section in sections.items()}
        command(**values, **built)

    with_flags.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    )
    with_flags.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_flags


def _fields(section: type[BaseModel], panel: str | None = None) -> Iterator[tuple[str, FieldInfo, str]]:
    heading = panel or (section.__doc__ or "").split("\n")[0].rstrip(".")
    for name, field in fields_of(section).items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _fields(field.annotation)
        else:
            yield name, field, heading


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


def _flag(name: str, field: FieldInfo, panel: str) -> inspect.Parameter:
    names = [flag_name(name)]
    if field.annotation is bool:
        names = [f"{flag_name(name)}/--no-{name.replace('_', '-')}"]
    option = typer.Option(*names, help=field.description, rich_help_panel=panel)
    default = field.get_default(call_default_factory=True)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[_plain(field.annotation), option],
    )


def _build(section: type[BaseModel], values: dict[str, Any]) -> BaseModel:
    """Take the section's fields out of `values` and check them."""
    given: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            given[name] = _build(field.annotation, values)
        else:
            given[name] = values.pop(name)
    try:
        return section(**given)
    except ValidationError as error:
        problem = error.errors()[0]
        path = [str(part) for part in problem["loc"]]
        line = describe(problem, section)
        raise UserError(flag_name(path[0]) + line.removeprefix(path[0])) from error
