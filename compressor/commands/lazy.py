"""Commands that are imported when they are needed: help and one command do not wait for the others."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, cast

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

PACKAGE = "compressor.commands"


@dataclass(frozen=True)
class Lazy:
    """A command of a module of this package.

    Attributes:
        place: the module and the function, as `making.prune`.
        summary: the first line of the function's docstring, which help lists without importing the module.
        panel: heading in the help of its group; None is the heading that Typer gives.
    """

    place: str
    summary: str
    panel: str | None = None

    def function(self) -> Callable[..., None]:
        """Import what the command runs."""
        module, _, name = self.place.partition(".")
        return cast("Callable[..., None]", getattr(importlib.import_module(f"{PACKAGE}.{module}"), name))


class LazyCommands(MutableMapping[str, Any]):
    """Typer's commands by name, each made when it is first asked for."""

    def __init__(self, lazy: Mapping[str, Lazy], made: Mapping[str, Any]) -> None:
        self._lazy = dict(lazy)
        self._made = dict(made)

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            app = typer.Typer(rich_markup_mode="markdown", add_completion=False)
            lazy = self._lazy[name]
            app.command(name, rich_help_panel=lazy.panel)(lazy.function())
            self._made[name] = typer.main.get_command(app)
        return self._made[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        self._lazy.pop(name, None)
        self._made.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter([*self._lazy, *(name for name in self._made if name not in self._lazy)])

    def __len__(self) -> int:
        return len(self._lazy.keys() | self._made.keys())

    def summarized(self, name: str) -> Any:
        """Return a command that has its name, summary and panel, and no more if it was not made yet."""
        if name in self._made or name not in self._lazy:
            return self._made.get(name)
        lazy = self._lazy[name]
        return TyperCommand(name, help=lazy.summary, rich_markup_mode="markdown", rich_help_panel=lazy.panel)


def lazy_group(lazy: Mapping[str, Lazy]) -> type[TyperGroup]:
    """Return the class of a group of commands that has these besides those that its `typer.Typer` has."""

    class LazyGroup(TyperGroup):
        def __init__(self, *, commands: Any = None, **attributes: Any) -> None:
            super().__init__(commands={}, **attributes)
            self.commands = LazyCommands(lazy, commands or {})
            self._listing = False

        def list_commands(self, ctx: Any) -> list[str]:
            return list(self.commands)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            if self._listing:
                return cast("LazyCommands", self.commands).summarized(cmd_name)
            return self.commands.get(cmd_name)

        def format_help(self, ctx: Any, formatter: Any) -> None:
            self._listing = True
            try:
                super().format_help(ctx, formatter)
            finally:
                self._listing = False

    return LazyGroup
