"""The stages as functions: the same results as the commands, and nothing else changed in the program."""

import inspect
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from project import ROOT
from transformers import AutoTokenizer, BertForSequenceClassification
from transformers.utils import logging as transformers_logging

import cli
import compressor
from compressor import api
from compressor.errors import UserError
from compressor.models.classifier import encoder_linears, load_classifier, weights_fingerprint
from compressor.options import PruneConfig, ValidateConfig
from compressor.options.keywords import options_of
from compressor.system.console import SilentProgress

LENGTH = 48
RUN = {"max_length": LENGTH, "device": "cpu", "threads": 2}
PRUNE = {"sparsity": 0.5, "calibration_examples": 32, "iterations": 3} | RUN
ATTACK = {"attack": "deepwordbug", "attack_examples": 6} | RUN
VALIDATE = {"latency_rounds": 3, "batch_sizes": [1], "sequence_lengths": [16], "footprint": False} | ATTACK
GATES = ["accuracy_drop <= 1", "warn: sparsity >= 0.9"]


def command(*arguments):
    """Run a command and return the object that it prints with `--json`."""
    done = subprocess.run(
        [sys.executable, "-m", "cli", *map(str, arguments), "--json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def flags(options):
    """The same options as a command takes them."""
    pairs = [(name, value) for name, value in options.items() if not isinstance(value, bool | list)]
    return [part for name, value in pairs for part in (f"--{name.replace('_', '-')}", str(value))]


def state():
    """What of this process the program that calls may rely on."""
    return (
        torch.get_num_threads(),
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
        random.getstate(),
        transformers_logging.is_progress_bar_enabled(),
    )


@pytest.fixture(scope="module")
def lines(critic_quotes, small_classifier_dir, tmp_path_factory):
    """The folder and the results of the lines that the README shows, and the state before and after them."""
    folder = tmp_path_factory.mktemp("api")
    dense, test = small_classifier_dir, critic_quotes / "test.tsv"
    before = state()
    pruned = compressor.prune(
        dense, calibration=critic_quotes / "small.tsv", output=folder / "pruned", **PRUNE
    )
    artifact = compressor.export(pruned, output=str(folder / "artifact"), parity_examples=20, **RUN)
    attack = compressor.attack(artifact, data=str(test), output=folder / "attack", **ATTACK)
    report = compressor.validate(
        str(dense), artifact, data=test, gates=GATES, output=folder / "report", **VALIDATE
    )
    return folder, pruned, artifact, attack, report, before, state()


def test_the_lines_make_what_they_name(lines):
    folder, pruned, artifact, attack, report, *_ = lines
    assert [Path(result) for result in (pruned, artifact, attack, report)] == [
        folder / name for name in ("pruned", "artifact", "attack", "report")
    ]
    assert (pruned.sparsity, len(pruned.layers)) == (0.5, 12)
    assert pruned.layers[0].name == "bert.encoder.layer.0.attention.self.query"
    assert attack.examples == 6
    assert attack.accuracy_under_attack_interval.low <= attack.accuracy_under_attack
    assert report.verdict == "pass"
    assert [gate.status for gate in report.gates] == ["pass", "warn"]
    assert report.path == folder / "report"


def test_a_record_holds_what_the_stage_wrote(lines):
    folder, pruned, artifact, attack, report, *_ = lines
    for record, file in (
        (pruned, "pruned/pruning.json"), (artifact, "artifact/manifest.json"),
        (attack, "attack/robustness.json"), (report, "report/report.json"),
    ):  # fmt: skip
        written = json.loads((folder / file).read_text())
        facts = json.loads(json.dumps(record.model_dump()))
        assert {name: facts[name] for name in written} == written
        assert set(facts) - set(written) <= {"path", "sha256"}


def test_the_calling_program_is_as_before(lines):
    *_, before, after = lines
    assert after == before


def test_the_command_writes_the_same_weights_and_prints_the_same_facts(
    lines, small_classifier_dir, critic_quotes, tmp_path
):
    pruned = lines[1]
    data = ["--calibration", critic_quotes / "small.tsv", "--output", tmp_path / "out"]
    printed = command("prune", small_classifier_dir, *data, *flags(PRUNE))
    assert weights_fingerprint(str(tmp_path / "out")) == pruned.sha256
    facts = pruned.model_dump()
    assert list(printed) == list(facts)
    same = set(facts) - {"path", "seconds", "environment"}
    assert {name: printed[name] for name in same} == json.loads(
        json.dumps({name: facts[name] for name in same})
    )


def test_the_command_attacks_alike(lines, critic_quotes, tmp_path):
    artifact, attack = lines[2], lines[3]
    data = ["--data", critic_quotes / "test.tsv", "--output", tmp_path / "out"]
    printed = command("attack", artifact.path, *data, *flags(ATTACK))
    facts = json.loads(json.dumps(attack.model_dump()))
    assert list(printed) == list(facts)
    assert printed["accuracy_under_attack"] == facts["accuracy_under_attack"]
    assert printed["queries_per_example"] == facts["queries_per_example"]


def test_inspect_and_verify_tell_what_the_commands_print(lines, tmp_path):
    pruned, artifact = lines[1], lines[2]
    assert command("inspect", pruned.path) == json.loads(json.dumps(compressor.inspect(pruned).model_dump()))
    checked = compressor.verify(artifact)
    assert command("verify", artifact.path) == checked.model_dump() == {"ok": True, "problems": []}
    assert checked.path == artifact.path


def test_a_changed_file_is_told_and_no_error(artifact):
    (artifact / "config.json").write_text("{}")
    checked = compressor.verify(artifact)
    assert not checked.ok
    assert len(checked.problems) == 1


def test_a_classifier_is_packed_and_restored(lines, tmp_path):
    pruned = lines[1]
    packed = compressor.pack(pruned, output=tmp_path / "packed")
    restored = compressor.unpack(packed, output=tmp_path / "restored")
    assert weights_fingerprint(str(restored.path)) == pruned.sha256


def test_perturb_takes_an_earlier_result_to_compare_with(lines, critic_quotes, tmp_path):
    options = {"perturbed_examples": 10, "perturbations": ["typos"]} | RUN
    data = critic_quotes / "test.tsv"
    first = compressor.perturb(lines[1], data=data, output=tmp_path / "first", **options)
    second = compressor.perturb(lines[2], data=data, output=tmp_path / "second", against=first, **options)
    assert second.against["model"] == first.model == str(lines[1].path)
    assert second.perturbations[0].kind == "clean"


def test_finetune_makes_a_classifier(small_encoder_dir, critic_quotes, tmp_path):
    record = compressor.finetune(
        small_encoder_dir, data=critic_quotes / "test.tsv", output=tmp_path / "dense", epochs=1, **RUN
    )
    assert record.labels == ["fresh", "rotten"]
    assert record.sha256 == weights_fingerprint(str(tmp_path / "dense"))


def test_a_broken_gate_is_a_verdict(lines, small_classifier_dir, critic_quotes, tmp_path):
    report = compressor.validate(
        small_classifier_dir,
        lines[2],
        data=critic_quotes / "test.tsv",
        output=tmp_path / "report",
        gates=["sparsity >= 0.9"],
        **VALIDATE,
    )
    assert report.verdict == "fail"


# in memory -------------------------------------------------------------------------------------------


@pytest.fixture
def dense(small_classifier_dir):
    return BertForSequenceClassification.from_pretrained(small_classifier_dir)


@pytest.fixture
def tokenizer(small_classifier_dir):
    return AutoTokenizer.from_pretrained(small_classifier_dir)


IN_MEMORY = {name: value for name, value in PRUNE.items() if name != "device"}


def test_a_model_in_memory_gets_the_weights_of_the_command(
    lines, dense, tokenizer, quotes, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    weights = {name: value.clone() for name, value in dense.state_dict().items()}
    before = state()
    pruned = compressor.prune_model(dense, tokenizer, quotes.texts, **IN_MEMORY)
    assert state() == before
    assert not list(tmp_path.iterdir())
    expected = load_classifier(str(lines[1].path)).model.state_dict()
    assert pruned.model.state_dict().keys() == expected.keys()
    for name, value in pruned.model.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert pruned.sparsity == 0.5
    assert [layer.name for layer in pruned.layers] == [layer.name for layer in lines[1].layers]
    for name, linear in encoder_linears(pruned.model).items():
        assert not linear.weight[~pruned.masks[name]].any()
    assert all(torch.equal(value, weights[name]) for name, value in dense.state_dict().items())


def test_a_training_model_is_left_in_training(dense, tokenizer, quotes):
    dense.train()
    pruned = compressor.prune_model(dense, tokenizer, quotes.texts, algorithm="magnitude", threads=2)
    assert dense.training
    assert not pruned.model.training


def test_structure_is_taken_out_of_the_copy(dense, tokenizer, quotes):
    pruned = compressor.prune_model(
        dense, tokenizer, quotes.texts, algorithm="magnitude", pattern="structured", threads=2
    )
    assert pruned.masks == {}
    assert pruned.model.num_parameters() < dense.num_parameters()


def test_labels_are_names_or_indices(dense, tokenizer, quotes):
    options = {"algorithm": "randomized", "steps": 1, "candidates": 1, "early_steps": 0, "recovery_steps": 1}
    texts, labels = quotes.texts[:40], quotes.labels[:40]
    names = [quotes.label_names[label] for label in labels]
    given = (dense, tokenizer, texts)
    options |= {"holdout_examples": 8, "threads": 2}
    first = compressor.prune_model(*given, labels=labels, **options)
    second = compressor.prune_model(*given, labels=names, **options)
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"labels": [0]}, "texts: 2 examples, and 1 of label; give one to each"),
        ({"algorithm": "randomized"}, "labels: algorithm randomized needs them; give"),
        ({"texts": ["a", " "]}, "texts: row 2: column 'text'"),
        ({"texts": []}, "texts: is empty"),
        ({"max_length": 4000}, "model: max_length 4000: the model takes 512 tokens at most"),
        ({"device": "cpu"}, "device: unknown option of compressor.prune_model"),
    ],
)
def test_bad_input_in_memory_is_named(dense, tokenizer, given, line):
    texts = given.pop("texts", ["a fine film", "a dull one"])
    with pytest.raises(UserError) as caught:
        compressor.prune_model(dense, tokenizer, texts, **given)
    assert str(caught.value).startswith(line)


def test_another_kind_of_model_is_refused(dense, tokenizer):
    with pytest.raises(UserError, match=r"model: is a BertModel, not a BertForSequenceClassification"):
        compressor.prune_model(dense.bert, tokenizer, ["a fine film"])


# names and options -----------------------------------------------------------------------------------


def test_the_package_has_the_names_of_the_api_and_no_other():
    assert set(compressor.__all__) == {*api.__all__, "__version__"}
    assert set(compressor.__all__) <= set(dir(compressor))
    assert all(getattr(compressor, name) is getattr(api, name) for name in api.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'prun'"):
        _ = compressor.prun


@pytest.mark.parametrize(
    ("line", "light"), [("import compressor", True), ("from compressor import *", False)]
)
def test_the_package_imports_nothing_heavy(line, light):
    heavy = {"torch", "transformers", "onnx", "onnxruntime", "numpy", "pyarrow"}
    heavy |= {"pydantic", "rich"} if light else set()
    script = f"{line}\nimport sys\nprint(*{heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    "name",
    [
        "finetune",
        "soup",
        "prune",
        "vocabulary",
        "latency_table",
        "attack",
        "perturb",
        "export",
        "validate",
        "inspect",
    ],
)
def test_a_function_has_the_options_of_its_command(name):
    parameters = cli.COMMANDS[name.replace("_", "-")].function().__signature__.parameters
    own = inspect.signature(getattr(compressor, name)).parameters
    assert set(parameters) - {"as_json"} == set(own) - {"progress"}


def test_a_misspelt_option_is_named_before_anything_runs(tmp_path):
    with pytest.raises(
        UserError, match=r"sparsty: unknown option of compressor.prune; did you mean 'sparsity'"
    ):
        compressor.prune("none", calibration="none", output=tmp_path / "out", sparsty=0.5)


def test_help_lists_the_options():
    for section in (ValidateConfig,):
        for name, field, _ in options_of(section):
            assert f"    {name}: {field.description}" in compressor.validate.__doc__
    assert "sparsity" in inspect.signature(compressor.prune_model).parameters
    assert PruneConfig().sparsity is inspect.signature(compressor.prune).parameters["sparsity"].default


def test_a_given_progress_is_told(small_classifier_dir, critic_quotes, tmp_path):
    class Heard(SilentProgress):
        def __init__(self):
            self.descriptions = []

        def track(self, items, description, *rest, **options):
            self.descriptions.append(description)
            yield from super().track(items, description, *rest, **options)

    heard = Heard()
    compressor.prune(
        small_classifier_dir,
        calibration=critic_quotes / "small.tsv",
        output=tmp_path / "out",
        progress=heard,
        algorithm="wanda",
        calibration_examples=8,
        **RUN,
    )
    assert heard.descriptions
