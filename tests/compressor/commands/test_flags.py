"""Flags are the fields: same names, same defaults, same bounds, and no two alike."""

import inspect

import pytest
import typer
from pydantic import BaseModel
from typer.testing import CliRunner

import cli
from compressor.commands.flags import ADVANCED, section_flags
from compressor.errors import UserError
from compressor.options import (
    AttackConfig,
    ColumnsConfig,
    ExportConfig,
    FinetuneConfig,
    PruneConfig,
    RunConfig,
    ValidateConfig,
)
from compressor.options.section import flag_name, is_common

SECTIONS = [
    AttackConfig, ColumnsConfig, ExportConfig, FinetuneConfig, PruneConfig, RunConfig, ValidateConfig
]  # fmt: skip


def application(section):
    """A Typer application of one command, and the list in which its section ends up."""
    built = []

    def command(section):
        built.append(section)

    command.__annotations__ = {"section": section, "return": None}
    app = typer.Typer()
    app.command()(section_flags(command))
    return app, built


def run(section, *arguments):
    app, built = application(section)
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return built[0]


def leaf_fields(section):
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaf_fields(field.annotation)
        else:
            yield name, field


@pytest.mark.parametrize("section", SECTIONS, ids=lambda s: s.__name__)
def test_without_flags_the_section_has_its_defaults(section):
    assert run(section) == section()


@pytest.mark.parametrize("section", SECTIONS, ids=lambda s: s.__name__)
def test_every_field_is_a_flag_with_its_description(section):
    app, _ = application(section)
    parameters = {parameter.name: parameter for parameter in typer.main.get_command(app).params}
    fields = dict(leaf_fields(section))
    assert set(parameters) - {"install_completion", "show_completion"} == set(fields)
    for name, field in fields.items():
        assert flag_name(name) in parameters[name].opts
        assert parameters[name].help == field.description


@pytest.mark.parametrize("section", SECTIONS, ids=lambda s: s.__name__)
def test_common_fields_are_in_the_first_panel_and_all_others_in_advanced_ones(section):
    app, _ = application(section)
    parameters = {parameter.name: parameter for parameter in typer.main.get_command(app).params}
    for name, field in leaf_fields(section):
        panel = parameters[name].rich_help_panel
        assert panel is None if is_common(field) else panel.startswith(ADVANCED)
    assert any(is_common(field) for _, field in leaf_fields(section))


@pytest.mark.parametrize(("command", "most"), [("quickstart", 10), ("prune", 15)])
def test_the_first_panel_is_short(command, most):
    parameters = typer.main.get_command(cli.app).commands[command].params
    options = [p for p in parameters if p.param_type_name == "option" and p.rich_help_panel is None]
    # --help is in the panel as well.
    assert len(options) + 1 <= most


def test_common_flags_are_between_required_and_optional_parameters():
    @section_flags
    def command(run: RunConfig, data: str, force: bool = False):
        del run, data, force

    assert list(inspect.signature(command).parameters) == ["data", "device", "seed", "threads", "force"]


def test_values_reach_their_fields():
    found = run(
        PruneConfig,
        "--algorithm", "randomized", "--pattern", "2:4", "--damping", "0.5", "--no-resolve-heads",
        "--steps", "7", "--candidates", "2",
    )  # fmt: skip
    assert (found.algorithm, found.pattern, found.sparsity) == ("randomized", "2:4", None)
    assert (found.adaptive.damping, found.adaptive.resolve_heads) == (0.5, False)
    assert (found.randomized.steps, found.randomized.candidates) == (7, 2)


def test_lists_are_given_by_repeating_a_flag():
    found = run(ValidateConfig, "--batch-sizes", "2", "--batch-sizes", "3", "--gates", "sparsity >= 0.5")
    assert found.batch_sizes == [2, 3]
    assert found.gates == ["sparsity >= 0.5"]


@pytest.mark.parametrize(
    ("section", "arguments", "start"),
    [
        (PruneConfig, ("--sparsity", "1.0"), "--sparsity: "),
        (
            PruneConfig,
            ("--algorithm", "wandda"),
            "--algorithm: 'wandda' is not registered; did you mean 'wanda'?",
        ),
        (PruneConfig, ("--algorithm-options", "keep"), "--algorithm-options: write NAME=VALUE"),
        (PruneConfig, ("--algorithm-options", "keep=1"), "--algorithm-options: adaptive has no such options"),
        (AttackConfig, ("--attack", "textbuger"), "--attack: 'textbuger' is not registered; did you mean"),
        (ExportConfig, ("--runtime", "x"), "--runtime: 'x' is not registered; known here: onnxruntime"),
        (PruneConfig, ("--damping", "0"), "--damping: "),
        (PruneConfig, ("--candidates", "0"), "--candidates: "),
        (ColumnsConfig, ("--max-length", "3"), "--max-length: "),
        (RunConfig, ("--seed", "-1"), "--seed: "),
        (ExportConfig, ("--parity-tolerance", "nan"), "--parity-tolerance: "),
    ],
)
def test_a_value_out_of_bounds_is_a_user_error_that_names_the_flag(section, arguments, start):
    app, _ = application(section)
    with pytest.raises(UserError) as caught:
        CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert str(caught.value).startswith(start)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arguments", [("--scope", "obs"), ("--seed", "x"), ("--no-such-flag",)])
def test_a_value_of_another_kind_is_a_usage_error(arguments):
    app, _ = application(RunConfig if "--seed" in arguments else PruneConfig)
    assert CliRunner().invoke(app, list(arguments)).exit_code == 2


def test_two_sections_with_a_field_of_one_name_are_refused():
    def command(one: FinetuneConfig, two: FinetuneConfig) -> None:
        del one, two

    with pytest.raises(TypeError, match="a flag is defined twice"):
        section_flags(command)


def test_a_parameter_like_a_field_is_refused():
    def command(seed: int, run: RunConfig) -> None:
        del seed, run

    with pytest.raises(TypeError, match="a flag is defined twice"):
        section_flags(command)


def test_plain_parameters_stay():
    seen = []

    def command(name: str, run: RunConfig) -> None:
        seen.append((name, run.seed))

    app = typer.Typer()
    app.command()(section_flags(command))
    assert CliRunner().invoke(app, ["--name", "x", "--seed", "3"]).exit_code in (0, 2)
    assert CliRunner().invoke(app, ["x", "--seed", "3"]).exit_code in (0, 2)
    assert seen == [("x", 3)]


@pytest.mark.parametrize("given", [[], [0.5, 0.75]])
def test_an_optional_list_is_a_flag_to_be_repeated(given):
    seen = []

    @section_flags
    def command(prune: PruneConfig):
        seen.append(prune.randomized.step_sparsities)

    app = typer.Typer()
    app.command()(command)
    arguments = [part for value in given for part in ("--step-sparsities", str(value))]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert seen == [given or None]
