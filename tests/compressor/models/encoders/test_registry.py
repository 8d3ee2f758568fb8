"""Finding a family's layout: those of the program, those of installed packages, and what is neither."""

import subprocess
import sys

import pytest
from other_family import OTHER, install_family

from compressor.errors import UserError
from compressor.models.checks import key_problems
from compressor.models.encoders.bert import BERT
from compressor.models.encoders.registry import BUILT_IN, find_layout, known_layouts, layout_of_type
from compressor.system.code_version import sources_of

TITLES = ", ".join(layout.title for layout in known_layouts())


@pytest.mark.parametrize("model_type", BUILT_IN)
def test_a_family_of_the_program_is_found(model_type):
    layout = find_layout(model_type)
    assert layout is layout_of_type(model_type)
    assert layout.model_type == layout.config_of({}).model_type == model_type


def test_families_of_the_program_are_known_in_their_order():
    assert [layout.model_type for layout in known_layouts()] == list(BUILT_IN)
    assert known_layouts()[0] is BERT


@pytest.mark.parametrize("model_type", ["xlnet", "", None, 5, ["bert"]])
def test_an_unknown_family_is_refused_and_the_known_ones_are_named(model_type):
    assert find_layout(model_type) is None
    known = " and ".join(TITLES.rsplit(", ", 1))
    with pytest.raises(UserError, match=rf"only {known} models can be used$"):
        layout_of_type(model_type)


def test_a_family_of_an_installed_package_is_found_and_named(monkeypatch):
    install_family(monkeypatch)
    assert layout_of_type("other") is OTHER
    assert known_layouts() == [*map(layout_of_type, BUILT_IN), OTHER]
    assert key_problems({"model_type": "xlnet"}) == [
        f"is a xlnet model; only {TITLES} and other models can be used (config.json: model_type)"
    ]
    [problem] = key_problems({})
    assert problem.endswith(' or "other"')


def test_an_installed_package_does_not_replace_a_family_of_the_program(monkeypatch):
    install_family(monkeypatch, ("bert", "other_family:OTHER"))
    assert find_layout("bert") is BERT
    assert OTHER not in known_layouts()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_module:LAYOUT", r"no_such_module:LAYOUT cannot be imported: .*No module named"),
        ("other_family:MISSING", r"other_family:MISSING cannot be imported"),
        ("json:loads", "json:loads is no EncoderLayout"),
    ],
)
def test_an_installed_package_that_is_broken_is_named(monkeypatch, value, message):
    install_family(monkeypatch, ("broken", value))
    with pytest.raises(UserError, match=rf"entry point compress\.encoders: broken: {message}.*uninstall"):
        layout_of_type("broken")
    with pytest.raises(UserError, match=r"only BERT, .* and broken models"):
        layout_of_type("xlnet")


def test_a_stage_depends_on_the_layouts_of_the_program():
    assert "compressor/models/encoders/bert.py" in sources_of("compressor.pruning.interface")


def test_layouts_are_found_without_pytorch_or_transformers():
    code = (
        "import sys; from compressor.models.encoders.registry import layout_of_type; layout_of_type('bert'); "
        "sys.exit(', '.join({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stderr.strip() == ""
