"""Recipes: every mistake is one line with file, line, key and the way out."""

import re

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from compressor.config.recipe import Recipe, dump_recipe, load_recipe
from compressor.errors import UserError, problems_of
from compressor.options import PruneConfig, Section

MINIMAL = """\
model: some/model
data:
  calibration: train.tsv
  test: test.tsv
"""

SECTIONS = [s for s in Section.__subclasses__() if s.__module__.startswith("compressor.options")]


def load(tmp_path, text: str) -> Recipe:
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    return load_recipe(tmp_path / "recipe.yaml")


def problem_of(tmp_path, text: str) -> str:
    """The error's text without the path; it is one line and starts with the path."""
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'recipe.yaml'}:")
    assert "\n" not in message
    return message.removeprefix(f"{tmp_path / 'recipe.yaml'}:")


def test_what_is_not_given_has_its_default(tmp_path):
    recipe = load(tmp_path, MINIMAL)
    assert recipe.prune == PruneConfig()
    assert recipe.finetune is None
    assert recipe.data.max_length == 128


def test_values_reach_their_fields(tmp_path):
    recipe = load(tmp_path, MINIMAL + "prune: {algorithm: wanda, pattern: '2:4'}\nvalidate: {gates: []}\n")
    assert (recipe.prune.algorithm, recipe.prune.pattern) == ("wanda", "2:4")
    assert recipe.validate_.gates == []


@pytest.mark.parametrize(
    ("text", "line", "key", "near"),
    [
        (MINIMAL + "prune:\n  algoritm: wanda\n", 6, "prune.algoritm", "algorithm"),
        (MINIMAL + "prun:\n  algorithm: wanda\n", 5, "prun", "prune"),
        (MINIMAL + "  text_colum: a\n", 5, "data.text_colum", "text_column"),
        (MINIMAL + "prune:\n  adaptive:\n    # why\n    dampin: 1\n", 8, "prune.adaptive.dampin", "damping"),
        (MINIMAL + "validate:\n  gate: []\n", 6, "validate.gate", "gates"),
        (MINIMAL + "validate_: {}\n", 5, "validate_", "validate"),
        (MINIMAL + "finetune: {epoch: 2}\n", 5, "finetune.epoch", "epochs"),
    ],
)
def test_an_unknown_key_suggests_the_near_one_with_its_line(tmp_path, text, line, key, near):
    assert problem_of(tmp_path, text) == f"{line}: {key}: unknown key; did you mean {near!r}?"


def test_an_unknown_key_like_no_other_lists_those_that_are_known(tmp_path):
    problem = problem_of(tmp_path, MINIMAL + "attack:\n  zzzz: 1\n")
    known = "attack, attack_examples, attack_options, "
    assert problem.startswith(f"6: attack.zzzz: unknown key; known here: {known}")


@pytest.mark.parametrize(
    ("text", "start", "value"),
    [
        (MINIMAL + "prune:\n  sparsity: 1.0\n", "6: prune.sparsity: ", "1.0"),
        (MINIMAL + "prune: {sparsity: half}\n", "5: prune.sparsity: ", "'half'"),
        (MINIMAL + "prune: {scope: obs}\n", "5: prune.scope: ", "'obs'"),
        (MINIMAL + "run: {seed: -1}\n", "5: run.seed: ", "-1"),
        (MINIMAL + "run: {seed: 1.5}\n", "5: run.seed: ", "1.5"),
        (MINIMAL + "prune: 3\n", "5: prune: ", "3"),
        (MINIMAL + "prune: []\n", "5: prune: ", "[]"),
        (MINIMAL + "validate:\n  batch_sizes:\n    - 1\n    - x\n", "8: validate.batch_sizes.1: ", "'x'"),
        (MINIMAL + "validate: {batch_sizes: []}\n", "5: validate.batch_sizes: ", "[]"),
        (MINIMAL + "prune: {adaptive: {damping: .nan}}\n", "5: prune.adaptive.damping: ", "nan"),
        (MINIMAL.replace("some/model", "3"), "1: model: ", "3"),
    ],
)
def test_a_bad_value_is_named_with_key_and_line(tmp_path, text, start, value):
    problem = problem_of(tmp_path, text)
    assert problem.startswith(start)
    assert problem.endswith(f", not {value}")


@pytest.mark.parametrize("key", ["batch_sizes", "sequence_lengths"])
@pytest.mark.parametrize("value", [0, -1])
def test_sizes_of_the_latency_table_are_positive(tmp_path, key, value):
    problem = problem_of(tmp_path, MINIMAL + f"validate:\n  {key}: [1, {value}]\n")
    assert problem.startswith(f"6: validate.{key}.1: ")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("data: {calibration: a, test: b}\n", "1: model: missing; this key is required"),
        ("model: a\n", "1: data: missing; this key is required"),
        ("model: a\ndata:\n  test: b\n", "2: data.calibration: missing; this key is required"),
    ],
)
def test_a_missing_key_is_named(tmp_path, text, problem):
    assert problem_of(tmp_path, text) == problem


@pytest.mark.parametrize("text", ["", "null", "3", "- a", "text", "# only a comment\n"])
def test_what_is_no_mapping_is_told_the_keys(tmp_path, text):
    assert "a recipe is a mapping with the keys model, data" in problem_of(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    ["a: [", "a: b: c", "\t", "a: &x *y", "!!python/object:os.system {}", "a: !unknown 1", "? [a]: b\n: c"],
)
def test_what_is_no_yaml_is_said_so(tmp_path, text):
    assert re.search("not valid YAML|a recipe is a mapping", problem_of(tmp_path, text))


@pytest.mark.parametrize(
    "value",
    ["2024-99-99", "2024-02-30 10:00:00", "!!int x", "!!float x", "!!bool x", "!!timestamp x", "0b_", "0x_"],
)
def test_a_scalar_that_yaml_cannot_make_is_a_user_error(tmp_path, value):
    problem_of(tmp_path, MINIMAL + f"run: {{seed: {value}}}\n")


@pytest.mark.parametrize(
    "text",
    [
        MINIMAL + "1: 2\n",
        MINIMAL + "null: 2\n",
        "1: 2\n",
        MINIMAL + "? [a, b]\n: c\n",
        MINIMAL + "&a prune: *a\n",
    ],
)
def test_odd_keys_are_a_user_error(tmp_path, text):
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    assert all("\n" not in problem for problem in problems_of(caught.value))


def test_a_mapping_within_itself_is_a_user_error(tmp_path):
    problem_of(tmp_path, MINIMAL + "prune: &a\n  adaptive: *a\n")


def test_very_deep_yaml_is_a_user_error(tmp_path):
    problem_of(tmp_path, "model: " + "[" * 2000 + "]" * 2000)


def test_no_file_a_folder_and_no_text_are_user_errors(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.yaml", tmp_path, tmp_path / "binary"):
        with pytest.raises(UserError, match="cannot be read as a recipe"):
            load_recipe(path)


@pytest.mark.parametrize(
    "text",
    [
        MINIMAL,
        MINIMAL + "finetune: {epochs: 3}\nprune: {sparsity: 0.29, randomized: {steps: 5}}\n",
        MINIMAL + "validate: {gates: ['accuracy_drop <= 0.01'], batch_sizes: [4]}\nrun: {seed: 7}\n",
    ],
)
def test_dump_and_load_give_the_same_recipe(tmp_path, text):
    recipe = load(tmp_path, text)
    dumped = dump_recipe(recipe)
    assert load(tmp_path, dumped) == recipe
    assert dump_recipe(load(tmp_path, dumped)) == dumped
    assert set(yaml.safe_load(dumped)) == {f.alias or n for n, f in Recipe.model_fields.items()}


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_option_has_a_description(section):
    for name, field in section.model_fields.items():
        kind = field.annotation
        is_section = any(
            isinstance(part, type) and issubclass(part, BaseModel)
            for part in (kind, *getattr(kind, "__args__", ()))
        )
        assert is_section or (field.description or "").endswith("."), name


KNOWN_KEYS = sorted({field.alias or name for s in SECTIONS for name, field in s.model_fields.items()})
KEYS = st.one_of(st.sampled_from(KNOWN_KEYS), st.text(max_size=6), st.integers(), st.none(), st.booleans())
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=8),
        st.dates(),
        st.binary(max_size=3),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(KNOWN_KEYS), inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=4),
    ),
    max_leaves=12,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS, VALUES, max_size=5), st.booleans())
def test_any_mapping_is_a_recipe_or_a_user_error(tmp_path, value, complete):
    if complete:
        value = {"model": "m", "data": {"calibration": "a", "test": "b"}} | value
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
    try:
        recipe = load_recipe(path)
    except UserError as error:
        assert all("\n" not in problem for problem in problems_of(error))
    else:
        assert isinstance(recipe, Recipe)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=40))
def test_any_text_is_a_user_error(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError):
        load_recipe(path)
