"""A whole run in one YAML file: read, checked with file, line and key, and written out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from compressor.config.overrides import Override, apply_overrides, override_behind
from compressor.config.yaml_text import dump_yaml, line_of, parse_yaml
from compressor.errors import UserError, raise_problems
from compressor.options import (
    AttackConfig,
    DataConfig,
    ExportConfig,
    FinetuneConfig,
    PruneConfig,
    RunConfig,
    SearchConfig,
    Section,
    SoupConfig,
    ValidateConfig,
    describe,
    keys_of,
)


class Recipe(Section):
    """A whole run: dense model and data in, pruned and proven artifact out."""

    model: str = Field(
        description="Directory or hub id: a fine-tuned classifier, or an encoder to fine-tune."
    )
    data: DataConfig
    run: RunConfig = RunConfig()
    finetune: FinetuneConfig | None = None
    soup: SoupConfig | None = None
    search: SearchConfig | None = None
    prune: PruneConfig = PruneConfig()
    attack: AttackConfig = AttackConfig()
    export: ExportConfig = ExportConfig()
    validate_: ValidateConfig = Field(default=ValidateConfig(), alias="validate")


def load_recipe(path: Path, overrides: Sequence[Override] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: the YAML file.
        overrides: values in place of the file's; the last one of a key counts.

    Raises:
        UserError: no such file, no YAML, unknown keys (the nearest known one is suggested) and bad
            values, all of them; each line names file, line, key and value, or the override that is to blame.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a recipe: {error}") from error
    value, node = parse_yaml(text, str(path))
    if not isinstance(value, dict) or node is None:
        raise UserError(f"{path}: a recipe is a mapping with the keys {', '.join(keys_of(Recipe))}")
    value = apply_overrides(value, overrides)
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        problems: list[str] = []
        for problem in error.errors():
            culprit = override_behind(problem["loc"], overrides)
            where = f"{path}:{line_of(node, problem['loc'])}" if culprit is None else culprit.given_as
            problems.append(f"{where}: {describe(problem, Recipe)}")
        raise_problems(str(path), problems, error)


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, every default written out."""
    return recipe.model_dump(mode="json", by_alias=True)


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every default written out."""
    return dump_yaml(recipe_values(recipe))
