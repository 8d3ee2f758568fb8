"""Finding a family's layout: those of the program, those of installed packages, and what is neither."""

import subprocess
import sys

import pytest
from other_family import OTHER, install_family

from compressor.errors import UserError
from compressor.models.checks import key_problems
from compressor.models.encoders.bert import BERT
from compressor.models.encoders.registry import find_layout, known_layouts, layout_of_type
from compressor.system.code_version import sources_of


def test_a_family_of_the_program_is_found():
    assert find_layout("bert") is BERT
    assert known_layouts() == [BERT]


@pytest.mark.parametrize("model_type", ["roberta", "", None, 5, ["bert"]])
def test_an_unknown_family_is_refused_and_the_known_ones_are_named(model_type):
    assert find_layout(model_type) is None
    with pytest.raises(UserError, match=r"only BERT models can be used$"):
        layout_of_type(model_type)


def test_a_family_of_an_installed_package_is_found_and_named(monkeypatch):
    install_family(monkeypatch)
    assert layout_of_type("other") is OTHER
    assert known_layouts() == [BERT, OTHER]
    assert key_problems({"model_type": "roberta"}) == [
        "is a roberta model; only BERT and other models can be used (config.json: model_type)"
    ]
    [problem] = key_problems({})
    assert problem.endswith(
        'add "model_type": "bert" if it is a BERT model or "model_type": "other" if it is of that family'
    )


def test_an_installed_package_does_not_replace_a_family_of_the_program(monkeypatch):
    install_family(monkeypatch, ("bert", "other_family:OTHER"))
    assert find_layout("bert") is BERT
    assert known_layouts() == [BERT]


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
    with pytest.raises(UserError, match="only BERT and broken models"):
        layout_of_type("roberta")


def test_a_stage_depends_on_the_layouts_of_the_program():
    assert "compressor/models/encoders/bert.py" in sources_of("compressor.pruning.interface")


def test_layouts_are_found_without_pytorch_or_transformers():
    code = (
        "import sys; from compressor.models.encoders.registry import layout_of_type; layout_of_type('bert'); "
        "sys.exit(', '.join({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stderr.strip() == ""
