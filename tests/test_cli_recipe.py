"""`compress recipe` and overrides, as a person meets them."""

import json

import jsonschema
import pytest
import yaml

import cli
from compressor.config.recipe import Recipe

RECIPE = "model: m\ndata:\n  calibration: c.tsv\n  test: t.tsv\nprune:\n  sparsity: 0.5\n"


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def printed(capsys, *arguments, code=0):
    assert cli.execute([str(argument) for argument in arguments]) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.out if code == 0 else captured.err


def test_show_prints_the_complete_recipe_with_what_is_set(recipe, capsys):
    text = printed(capsys, "recipe", "show", recipe, "--set", "prune.sparsity=0.75", "--set", "run.seed=3")
    values = yaml.safe_load(text)
    assert values["prune"]["sparsity"] == 0.75
    assert values["run"] == {"device": "auto", "seed": 3, "threads": 0}
    assert set(values) == {field.alias or name for name, field in Recipe.model_fields.items()}
    shown = recipe.with_name("shown.yaml")
    shown.write_text(text)
    assert printed(capsys, "recipe", "show", shown) == text
    assert json.loads(printed(capsys, "recipe", "show", shown, "--json")) == values


def test_the_schema_is_one_that_takes_recipes_and_refuses_others(recipe, capsys):
    schema = json.loads(printed(capsys, "recipe", "schema"))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(yaml.safe_load(RECIPE))
    assert validator.is_valid(json.loads(printed(capsys, "recipe", "show", recipe, "--json")))
    assert not validator.is_valid(yaml.safe_load(RECIPE.replace("sparsity", "sparsty")))
    assert not validator.is_valid(yaml.safe_load(RECIPE.replace("0.5", "1.5")))
    described = schema["$defs"]["PruneConfig"]["properties"]["sparsity"]["description"]
    assert described == type(Recipe.model_fields["prune"].default).model_fields["sparsity"].description


def test_init_writes_a_recipe_that_show_reads_and_keeps_what_is_there(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    printed(capsys, "recipe", "init", path)
    text = path.read_text()
    assert "compress run" in printed(capsys, "recipe", "init", path, "--force")
    assert "--force" in printed(capsys, "recipe", "init", path, code=2)
    assert path.read_text() == text
    assert "model: MODEL" in printed(capsys, "recipe", "show", path)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--set", "prune.sparsty=1"], "error: --set prune.sparsty=1: prune.sparsty: unknown key; did"),
        (["--device", "tpu"], "error: --device tpu: run.device: input should be 'auto', 'cpu' or 'cuda'"),
        (["--seed", "-1"], "error: --seed -1: run.seed: input should be greater than or equal to 0, not -1"),
    ],
)  # fmt: skip
def test_a_bad_setting_of_a_run_is_one_line_and_leaves_nothing(recipe, capsys, tmp_path, arguments, line):
    error = printed(capsys, "run", recipe, "--output", tmp_path / "deep" / "out", *arguments, code=2)
    assert error.startswith(line)
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]
