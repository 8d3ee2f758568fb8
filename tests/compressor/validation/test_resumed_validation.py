"""A validation that is stopped keeps its attacks, and ends as one in one piece."""

import json

import pytest
from stopping import StopBefore, StoppedError

from compressor.attacks.attacker import Attacker
from compressor.errors import UserError
from compressor.options import AttackConfig, ColumnsConfig, RunConfig, ValidateConfig
from compressor.system.checkpoint import Checkpoint, checkpoint_folder
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from compressor.validation.schema import Report
from compressor.validation.stage import ValidationJob, validate_directories

EXAMPLES = 3
VARIANTS = ("dense", "pruned", "artifact")


@pytest.fixture(scope="module")
def validated(small_classifier_dir, small_pruned_dir, small_artifact_dir, critic_quotes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    lines = (critic_quotes / "test.tsv").read_text(encoding="utf-8").splitlines()
    (folder / "test.tsv").write_text("\n".join(lines[:21]) + "\n", encoding="utf-8")

    def validate(output, progress=None, *, attack=None, gates=(), data=None, allow=False, **options):
        measured = ValidateConfig(
            batch_sizes=[1], sequence_lengths=[8], latency_rounds=3, footprint=False, gates=list(gates)
        )
        job = ValidationJob(
            dense=str(small_classifier_dir),
            artifact=small_artifact_dir,
            pruned=small_pruned_dir,
            data=str(data or folder / "test.tsv"),
            config=measured,
            attack=attack or AttackConfig(attack_examples=EXAMPLES),
            allow_test_texts=allow,
        )
        context = Context(
            output=output,
            columns=ColumnsConfig(max_length=48),
            run=RunConfig(device="cpu", threads=2),
            progress=progress or SilentProgress(),
            **options,
        )
        return validate_directories(job, context)

    return validate


def timeless(path):
    """The files of an attack without the seconds of its examples."""
    examples = [json.loads(line) for line in (path / "examples.jsonl").read_text().splitlines()]
    return [example | {"seconds": 0} for example in examples], (path / "robustness.json").read_text()


def test_a_stopped_validation_goes_on_after_its_last_attacked_example(validated, tmp_path, monkeypatch):
    whole = validated(tmp_path / "whole")
    output = tmp_path / "out"
    with pytest.raises(StoppedError):
        validated(output, StopBefore(1, "deepwordbug on artifact"))
    assert not output.exists()
    # As where an attack was stopped when its result was in place and its progress still there.
    Checkpoint(checkpoint_folder(output) / "attack.stages" / "dense.progress", {}).open()
    with pytest.raises(UserError, match=r"attack\.attack_examples changed from 3 to 2.*--force"):
        validated(output, attack=AttackConfig(attack_examples=2))
    done, own = [], Attacker.attack

    def counted(self, index, *example):
        done.append(index)
        return own(self, index, *example)

    monkeypatch.setattr(Attacker, "attack", counted)
    # Gates decide no attack.
    report = validated(output, gates=["accuracy_drop <= 0.9"])
    assert done == list(range(1, EXAMPLES))
    assert report.environment["test_texts_in"] == {"train": 0, "calibration": 0}
    for name in VARIANTS:
        assert getattr(report.variants, name).robustness == getattr(whole.variants, name).robustness
        assert timeless(output / "attack" / name) == timeless(tmp_path / "whole" / "attack" / name)
    assert not checkpoint_folder(output).exists()
    assert {path.name for path in output.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}
    assert sorted(path.name for path in (output / "attack").iterdir()) == sorted(VARIANTS)


def test_several_attacks_are_kept_and_judged_each_and_together(validated, tmp_path, monkeypatch):
    attack = AttackConfig(attack="deepwordbug,pruthi", attack_examples=EXAMPLES)
    gates = ["accuracy_under_all_attacks_drop <= 1", "accuracy_under_attack[pruthi] >= 0"]
    with pytest.raises(StoppedError):
        validated(tmp_path / "out", StopBefore(1, "pruthi on artifact"), attack=attack)
    done, own = [], Attacker.attack

    def counted(self, index, *example):
        done.append(index)
        return own(self, index, *example)

    monkeypatch.setattr(Attacker, "attack", counted)
    report = validated(tmp_path / "out", attack=attack, gates=gates)
    assert done == list(range(1, EXAMPLES))
    assert report.environment["attack"]["attack"] == "deepwordbug,pruthi"
    for name in VARIANTS:
        figures, folder = getattr(report.variants, name), tmp_path / "out" / "attack" / name
        assert [one.robustness.attack for one in figures.attacks] == ["deepwordbug", "pruthi"]
        held = [
            [example["outcome"] == "failed" for example in timeless(folder / one.robustness.attack)[0]]
            for one in figures.attacks
        ]
        assert [one.robustness.accuracy_under_attack for one in figures.attacks] == [
            sum(h) / EXAMPLES for h in held
        ]
        assert figures.robustness.accuracy_under_attack == sum(map(all, zip(*held, strict=True))) / EXAMPLES
        assert (figures.against_dense is None) == (name == "dense")
        assert all((one.against_dense is None) == (name == "dense") for one in figures.attacks)
    assert [(gate.metric, gate.place) for gate in report.gates] == [
        ("accuracy_under_all_attacks_drop", None),
        ("accuracy_under_attack", "pruthi"),
    ]
    assert report == Report.model_validate_json((tmp_path / "out" / "report.json").read_text())
    assert "Under pruthi" in (tmp_path / "out" / "report.html").read_text()
    assert not checkpoint_folder(tmp_path / "out").exists()


def test_texts_that_a_model_was_pruned_with_are_refused_before_anything_is_measured(
    validated, critic_quotes, tmp_path
):
    with pytest.raises(UserError, match=r"small\.tsv: .*pruning\.json.*--allow-test-texts"):
        validated(tmp_path / "out", data=critic_quotes / "small.tsv")
    with pytest.raises(StoppedError):
        validated(tmp_path / "out", StopBefore(0, "Answers"), data=critic_quotes / "small.tsv", allow=True)
    assert not (tmp_path / "out").exists()
