"""All mistakes of a recipe, of flags and of overrides are named at once."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cli
from compressor.config.overrides import parse_override, parse_overrides
from compressor.config.recipe import Recipe, load_recipe
from compressor.errors import SeveralUserErrors, UserError, check_all, problems_of, raise_problems, read_all
from compressor.pipeline.run import check_recipe

RECIPE = "model: m\ndata:\n  calibration: c.tsv\n  test: t.tsv\n"


def problems_in(function, *arguments):
    with pytest.raises(UserError) as caught:
        function(*arguments)
    return problems_of(caught.value)


def test_every_mistake_of_a_recipe_is_named_with_its_line(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE + "prune:\n  sparsty: 0.5\n  pattern: 3\nrun: {seed: -1}\nattac: {}\n")
    found = problems_in(load_recipe, path, [parse_override("export.precision=int3")])
    assert (
        sum(problem.startswith("--set export.precision=int3: export.precision: ") for problem in found) == 1
    )
    assert sorted(problem for problem in found if "int3" not in problem) == [
        f"{path}:6: prune.sparsty: unknown key; did you mean 'sparsity'?",
        f"{path}:7: prune.pattern: input should be a valid string, not 3",
        f"{path}:8: run.seed: input should be greater than or equal to 0, not -1",
        f"{path}:9: attac: unknown key; did you mean 'attack'?",
    ]


def test_every_override_that_cannot_be_read_is_named():
    assert [
        problem.split(":")[0] for problem in problems_in(parse_overrides, ["a", "b=1", "c.=2", "d=["])
    ] == [
        "--set a",
        "--set c.=2",
        "--set d",
    ]


def test_every_contradiction_of_a_recipe_is_named():
    recipe = Recipe.model_validate(
        {
            "model": "m",
            "data": {"calibration": "c", "test": "t"},
            "prune": {
                "pattern": "seven",
                "adaptive": {"robust": True, "substitution_choice": "gradient", "substitution_draws": 2},
            },
            "validate": {"gates": ["acuracy >= 0.5", "size_mb <= 0.9 * baseline", "accuracy >>= 1"]},
            "finetune": {},
            "soup": {},
        }
    )
    found = problems_in(check_recipe, recipe)
    for part in (
        "seven",
        "substitution_draws",
        "'acuracy'",
        "'accuracy >>= 1'",
        "soup: there is",
    ):
        assert sum(part in problem for problem in found) == 1, part


def test_flags_of_all_sections_are_checked_before_a_command_gives_up(capsys):
    arguments = [
        "prune",
        "m",
        "--calibration",
        "c.tsv",
        "--output",
        "o",
        "--sparsity",
        "1",
        "--damping",
        "-1",
    ]
    assert cli.execute([*arguments, "--seed", "-1", "--json"]) == 2
    out, err = capsys.readouterr()
    first, *others = err.splitlines()
    assert first == "error: 3 problems in the options:"
    assert sorted(line.split(":")[0].strip() for line in others) == ["--damping", "--seed", "--sparsity"]
    assert all(line.strip() in json.loads(out)["error"] for line in others)


@given(st.lists(st.text(min_size=1), max_size=5))
def test_one_mistake_is_told_as_it_is_and_several_with_their_number(lines):
    unique = list(dict.fromkeys(lines))

    def fail(line):
        raise UserError(line)

    if not lines:
        assert read_all("here", str, ["a"]) == ["a"]
        return
    found = problems_in(check_all, "here", [lambda line=line: fail(line) for line in lines])
    assert found == unique


def test_an_error_of_several_survives_the_way_between_processes():
    with pytest.raises(SeveralUserErrors) as caught:
        raise_problems("a file", ["one", "two"])
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert str(again) == str(caught.value) == "2 problems in a file:\none\ntwo"
    assert again.problems == ("one", "two")
