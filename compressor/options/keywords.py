"""Options of several sections that are given side by side: as flags of a command, or as keywords in Python.

Each option is sorted into the section that has a field of its name, so that a new field is a flag and a
keyword without another line of code.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeGuard, TypeVar, cast

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from compressor.errors import raise_problems
from compressor.options.section import describe, fields_of

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=BaseModel)


def is_section(annotation: Any) -> TypeGuard[type[BaseModel]]:
    """Return whether the annotation of a field or parameter is a section of options."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def options_of(section: type[BaseModel]) -> Iterator[tuple[str, FieldInfo, str]]:
    """Yield name, field and heading of each option of a section, also of the sections within it."""
    heading = (section.__doc__ or "").split("\n")[0].rstrip(".")
    for name, field in fields_of(section).items():
        if is_section(field.annotation):
            yield from options_of(field.annotation)
        else:
            yield name, field, heading


def repeated(names: Collection[str]) -> list[str]:
    """Return the names that occur more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


@dataclass(frozen=True)
class SortedOptions:
    """Checked sections, by their class."""

    sections: Mapping[type[BaseModel], BaseModel]

    def of(self, section: type[S]) -> S:
        """Return the section of that class.

        Raises:
            KeyError: it was not asked for.
        """
        return cast("S", self.sections[section])


def sort_options(
    sections: Collection[type[BaseModel]], values: Mapping[str, Any], written: Callable[[str], str] = str
) -> SortedOptions:
    """Sort values into the sections that have fields of their names, and check them.

    Args:
        values: by the names of fields; a field without a value has its default.
        written: how a person writes the name of an option, for errors.

    Raises:
        UserError: values that are not allowed; all of them.
    """
    built: dict[type[BaseModel], BaseModel] = {}
    problems: list[str] = []
    for section in sections:
        try:
            built[section] = section.model_validate(_given(section, values))
        except ValidationError as error:
            problems += [_problem(problem, section, written) for problem in error.errors()]
    if problems:
        raise_problems("the options", problems)
    return SortedOptions(built)


def _given(section: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a section's fields; those of a section in it as a mapping."""
    given: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        if is_section(field.annotation):
            given[name] = _given(field.annotation, values)
        elif name in values:
            given[name] = values[name]
    return given


def _problem(problem: Any, section: type[BaseModel], written: Callable[[str], str]) -> str:
    """Return one line on one of pydantic's errors, by the option that is to blame."""
    path, inner = list(problem["loc"]), section
    while path:
        field = inner.model_fields.get(str(path[0]))
        annotation = field and field.annotation
        if not is_section(annotation):
            break
        # An option has the name of a field alone, not of the section that it is in.
        path, inner = path[1:], annotation
    if not path:
        return describe(problem, section)
    line = describe({**problem, "loc": tuple(path)}, inner)
    return written(str(path[0])) + line.removeprefix(str(path[0]))


class KeywordOptions:
    """The options of some sections, as a function takes them by keyword in its `**options`.

    Args:
        sections: whose fields are the keywords.
        left_out: fields that the function has no use for.
    """

    def __init__(self, *sections: type[BaseModel], left_out: Collection[str] = ()) -> None:
        self._sections = sections
        self._options = [
            (name, field, heading)
            for section in sections
            for name, field, heading in options_of(section)
            if name not in left_out
        ]

    def taken_by(self, function: Callable[P, R]) -> Callable[P, R]:
        """Give a function the options in its signature and docstring, and refuse all other keywords.

        Args:
            function: has a parameter `**options`.

        Raises:
            TypeError: an option has the name of another one, or of a parameter.
        """
        signature = inspect.signature(function)
        plain = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        added = [_keyword(name, field) for name, field, _ in self._options]
        known = [parameter.name for parameter in [*plain, *added]]
        if repeated(known):
            raise TypeError(f"{function.__name__}: an option is defined twice: {', '.join(repeated(known))}")

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            unknown = [_unknown(name, function.__name__, known) for name in kwargs if name not in known]
            if unknown:
                raise_problems(f"the options of {function.__name__}", unknown)
            return function(*args, **kwargs)

        complete = signature.replace(parameters=[*plain, *added])
        checked.__signature__ = complete  # type: ignore[attr-defined]
        checked.__doc__ = f"{inspect.getdoc(function)}\n\n{self._documentation()}"
        return checked

    def sort(self, options: Mapping[str, Any]) -> SortedOptions:
        """Sort a function's `**options` into sections; paths may be any that `os.fspath` takes.

        Raises:
            UserError: values that are not allowed; all of them.
        """
        plain = {
            name: os.fspath(value) if isinstance(value, os.PathLike) else value
            for name, value in options.items()
        }
        return sort_options(self._sections, plain)

    def _documentation(self) -> str:
        """Return a docstring's list of the options, under the headings of their sections."""
        headings = list(dict.fromkeys(heading for _, _, heading in self._options))
        blocks = []
        for heading in headings:
            lines = [f"    {name}: {field.description}" for name, field, of in self._options if of == heading]
            blocks.append("\n".join([f"{heading}:", *lines]))
        return "\n\n".join(["Options, each a keyword:", *blocks])


def _keyword(name: str, field: FieldInfo) -> inspect.Parameter:
    default = field.get_default(call_default_factory=True)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=field.annotation
    )


def _unknown(name: str, function: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    way_out = f"did you mean {near[0]!r}?" if near else f"help(compressor.{function}) lists the options"
    return f"{name}: unknown option of compressor.{function}; {way_out}"
