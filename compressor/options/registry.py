"""Names under which algorithms, attacks and runtimes are registered, built in or by installed packages.

A package registers an object with an entry point, `NAME = "module:object"` in the group of its kind. Names
are read from the packages' metadata: nothing of a package is imported before its object is asked for.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any

from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, core_schema

from compressor.errors import UserError, first_line
from compressor.options.section import Section, describe, said, shown


@dataclass(frozen=True)
class Registry:
    """The names of one kind. Annotates a text that must be one of them.

    Attributes:
        kind: what is registered, in one word.
        group: of the entry points.
        built_in: names of what this package has itself.
        options_of_built_in: section of the options of one of these.
    """

    kind: str
    group: str
    built_in: tuple[str, ...]
    options_of_built_in: Callable[[str], type[Section]] = lambda name: Section

    @property
    def names(self) -> list[str]:
        """All names: those built in first, then those of packages, sorted."""
        return [*self.built_in, *sorted(self._registered().keys() - set(self.built_in))]

    def entry_point(self, name: str) -> EntryPoint | None:
        """Return the entry point of a name; None where it is built in.

        Raises:
            UserError: no such name, or one that is registered more than once.
        """
        found = self._registered().get(name, ())
        if name not in self.built_in and not found:
            raise UserError(f"{self.kind}: {self._unknown(name)}")
        if len(found) + (name in self.built_in) > 1:
            owners = [*(["compress"] if name in self.built_in else []), *map(package_of, found)]
            raise UserError(
                f"{self.kind}: {name!r} is registered by {' and '.join(owners)}; remove all but one of them"
            )
        return found[0] if found else None

    def load(self, name: str) -> Any:
        """Import what a package registered under a name.

        Raises:
            UserError: no such name, a name that is built in, or an object that cannot be imported.
        """
        entry = self.entry_point(name)
        if entry is None:
            raise UserError(f"{self.kind}: {name!r} is built in")
        try:
            return entry.load()
        except Exception as error:  # a package's module may raise anything
            raise UserError(
                f"{self.kind}: {name!r} cannot be loaded from {entry.value} of {package_of(entry)}: "
                f"{type(error).__name__}: {first_line(error)}; repair or remove the package"
            ) from error

    def options_of(self, name: str) -> type[Section]:
        """Return the section of the options of what is registered under a name.

        Raises:
            UserError: as `entry_point` and `load`.
        """
        if self.entry_point(name) is None:
            return self.options_of_built_in(name)
        section: type[Section] = getattr(self.load(name), "options", Section)
        return section

    def checked_options(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Check options of a registered object by the section that is its attribute `options`.

        Returns:
            The options with their defaults.

        Raises:
            PydanticCustomError: options that there are not, or with values that are not allowed.
        """
        try:
            section = self.options_of(name)
            return section.model_validate(dict(given)).model_dump(mode="json")
        except ValidationError as error:
            if not section.model_fields:
                reason = f"{name} has no such options, but {shown(dict(given))} is given; leave it out"
            else:
                reason = "; ".join(describe(problem, section) for problem in error.errors())
            raise said(reason) from error
        except UserError as error:
            raise said(str(error)) from error

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Make pydantic check names."""
        return core_schema.no_info_after_validator_function(self.checked, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Make JSON schemas list the names."""
        return {**handler(schema), "enum": self.names}

    def checked(self, name: str) -> str:
        """Return a name that is registered.

        Raises:
            PydanticCustomError: no such name, or one that is registered more than once.
        """
        try:
            self.entry_point(name)
        except UserError as error:
            raise said(str(error).removeprefix(f"{self.kind}: ")) from error
        return name

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.names, n=1, cutoff=0.5)
        suggestion = f"did you mean {near[0]!r}? " if near else ""
        return (
            f"{shown(name)} is not registered; {suggestion}known here: {', '.join(self.names)}; install the "
            f"package that registers it in the group {self.group}"
        )

    def _registered(self) -> Mapping[str, tuple[EntryPoint, ...]]:
        return entry_points_of(self.group)


@dataclass(frozen=True)
class SeveralOf:
    """Annotates a text that holds one or several names of a registry, with commas between them.

    A list of names is taken as well, and becomes such a text: one name is the same with and without others.
    """

    registry: Registry

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Make pydantic check names."""
        checked = core_schema.no_info_after_validator_function(self._checked, handler(source))
        return core_schema.no_info_before_validator_function(_joined, checked)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Make JSON schemas list the names, and allow several of them."""
        name = {"type": "string", "enum": self.registry.names}
        any_name = "|".join(map(re.escape, self.registry.names))
        several = {"type": "string", "pattern": f"^({any_name})(, ?({any_name}))+$"}
        return {
            "anyOf": [name, several, {"type": "array", "items": name, "minItems": 1, "uniqueItems": True}]
        }

    def _checked(self, text: str) -> str:
        names = [self.registry.checked(name.strip()) for name in text.split(",")]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise said(f"{', '.join(twice)} is named more than once; name each {self.registry.kind} once")
        return ",".join(names)


def _joined(value: Any) -> Any:
    return (
        ",".join(value) if isinstance(value, list) and all(isinstance(name, str) for name in value) else value
    )


def entry_points_of(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """Return the entry points of a group by their names; the metadata of packages is read once."""
    return _entry_points(group, tuple(sys.path))


@functools.cache
def _entry_points(group: str, path: tuple[str, ...]) -> Mapping[str, tuple[EntryPoint, ...]]:
    """The entry points of a group by their names, as the packages on `path` (`sys.path`) have them."""
    del path
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in entry_points(group=group):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


def package_of(entry: EntryPoint) -> str:
    """Name and version of the package that an entry point is of."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "an unknown package"


def parse_options(value: Any) -> Any:
    """Read options that are given as texts `NAME=VALUE`; a mapping is left as it is.

    A value is a text, which the option's type makes a number of; lists and mappings are written as JSON.

    Raises:
        PydanticCustomError: another form, or an option that is given twice.
    """
    if not isinstance(value, list | tuple):
        return value
    found: dict[str, Any] = {}
    for entry in value:
        name, separator, text = str(entry).partition("=")
        if not separator or not name.strip():
            raise said(f"write NAME=VALUE, not {shown(entry)}")
        if name.strip() in found:
            raise said(f"{name.strip()} is given more than once")
        found[name.strip()] = _value(text)
    return found


def _value(text: str) -> Any:
    if not text.lstrip().startswith(("[", "{")):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise said(f"{shown(text)}: is no JSON: {error}") from error


PluginOptions = Annotated[dict[str, Any], BeforeValidator(parse_options)]
