"""The starter recipe says what the options say, and loads to their defaults."""

import re

import pytest
import yaml
from pydantic import BaseModel

from compressor.config.recipe import Recipe, load_recipe
from compressor.config.starter import PLACES, starter_recipe, write_starter
from compressor.errors import UserError
from compressor.options import DataConfig, FinetuneConfig, SearchConfig, Section, SoupConfig

DATA = DataConfig(calibration=PLACES["calibration"], test=PLACES["test"])


def test_it_loads_to_the_defaults(tmp_path):
    write_starter(tmp_path / "recipe.yaml", force=False)
    assert load_recipe(tmp_path / "recipe.yaml") == Recipe(model=PLACES["model"], data=DATA)


def test_without_the_comment_signs_the_other_sections_load_to_theirs(tmp_path):
    text = re.sub(r"^#(?! )|^#(?=  )", "", starter_recipe(), flags=re.MULTILINE)
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    recipe = load_recipe(tmp_path / "recipe.yaml")
    others = {"finetune": FinetuneConfig(), "soup": SoupConfig(), "search": SearchConfig()}
    assert {name: getattr(recipe, name) for name in others} == others
    assert recipe.model_copy(update=dict.fromkeys(others)) == Recipe(model=PLACES["model"], data=DATA)
    assert set(leaves(yaml.safe_load(text))) == set(leaves_of(Recipe))


def leaves(value, path=""):
    for key, inner in value.items():
        # An option may be a mapping that is empty.
        if isinstance(inner, dict) and inner:
            yield from leaves(inner, f"{path}{key}.")
        else:
            yield f"{path}{key}"


def leaves_of(section: type[BaseModel], path=""):
    for name, field in section.model_fields.items():
        key = field.alias or name
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)]
        if inner:
            yield from leaves_of(inner[0], f"{path}{key}.")
        else:
            yield f"{path}{key}"


def test_every_option_of_a_live_section_comes_with_its_description():
    text = " ".join(starter_recipe().replace("#", " ").split())
    for section in (Recipe, *(type(value) for value in Recipe(model="m", data=DATA).__dict__.values())):
        if issubclass(section, Section):
            for name, field in section.model_fields.items():
                assert " ".join((field.description or "").split()) in text, name


def test_no_line_is_wider_than_a_page():
    assert max(len(line) for line in starter_recipe().splitlines()) <= 110


def test_an_existing_file_is_kept_unless_it_is_to_be_replaced(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("mine")
    with pytest.raises(UserError, match="--force"):
        write_starter(path, force=False)
    assert path.read_text() == "mine"
    write_starter(path, force=True)
    assert path.read_text() == starter_recipe()
    for place in (tmp_path, tmp_path / "none" / "recipe.yaml", path / "recipe.yaml"):
        with pytest.raises(UserError):
            write_starter(place, force=True)
    assert [file.name for file in tmp_path.iterdir()] == ["recipe.yaml"]
