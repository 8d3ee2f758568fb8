"""A whole run in one YAML file: read, checked with file, line and key, and written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from compressor.errors import UserError
from compressor.options import (
    AttackConfig,
    DataConfig,
    ExportConfig,
    FinetuneConfig,
    PruneConfig,
    RunConfig,
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
    prune: PruneConfig = PruneConfig()
    attack: AttackConfig = AttackConfig()
    export: ExportConfig = ExportConfig()
    validate_: ValidateConfig = Field(default=ValidateConfig(), alias="validate")


def load_recipe(path: Path, run: dict[str, Any] | None = None) -> Recipe:
    """Read and check a recipe.

    Args:
        path: the YAML file.
        run: values in place of those of the recipe's run section.

    Raises:
        UserError: no such file, no YAML, an unknown key (the nearest known one is suggested) or a
            bad value; the line names file, line, key and value.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a recipe: {error}") from error
    try:
        value = yaml.safe_load(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, RecursionError) as error:
        # PyYAML lets what its constructors raise through, for such as `2024-99-99` or `!!bool x`.
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: a recipe is a mapping with the keys {', '.join(keys_of(Recipe))}")
    if run and isinstance(value.get("run", {}), dict):
        value["run"] = value.get("run", {}) | run
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        problem = error.errors()[0]
        location = problem["loc"]
        raise UserError(f"{path}:{_line(node, location)}: {describe(problem, Recipe)}") from error


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every default written out."""
    import yaml

    return str(yaml.safe_dump(recipe.model_dump(by_alias=True), sort_keys=False, allow_unicode=True))


def _line(node: Any, location: tuple[Any, ...]) -> int:
    """Line, from 1, of the deepest part of `location` that the YAML document has."""
    line = int(node.start_mark.line) + 1
    for part in location:
        children = node.value if isinstance(node.value, list) else []
        pairs = [child for child in children if isinstance(child, tuple)]
        if pairs:
            found = next((pair for pair in pairs if pair[0].value == str(part)), None)
            if found is None:
                break
            line, node = int(found[0].start_mark.line) + 1, found[1]
        elif isinstance(part, int) and part < len(children):
            node = children[part]
            line = int(node.start_mark.line) + 1
        else:
            break
    return line
