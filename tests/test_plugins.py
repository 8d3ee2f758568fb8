"""A package registers an algorithm, an attack and a runtime; commands and recipes take them by name."""

import json
import os
import subprocess
import sys

import extras
import pytest
import torch
from broken_artifacts import LENGTH
from project import ROOT

import cli
from compressor.config.recipe import Recipe, dump_recipe, load_recipe
from compressor.errors import UserError
from compressor.models.classifier import encoder_weights, load_classifier
from compressor.models.manifest import MANIFEST
from compressor.models.reuse import predictor_content
from compressor.models.runtimes import RUNTIMES, load_predictor, loader_of, runtime_named
from compressor.options import (
    ALGORITHM_REGISTRY,
    ATTACK_REGISTRY,
    ATTACKS,
    RUNTIME_REGISTRY,
    Attack,
    AttackConfig,
    PruneConfig,
    RunConfig,
    attack_named,
)
from compressor.pipeline.folder import RunFolder
from compressor.pipeline.keys import stages_of
from compressor.pruning.interface import ALGORITHMS, algorithm_named
from compressor.system.code_version import plugin_version
from compressor.system.files import read_json

HERE = ["--device", "cpu", "--threads", "1"]
REST = ["--max-length", str(LENGTH), *HERE]


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on `sys.path` with the package of the page in it."""
    folder = tmp_path / "site"
    extras.install(folder)
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == extras.PACKAGE]:
        del sys.modules[name]


def refusal(capsys, *arguments):
    assert cli.execute(list(arguments)) == 2
    return capsys.readouterr().err


def test_what_is_built_in_is_registered_and_nothing_else():
    assert set(ALGORITHMS) == set(ALGORITHM_REGISTRY.built_in)
    assert set(ATTACKS) == set(ATTACK_REGISTRY.built_in)
    assert set(RUNTIMES) == set(RUNTIME_REGISTRY.built_in)
    assert [algorithm_named(name).needs_labels for name in ("adaptive", "randomized", "wanda")] == [
        False, True, False,
    ]  # fmt: skip


def test_help_names_what_packages_register_and_imports_none_of_it(site):
    script = (
        "import cli, sys\n"
        "for command in ('prune', 'attack', 'export'):\n"
        "    cli.execute([command, '--help'])\n"
        f"assert not {{'torch', 'textattack', '{extras.PACKAGE}'}} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": f"{site}:{ROOT}", "COLUMNS": "250"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for names in ("sparsegpt|energy|tempered", "checklist|swaps", "onnxruntime|openvino|one-by-one"):
        assert names in done.stdout


def test_a_registered_name_is_in_the_schema(site):
    properties = {name: part["properties"] for name, part in Recipe.model_json_schema()["$defs"].items()}
    assert "tempered" in properties["PruneConfig"]["algorithm"]["enum"]
    assert "swaps" in properties["AttackConfig"]["attack"]["anyOf"][0]["enum"]
    assert "one-by-one" in properties["ExportConfig"]["runtime"]["enum"]


def test_a_scoring_function_prunes_by_its_scores(site, made, tmp_path):
    """Wanda's squared scores have Wanda's order; with the exponents 1 and 0 so have the tempered ones."""
    given = ["--calibration", str(made / "data.tsv"), *REST]
    masks = {}
    for name, *options in (
        ("wanda",), ("energy",), ("tempered", "exponent=1"), ("tempered", "exponent=0"), ("magnitude",)
    ):  # fmt: skip
        output = tmp_path / "-".join([name, *options])
        flags = [flag for option in options for flag in ("--algorithm-options", option)]
        command = ["prune", str(made / "dense"), "--algorithm", name, "--scope", "row", *flags, *given]
        assert cli.execute([*command, "--output", str(output)]) == 0
        weights = encoder_weights(load_classifier(str(output)).model)
        masks[output.name] = {layer: weight != 0 for layer, weight in weights.items()}
    assert read_json(tmp_path / "tempered-exponent=1" / "pruning.json")["options"]["algorithm_options"] == {
        "exponent": 1.0
    }
    for one, other in (
        ("energy", "wanda"), ("tempered-exponent=1", "wanda"), ("tempered-exponent=0", "magnitude")
    ):  # fmt: skip
        assert all(torch.equal(mask, masks[other][layer]) for layer, mask in masks[one].items()), one


def test_commands_take_all_three(site, made, tmp_path, capsys):
    artifact, attack = tmp_path / "artifact", tmp_path / "attack"
    data = ["--data", str(made / "data.tsv"), *REST]
    export = ["export", str(made / "dense"), *data, "--runtime", "one-by-one", "--output", str(artifact)]
    assert cli.execute(export) == 0
    assert json.loads((artifact / MANIFEST).read_text())["runtime"] == "one-by-one"
    predictor = load_predictor(str(artifact), RunConfig(device="cpu", threads=1), LENGTH)
    assert type(predictor) is runtime_named("one-by-one")
    assert type(loader_of(str(artifact), RunConfig(device="cpu", threads=1))()) is type(predictor)
    command = ["attack", str(artifact), "--attack", "swaps", "--attack-examples", "8", *data]
    assert cli.execute([*command, "--output", str(attack)]) == 0
    record = read_json(attack / "robustness.json")
    assert record["options"]["attack_options"] == {"keep_first": True}
    assert record["resources"] == {}
    assert record["queries_per_example"] > 2
    capsys.readouterr()


def recipe_text(made):
    return dump_recipe(
        Recipe.model_validate(
            {
                "model": str(made / "dense"),
                "data": {
                    "calibration": str(made / "data.tsv"),
                    "test": str(made / "data.tsv"),
                    "max_length": LENGTH,
                    "allow_test_texts": True,
                },
                "run": {"device": "cpu", "threads": 1},
                "prune": {"algorithm": "tempered", "algorithm_options": {"exponent": 0.25}},
                "attack": {"attack": "swaps", "attack_examples": 2},
                "export": {"runtime": "one-by-one"},
                "validate": {
                    "sequence_lengths": [LENGTH],
                    "batch_sizes": [1],
                    "latency_rounds": 3,
                    "footprint": False,
                    "gates": ["sparsity >= 0.4"],
                },
            }
        )
    )


def test_a_recipe_takes_all_three_and_another_version_of_the_package_makes_its_stages_again(
    site, made, tmp_path, capsys
):
    path, output = tmp_path / "recipe.yaml", tmp_path / "run"
    path.write_text(recipe_text(made))
    assert cli.execute(["run", str(path), "--output", str(output)]) == 0, capsys.readouterr().err
    assert read_json(output / "pruned" / "pruning.json")["algorithm"] == "tempered"
    assert read_json(output / "artifact" / MANIFEST)["runtime"] == "one-by-one"
    assert read_json(output / "attack" / "artifact" / "robustness.json")["options"]["attack"] == "swaps"
    recipe = load_recipe(path)

    def reasons():
        return {
            step.stage.name: "; ".join(step.reasons)
            for step in RunFolder(output).plan(stages_of(recipe, "classification"))
        }

    assert not any(reasons().values())
    with (site / extras.PACKAGE / "pruning.py").open("a") as module:
        module.write("\n# Another version.\n")
    found = reasons()
    assert found["prune"] == "the code of the package that registers prune.algorithm changed"
    assert found["attack dense"] == "the code of the package that registers attack.attack changed"
    assert "registers export.runtime changed" in found["export"]


def test_the_runtime_decides_what_an_artifact_answers(site, artifact):
    before = predictor_content(str(artifact))
    manifest = json.loads((artifact / MANIFEST).read_text())
    (artifact / MANIFEST).write_text(json.dumps({**manifest, "runtime": "one-by-one"}))
    registered = predictor_content(str(artifact))
    (site / extras.PACKAGE / "runtimes.py").write_text("# Another version.\n")
    assert len({before, registered, predictor_content(str(artifact))}) == 3
    del manifest["runtime"]
    (artifact / MANIFEST).write_text(json.dumps(manifest))
    assert predictor_content(str(artifact)) == before


@pytest.mark.parametrize(
    ("name", "part"),
    [("gone", "runtime: 'gone' is not registered; did you mean"), (3, "runtime: is 3, not a name")],
)
def test_an_artifact_of_a_runtime_that_is_not_there_says_so(artifact, made, name, part, capsys, site):
    extras.register(site, "other", {"compress.runtimes": {"gone-by": "other:x"}})
    manifest = json.loads((artifact / MANIFEST).read_text())
    (artifact / MANIFEST).write_text(json.dumps({**manifest, "runtime": name}))
    arguments = ["attack", str(artifact), "--data", str(made / "data.tsv"), *REST]
    error = refusal(capsys, *arguments, "--output", str(artifact.with_name("out")))
    assert f"{artifact / MANIFEST}: {part}" in error


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (
            ["--algorithm", "temperd"],
            "--algorithm: 'temperd' is not registered; did you mean 'tempered'? known",
        ),
        (["--algorithm", "tempered", "--algorithm-options", "exponent=3"], "exponent: input should be less"),
        (["--algorithm", "tempered", "--algorithm-options", "expnent=1"], "did you mean 'exponent'?"),
        (["--algorithm", "energy", "--algorithm-options", "exponent=1"], "energy has no such options"),
        (["--algorithm", "tempered", "--algorithm-options", "exponent=[1"], "is no JSON"),
    ],
)
def test_a_wrong_name_or_option_is_refused_with_the_way_out(site, made, tmp_path, capsys, flags, part):
    arguments = ["prune", str(made / "dense"), "--calibration", str(made / "data.tsv"), *flags, *REST]
    error = refusal(capsys, *arguments, "--output", str(tmp_path / "out"))
    assert part in error
    assert error.count("\n") == 1


def test_a_wrong_option_in_a_recipe_is_named_with_its_line(site, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "model: m\ndata: {calibration: c, test: t}\nprune:\n  algorithm: tempered\n"
        "  algorithm_options:\n    exponent: 3\n"
    )
    with pytest.raises(UserError) as caught:
        load_recipe(path)
    assert str(caught.value) == (
        f"{path}:5: prune.algorithm_options: exponent: input should be less than or equal to 2, not 3"
    )


def broken(site, monkeypatch, groups, text=""):
    """Put a package with one module, `others`, beside the page's."""
    folder = site.with_name("broken")
    extras.register(folder, "others", groups)
    (folder / "others.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "others", raising=False)


def test_a_name_that_two_register_is_refused(site, monkeypatch):
    broken(site, monkeypatch, {"compress.algorithms": {"energy": "others:x", "wanda": "others:x"}})
    for name, owners in (("energy", "compress-extras 1.0"), ("wanda", "compress")):
        with pytest.raises(UserError, match="is registered by") as caught:
            algorithm_named(name)
        assert owners in str(caught.value)
        assert "others 1.0" in str(caught.value)
    assert algorithm_named("magnitude")


@pytest.mark.parametrize(
    ("group", "find"),
    [
        ("compress.algorithms", algorithm_named),
        ("compress.attacks", attack_named),
        ("compress.runtimes", runtime_named),
    ],
)
def test_an_object_of_another_kind_is_refused(site, monkeypatch, group, find):
    entries = {"number": "others:NUMBER", "absent": "others:ABSENT"}
    broken(site, monkeypatch, {group: entries}, "NUMBER = 3\n")
    with pytest.raises(UserError, match=r"'number', others:NUMBER of others 1\.0"):
        find("number")
    with pytest.raises(UserError, match=r"'absent' cannot be loaded from others:ABSENT of others 1\.0: Attr"):
        find("absent")


def test_a_module_that_cannot_be_imported_is_an_error_of_one_line(site, monkeypatch):
    entries = {"compress.algorithms": {"odd": "others:x"}, "compress.attacks": {"odd": "others:x"}}
    broken(site, monkeypatch, entries, "raise SystemError('no\\nway')\n")
    for config in (PruneConfig, AttackConfig):
        key = "algorithm" if config is PruneConfig else "attack"
        with pytest.raises(ValueError, match=r"loaded from others:x of others 1\.0: SystemError: no"):
            config(**{key: "odd"})


def test_an_attack_needs_what_there_is():
    with pytest.raises(ValueError, match="needs thesaurus; there are masked_language_model"):
        Attack("a:b", needs=frozenset({"thesaurus"}))


def test_the_place_of_a_package_does_not_decide(site, tmp_path, monkeypatch):
    before = plugin_version(ALGORITHM_REGISTRY.entry_point("energy"))
    assert before["package"] == "compress-extras 1.0"
    other = tmp_path / "moved"
    extras.install(other)
    monkeypatch.syspath_prepend(other)
    sys.modules.pop(extras.PACKAGE, None)
    assert plugin_version(ALGORITHM_REGISTRY.entry_point("energy")) == before
