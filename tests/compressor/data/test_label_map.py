"""The option `label_map` is the same mapping, however it is given."""

import json

import pytest
import typer
from pydantic import ValidationError
from typer.testing import CliRunner

from compressor.commands.flags import section_flags
from compressor.config.overrides import parse_override
from compressor.config.recipe import load_recipe, recipe_values
from compressor.errors import UserError
from compressor.options import ColumnsConfig, describe


@pytest.mark.parametrize(
    "value",
    [
        {"0": "negative", "1": "positive"},
        {0: "negative", 1: " positive "},
        "0=negative,1=positive",
        ["0=negative", "1=positive"],
        ["0 = negative , 1=positive"],
    ],
)
def test_a_mapping_pairs_and_lists_of_pairs_are_alike(value):
    assert ColumnsConfig(label_map=value).label_map == {"0": "negative", "1": "positive"}


def test_classes_may_be_indices():
    assert ColumnsConfig(label_map={"neg": 0}).label_map == {"neg": "0"}


@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_a_file_holds_what_pairs_cannot(tmp_path, bom):
    wanted = {"<=50K, low": "a=b", "-1": "größe"}
    path = tmp_path / "map.json"
    path.write_text(bom + json.dumps(wanted), encoding="utf-8")
    assert ColumnsConfig(label_map=str(path)).label_map == wanted
    assert ColumnsConfig(label_map=[str(path), "x=y"]).label_map == wanted | {"x": "y"}


def problem(value):
    with pytest.raises(ValidationError) as caught:
        ColumnsConfig(label_map=value)
    line = describe(caught.value.errors()[0], ColumnsConfig)
    assert line.startswith("label_map: ")
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({}, "is empty"),
        ([], "is empty"),
        ("none.json", "'none.json': cannot be read"),
        ("", "cannot be read"),
        ("a=b=c", "write LABEL=CLASS"),
        ("a,b=c", "go into a file"),
        ("=c", "the label is empty"),
        ("a=", "class of label 'a' is empty"),
        ("a=b,a=c", "label 'a' is given more than once"),
        ({"1": "a", 1: "b"}, "label '1' is given more than once"),
        ({True: "a"}, "put a word in quotes"),
        ({"a": None}, "put a word in quotes"),
        ({"a": ["b"]}, "must be a text"),
        ({"a": 1.5}, "must be a text"),
        ({"a": 10**5000}, "too large"),
        (3, "or a mapping"),
        ([{"a": "b"}], "or a mapping"),
    ],
)
def test_what_is_no_map_is_one_line(value, says):
    assert says in problem(value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'["a"]', "must hold one JSON object"),
        (b"{a: b}", "is no JSON"),
        (b'{"a": "b", "a": "c"}', "label 'a' is given more than once"),
        (b'{"a": {"b": "c"}}', "must be a text"),
        (b"\xff\xfe", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path, content, says):
    (tmp_path / "map.json").write_bytes(content)
    assert says in problem(str(tmp_path / "map.json"))


def test_a_recipe_holds_a_mapping_and_is_written_with_that_of_a_file(tmp_path):
    (tmp_path / "map.json").write_text('{"0": "bad", "true": "good"}')
    path = tmp_path / "recipe.yaml"
    path.write_text(f"model: m\ndata: {{calibration: c, test: t, label_map: {tmp_path}/map.json}}\n")
    recipe = load_recipe(path)
    assert recipe.data.label_map == {"0": "bad", "true": "good"}
    assert recipe_values(recipe)["data"]["label_map"] == {"0": "bad", "true": "good"}
    given = load_recipe(path, [parse_override("data.label_map={0: bad, 1: good}")])
    assert given.data.label_map == {"0": "bad", "1": "good"}


def test_a_bad_map_in_a_recipe_is_named_with_its_line(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("model: m\ndata:\n  calibration: c\n  test: t\n  label_map: {yes: good}\n")
    with pytest.raises(UserError, match=r"recipe.yaml:5: data.label_map: the label must be a text"):
        load_recipe(path)


def test_pairs_are_given_by_a_flag():
    built = []

    def command(columns: ColumnsConfig) -> None:
        built.append(columns)

    command.__annotations__ = {"columns": ColumnsConfig, "return": None}
    app = typer.Typer()
    app.command()(section_flags(command))
    arguments = ["--label-map", "-1=negative,0=neutral", "--label-map", "1=positive"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert built[0].label_map == {"-1": "negative", "0": "neutral", "1": "positive"}
    with pytest.raises(UserError, match="--label-map: 'a=b=c': write LABEL=CLASS"):
        CliRunner().invoke(app, ["--label-map", "a=b=c"], catch_exceptions=False)
