"""Options as keywords: the fields of sections, with their defaults, bounds and descriptions."""

import inspect
from pathlib import Path

import pytest

from compressor.errors import SeveralUserErrors, UserError
from compressor.options import AttackConfig, ColumnsConfig, FinetuneConfig, PruneConfig, RunConfig
from compressor.options.keywords import KeywordOptions, options_of, sort_options

OPTIONS = KeywordOptions(PruneConfig, ColumnsConfig, RunConfig)


@OPTIONS.taken_by
def make(model, *, force=False, **options):
    """Make something."""
    return model, force, OPTIONS.sort(options)


def test_each_option_reaches_the_section_that_has_it():
    model, force, found = make("dense", force=True, sparsity=0.7, solver="greedy", max_length=64, seed=3)
    assert (model, force) == ("dense", True)
    assert found.of(PruneConfig) == PruneConfig(sparsity=0.7, adaptive={"solver": "greedy"})
    assert found.of(ColumnsConfig) == ColumnsConfig(max_length=64)
    assert found.of(RunConfig) == RunConfig(seed=3)


def test_without_options_sections_have_their_defaults():
    assert make("dense")[2].of(PruneConfig) == PruneConfig()


def test_a_path_is_taken_where_a_text_is():
    assert make("dense", substitution_vectors=Path("words.npz"))[2].of(
        PruneConfig
    ).adaptive.substitution_vectors == ("words.npz")


def test_the_signature_and_the_docstring_have_every_option():
    parameters = inspect.signature(make).parameters
    assert list(parameters)[:2] == ["model", "force"]
    fields = [entry for section in (PruneConfig, ColumnsConfig, RunConfig) for entry in options_of(section)]
    assert list(parameters)[2:] == [name for name, _, _ in fields]
    assert make.__doc__.startswith("Make something.\n\nOptions, each a keyword:\n\nPruning:\n")
    for name, field, _ in fields:
        assert parameters[name].default == field.get_default(call_default_factory=True)
        assert f"\n    {name}: {field.description}" in make.__doc__


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"sparsty": 0.5}, "sparsty: unknown option of compressor.make; did you mean 'sparsity'?"),
        ({"forc": True}, "forc: unknown option of compressor.make; did you mean 'force'?"),
        ({"qqq": 1}, "qqq: unknown option of compressor.make; help(compressor.make) lists the options"),
    ],
)
def test_an_unknown_keyword_is_an_error_with_the_nearest_known_one(given, line):
    with pytest.raises(UserError) as caught:
        make("dense", **given)
    assert str(caught.value) == line


def test_all_values_out_of_bounds_are_named_at_once():
    with pytest.raises(SeveralUserErrors) as caught:
        make("dense", sparsity=2, damping=0, seed=-1)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["damping", "sparsity", "seed"]


def test_a_person_reads_the_name_as_it_is_written():
    with pytest.raises(UserError, match=r"^<seed>: "):
        sort_options([RunConfig], {"seed": -1}, written="<{}>".format)


def test_an_option_that_is_left_out_is_unknown():
    options = KeywordOptions(RunConfig, left_out=("device",))
    taken = options.taken_by(lambda **given: options.sort(given).of(RunConfig))
    assert taken(seed=2) == RunConfig(seed=2)
    with pytest.raises(UserError, match="device: unknown option"):
        taken(device="cpu")


@pytest.mark.parametrize("sections", [(PruneConfig, FinetuneConfig), (AttackConfig, RunConfig)])
def test_two_options_of_one_name_are_refused(sections):
    def function(attack, **options):
        del attack, options

    with pytest.raises(TypeError, match="an option is defined twice"):
        KeywordOptions(*sections).taken_by(function)
