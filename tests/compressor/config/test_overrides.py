"""Overrides: read as YAML, put in place before the check, and named in its errors."""

import pytest

from compressor.config.overrides import apply_overrides, parse_override
from compressor.config.recipe import load_recipe
from compressor.errors import UserError
from compressor.options import FinetuneConfig

RECIPE = """\
model: some/model
data:
  calibration: train.tsv
  test: test.tsv
prune:
  sparsity: 0.5
  algorithm: wanda
"""


@pytest.fixture
def load(tmp_path):
    path = tmp_path / "recipe.yaml"

    def load_with(*settings, text=RECIPE):
        path.write_text(text, encoding="utf-8")
        return load_recipe(path, [parse_override(setting) for setting in settings])

    return load_with


def test_a_value_takes_the_place_of_the_file_s_and_the_rest_stays(load):
    recipe = load("prune.sparsity=0.75", "prune.adaptive.damping=1e-1", "data.max_length=64")
    assert (recipe.prune.sparsity, recipe.prune.algorithm) == (0.75, "wanda")
    assert recipe.prune.adaptive.damping == 0.1
    assert (recipe.data.max_length, recipe.data.test) == (64, "test.tsv")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("prune.pattern=2:4", lambda recipe: recipe.prune.pattern == "2:4"),
        ("attack.word_budgets=[0.1, 2e-1]", lambda recipe: recipe.attack.word_budgets == [0.1, 0.2]),
        ("validate.gates=['accuracy >= 0.5']", lambda recipe: recipe.validate_.gates == ["accuracy >= 0.5"]),
        ("data.text_column=a=b", lambda recipe: recipe.data.text_column == "a=b"),
        ("prune.sparsity=", lambda recipe: recipe.prune.sparsity is None),
        ("prune.sparsity=null", lambda recipe: recipe.prune.sparsity is None),
        ("prune.adaptive.resolve_heads=false", lambda recipe: not recipe.prune.adaptive.resolve_heads),
        ("finetune={}", lambda recipe: recipe.finetune == FinetuneConfig()),
        ("finetune.epochs=3", lambda recipe: recipe.finetune == FinetuneConfig(epochs=3)),
    ],
)
def test_a_value_is_yaml(load, setting, value):
    assert value(load(setting))


def test_the_last_of_two_overrides_counts(load):
    assert load("prune.sparsity=0.1", "prune.sparsity=0.2").prune.sparsity == 0.2
    assert load("finetune.epochs=3", "finetune=null").finetune is None


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            ["prune.sparsty=0.5"],
            "--set prune.sparsty=0.5: prune.sparsty: unknown key; did you mean 'sparsity'?",
        ),
        (["prun.sparsity=0.5"], "--set prun.sparsity=0.5: prun: unknown key; did you mean 'prune'?"),
        (["run.seed=1", "run.seed=x"], "--set run.seed=x: run.seed: input should be a valid integer"),
        (["prune.sparsity.x=1"], "--set prune.sparsity.x=1: prune.sparsity is 0.5, which has no keys"),
        (["run.seed.x=1"], "--set run.seed.x=1: run.seed: input should be a valid integer"),
        (["data={test: a}"], "--set data={test: a}: data.calibration: missing"),
        (["prune.sparsity"], "--set prune.sparsity: write KEY=VALUE"),
        (["=3"], "--set =3: write KEY=VALUE"),
        (["prune..sparsity=3"], "--set prune..sparsity=3: write KEY=VALUE"),
        (["prune.sparsity=[1"], "--set prune.sparsity: not valid YAML"),
    ],
)
def test_a_bad_override_is_named_as_it_was_given(load, settings, line):
    with pytest.raises(UserError) as caught:
        load(*settings)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_a_mistake_of_the_file_is_not_blamed_on_an_override(load):
    text = RECIPE.replace("algorithm", "algoritm")
    with pytest.raises(UserError, match=r"recipe\.yaml:7: prune\.algoritm: unknown key"):
        load("prune.sparsity=0.75", text=text)


def test_what_is_overridden_is_left_as_it_was():
    values = {"a": {"b": {"c": 1}}}
    assert apply_overrides(values, [parse_override("a.b.c=2")]) == {"a": {"b": {"c": 2}}}
    assert values == {"a": {"b": {"c": 1}}}
