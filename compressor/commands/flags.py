"""Command-line flags made from recipe sections, so that an option is defined once.

A command takes a section as an argument, `def prune(..., prune: PruneConfig)`; `section_flags`
gives Typer one flag for each of its fields instead, and builds and checks the section.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from compressor.errors import raise_problems
from compressor.options import describe, fields_of
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
    sections = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if isinstance(parameter.annotation, type) and issubclass(parameter.annotation, BaseModel)
    }
    plain = [p for name, p in signature.parameters.items() if name not in sections]
    flags = [_flag(*found) for section in sections.values() for found in _fields(section)]
    required = [p for p in plain if p.default is inspect.Parameter.empty]
    parameters = [*required, *flags, *(p for p in plain if p not in required)]
    names = [parameter.name for parameter in parameters]
    if len(set(names)) != len(names):
        raise TypeError(f"{command.__name__}: a flag is defined twice: {sorted(names)}")

    @functools.wraps(command)
    def with_flags(**values: Any) -> None:
        built = build_sections(sections, values)
        command(**values, **built)

    with_flags.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    )
    with_flags.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_flags


def _fields(section: type[BaseModel]) -> Iterator[tuple[str, FieldInfo, str | None]]:
    """The name of each flag's field, the field, and its panel in the help: None is the first one."""
    heading = ADVANCED + (section.__doc__ or "").split("\n")[0].rstrip(".")
    for name, field in fields_of(section).items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _fields(field.annotation)
        else:
            yield name, field, None if is_common(field) else heading


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


def _flag(name: str, field: FieldInfo, panel: str | None) -> inspect.Parameter:
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


def build_sections(sections: Mapping[str, type[BaseModel]], values: dict[str, Any]) -> dict[str, BaseModel]:
    """Take the fields of sections out of `values` and check them.

    Raises:
        UserError: values that are not allowed; all of them.
    """
    built: dict[str, BaseModel] = {}
    problems: list[str] = []
    for name, section in sections.items():
        try:
            built[name] = section.model_validate(_taken(section, values))
        except ValidationError as error:
            problems += [_flag_problem(problem, section) for problem in error.errors()]
    if problems:
        raise_problems("the options", problems)
    return built


def _taken(section: type[BaseModel], values: dict[str, Any]) -> dict[str, Any]:
    """The section's fields out of `values`; those of a section in it as a mapping."""
    given: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            given[name] = _taken(field.annotation, values)
        else:
            given[name] = values.pop(name)
    return given


def _flag_problem(problem: Any, section: type[BaseModel]) -> str:
    """One line on one of pydantic's errors, by the flag that is to blame."""
    path, inner = list(problem["loc"]), section
    while path:
        field = inner.model_fields.get(str(path[0]))
        annotation = field and field.annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        # A flag has the name of a field alone, not of the section that it is in.
        path, inner = path[1:], annotation
    if not path:
        return describe(problem, section)
    line = describe({**problem, "loc": tuple(path)}, inner)
    return flag_name(str(path[0])) + line.removeprefix(str(path[0]))
