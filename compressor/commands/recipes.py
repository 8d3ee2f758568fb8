"""Commands about recipes: show, init, schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compressor.commands.arguments import Json, Set
from compressor.commands.printing import json_text, print_result
from compressor.system.terminal import write_out


def show(
    recipe: Annotated[Path, typer.Argument(help="Recipe in YAML.", show_default=False)],
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Print the complete recipe as it would run, with all defaults filled in."""
    from compressor.config.overrides import parse_overrides
    from compressor.config.recipe import dump_recipe, load_recipe, recipe_values

    loaded = load_recipe(recipe, parse_overrides(settings or []))
    print_result(as_json, recipe_values(loaded), dump_recipe(loaded).rstrip("\n"))


def init(
    recipe: Annotated[Path, typer.Argument(help="File to write.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    as_json: Json = False,
) -> None:
    """Write a starter recipe: every option with its default, and its description as a comment."""
    from compressor.config.starter import write_starter

    write_starter(recipe, force=force)
    print_result(
        as_json,
        {"path": str(recipe)},
        f"Recipe: {recipe}; fill in model and data, then: compress run {recipe} --output runs/mine",
    )


def schema() -> None:
    """Print the JSON schema of recipes, for completion and checks in editors.

    Save it as recipe.schema.json. Editors with the YAML language server use it if the first line of a recipe
    is the comment `# yaml-language-server: $schema=recipe.schema.json`.
    """
    from compressor.config.recipe import Recipe

    write_out(json_text(Recipe.model_json_schema(), indent=2))
