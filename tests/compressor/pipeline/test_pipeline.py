"""The whole run on a small real model: every stage, the report, the gates, going on after a stop."""

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
from stand_ins import OneThread
from stopping import StopBefore, StoppedError

import compressor.pipeline.run as pipeline
import compressor.pipeline.stage_runs as stage_runs
from compressor.attacks import runner as robustness
from compressor.config.recipe import Recipe, load_recipe
from compressor.errors import UserError
from compressor.models.classifier import load_classifier
from compressor.options import (
    ATTACKS,
    AttackConfig,
    DataConfig,
    ExportConfig,
    FinetuneConfig,
    PruneConfig,
    RunConfig,
    SoupConfig,
    ValidateConfig,
)
from compressor.pipeline.dry_run import dry_run, in_words
from compressor.pipeline.quickstart import search_recipe
from compressor.pipeline.run import check_recipe, run_context, run_recipe
from compressor.pipeline.stage_runs import train_dense
from compressor.system.console import SilentProgress
from compressor.system.files import MARKER, read_json
from compressor.training import checkpoint as training_checkpoint
from compressor.training.checkpoint import TrainingCheckpoint
from compressor.validation.gates.baseline import check_measured
from compressor.validation.gates.gates import parse_gates
from compressor.validation.schema import Report

# What is in any run's folder.
OF_A_RUN = {MARKER, "recipe.yaml", "stages.json"}
DRAWN_AND_CHOSEN = {"substitution_choice": "gradient", "substitution_draws": 4}


@pytest.fixture(scope="module")
def recipe(critic_quotes, small_classifier_dir) -> Recipe:
    calibration, test = (str(critic_quotes / name) for name in ("small.tsv", "test.tsv"))
    return Recipe(
        model=str(small_classifier_dir),
        data=DataConfig(calibration=calibration, test=test, max_length=48),
        run=RunConfig(threads=2),
        prune=PruneConfig(calibration_examples=64),
        attack=AttackConfig(attack_examples=12),
        export=ExportConfig(parity_examples=40),
        validate=ValidateConfig(batch_sizes=[1, 2], sequence_lengths=[16], latency_rounds=3, footprint=False),
    )


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory) -> tuple[Path, Report]:
    output = tmp_path_factory.mktemp("run") / "out"
    return output, run_recipe(recipe, output, force=False, progress=SilentProgress())


def test_a_recipe_may_make_its_dense_model_as_a_soup(recipe, small_encoder_dir, critic_quotes, tmp_path):
    soup = SoupConfig(
        runs=2,
        learning_rates=[1e-3],
        epoch_counts=[1],
        adversarial_step_counts=[0],
        substituted_shares=[0.0],
        holdout_examples=40,
        attack=AttackConfig(attack_examples=4, query_budget=20),
    )
    train = recipe.data.model_copy(update={"train": str(critic_quotes / "small.tsv")})
    changes = {"model": str(small_encoder_dir), "data": train, "soup": soup}
    souped = recipe.model_copy(update=changes)
    train_dense(souped, run_context(souped, tmp_path / "dense", SilentProgress()))
    assert read_json(tmp_path / "dense" / "soup.json")["options"]["runs"] == 2
    assert load_classifier(str(tmp_path / "dense")).label_names == ["fresh", "rotten"]


def test_a_fine_tuning_that_was_stopped_goes_on(
    recipe, small_encoder_dir, critic_quotes, tmp_path, monkeypatch
):
    lines = (critic_quotes / "small.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    train = tmp_path / "train.tsv"
    train.write_text("".join(lines[:161]), encoding="utf-8")
    changes = {
        "model": str(small_encoder_dir),
        "data": recipe.data.model_copy(update={"train": str(train)}),
        "finetune": FinetuneConfig(epochs=1),
    }
    own = recipe.model_copy(update=changes)
    steps = []
    keep = TrainingCheckpoint.keep

    def kept(state, model, optimizer, done):
        steps.append(done)
        keep(state, model, optimizer, done)

    monkeypatch.setattr(TrainingCheckpoint, "keep", kept)
    monkeypatch.setattr(training_checkpoint, "SECONDS_BETWEEN", 0.0)
    for stop in (StopBefore(3, "Fine-tuning"), StopBefore(None, "prune")):
        with pytest.raises(StoppedError):
            run_recipe(own, tmp_path / "run", force=False, progress=stop)
    assert steps == [1, 2, 3, 4, 5]
    assert {path.name for path in (tmp_path / "run").iterdir()} == {*OF_A_RUN, "dense"}


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"soup": SoupConfig()}, "data.train: missing; the soup section"),
        ({"finetune": FinetuneConfig()}, "data.train: missing; the finetune section"),
        ({"finetune": FinetuneConfig(), "soup": SoupConfig()}, "soup: there is a finetune section as well"),
        ({"finetune": FinetuneConfig(**DRAWN_AND_CHOSEN)}, "substitution_draws: the worst of 4 draws"),
        ({"soup": SoupConfig(**DRAWN_AND_CHOSEN)}, "substitution_draws: the worst of 4 draws"),
    ],
)
def test_a_dense_model_that_cannot_be_made_is_told_before_anything_runs(recipe, sections, line):
    with pytest.raises(UserError, match=line):
        check_recipe(recipe.model_copy(update=sections))


def test_a_run_leaves_what_it_promises(finished):
    output, _ = finished
    names = {path.name for path in output.iterdir()}
    reports = {"report.json", "report.md", "report.html", "junit.xml"}
    assert names == {*OF_A_RUN, "pruned", "artifact", "attack"} | reports
    assert (output / "artifact" / "model.onnx").is_file()


def test_the_report_keeps_to_its_schema_and_its_form(finished):
    output, report = finished
    value = json.loads((output / "report.json").read_text())
    jsonschema.validate(value, Report.model_json_schema())
    assert value == report.model_dump()
    assert set(value["variants"]) == {"dense", "pruned", "artifact"}


def test_pruned_and_artifact_are_the_same_function(finished):
    _, report = finished
    pruned, artifact = report.variants.pruned, report.variants.artifact
    assert pruned is not None
    assert pruned.sparsity == artifact.sparsity == 0.5
    assert report.variants.dense.sparsity < 0.01
    assert abs(pruned.accuracy - artifact.accuracy) < 0.004
    assert pruned.robustness.accuracy_under_attack == artifact.robustness.accuracy_under_attack
    assert report.variants.dense.accuracy - artifact.accuracy < 0.05


def variants(report):
    return report.variants.dense, report.variants.pruned, report.variants.artifact


def test_a_stopped_run_goes_on_behind_its_last_stage_and_shares_attacks_out(
    recipe, finished, tmp_path, monkeypatch
):
    output = tmp_path / "out"
    shared = []

    def in_processes(*args, **kwargs):
        shared.append(args)
        return original(*args, **kwargs)

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage_runs, "export_directory", stop)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe, output, force=False, progress=SilentProgress())
    assert {path.name for path in output.iterdir()} == {*OF_A_RUN, "pruned"}
    with monkeypatch.context() as patch:
        patch.setattr(stage_runs, "prune_directory", stop)
        original = robustness.attack_in_processes
        patch.setattr(robustness, "attack_in_processes", in_processes)
        # What real processes do is tested in robustness; each would import TextAttack for each attack.
        patch.setattr("compressor.system.processes.ProcessPoolExecutor", OneThread)
        report = run_recipe(recipe, output, processes=2, force=False, progress=SilentProgress())
    assert len(shared) == 3
    _, alone = finished
    for own, other in zip(variants(report), variants(alone), strict=True):
        assert own.sparsity == other.sparsity
        assert own.robustness == other.robustness


class Heard(SilentProgress):
    """Keeps the lines that are logged."""

    def __init__(self):
        self.lines = []

    def log(self, message):
        self.lines.append(message)


STAGES = ["prune", "export", "attack dense", "attack pruned", "attack artifact", "validate"]


def ran(lines):
    """The stages that ran, and why."""
    told = [line.split(": ", 1) for line in lines]
    return {name: text for name, text in told if name in STAGES and text != "reused"}


def test_an_unchanged_recipe_runs_nothing_and_says_what_it_reused(recipe, finished, monkeypatch):
    output, report = finished
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.name != "recipe.yaml"}
    monkeypatch.setattr(pipeline, "check_texts", None)
    heard = Heard()
    assert run_recipe(recipe, output, force=False, progress=heard) == report
    assert ran(heard.lines) == {}
    assert heard.lines[-1] == f"reused: {', '.join(STAGES)}"
    after = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.name != "recipe.yaml"}
    assert after == before


def test_a_changed_attack_runs_attacks_and_report_alone(recipe, finished, tmp_path):
    output = copied(finished, tmp_path)
    changed = recipe.model_copy(update={"attack": AttackConfig(attack_examples=6)})
    heard = Heard()
    report = run_recipe(changed, output, force=False, progress=heard)
    why = "runs (attack.attack_examples changed from 12 to 6)"
    assert ran(heard.lines) == {
        "attack dense": why, "attack pruned": why, "attack artifact": why,
        "validate": "runs (attack dense runs; attack pruned runs; attack artifact runs)",
    }  # fmt: skip
    assert report.variants.artifact.robustness.examples == 6
    assert report.variants.artifact.sparsity == 0.5
    assert load_recipe(output / "recipe.yaml") == changed


def test_a_changed_gate_measures_again_and_attacks_nothing(recipe, finished, tmp_path, monkeypatch):
    output = copied(finished, tmp_path)
    options = recipe.validate_.model_copy(update={"gates": ["sparsity >= 0.9"]})
    monkeypatch.setattr(stage_runs, "attack_directory", None)
    heard = Heard()
    report = run_recipe(recipe.model_copy(update={"validate_": options}), output, force=False, progress=heard)
    assert list(ran(heard.lines)) == ["validate"]
    assert report.verdict == "fail"
    assert report.variants.artifact.robustness == finished[1].variants.artifact.robustness


def test_a_dry_run_says_what_would_run_and_why_and_writes_nothing(recipe, finished):
    output, _ = finished
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    prune = PruneConfig(pattern="2:4", calibration_examples=64)
    changed = recipe.model_copy(update={"prune": prune})
    found = dry_run(changed, output, force=False)
    told = {stage.name: stage for stage in found.stages}
    assert list(told) == STAGES
    assert told["prune"].reasons == ("prune.pattern changed from 'unstructured' to '2:4'",)
    assert told["attack dense"].reasons == ()
    assert {name for name, stage in told.items() if stage.reasons} == set(STAGES) - {"attack dense"}
    text = in_words(found)
    assert "attack dense: would be reused" in text
    assert "prune: would run (prune.pattern changed from 'unstructured' to '2:4')" in text
    assert found.facts()["stages"][STAGES.index("prune")]["reasons"] == told["prune"].reasons
    assert not any(stage.reasons for stage in dry_run(recipe, output, force=False).stages)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before


def test_a_dry_run_finds_bad_input(recipe, tmp_path):
    data = recipe.data.model_copy(update={"label_column": "lable"})
    with pytest.raises(UserError, match="no column 'lable'"):
        dry_run(recipe.model_copy(update={"data": data}), tmp_path / "out", force=False)
    assert list(tmp_path.iterdir()) == []


def copied(finished, tmp_path):
    return Path(shutil.copytree(finished[0], tmp_path / "out"))


@pytest.mark.parametrize(
    ("section", "change", "says"),
    [
        ("prune", {"pattern": "7:3"}, "0 < N < M"),
        ("prune", {"pattern": "5:7"}, "does not divide"),
        ("validate_", {"gates": ["accuracy_dorp <= 1"]}, "did you mean"),
        ("data", {"test": "missing.tsv"}, "no such file"),
        ("data", {"reference": "missing.tsv"}, "no such file"),
        ("data", {"label_column": "lable"}, "no column 'lable'"),
    ],
)
def test_bad_input_writes_nothing(recipe, tmp_path, section, change, says):
    broken = recipe.model_copy(update={section: getattr(recipe, section).model_copy(update=change)})
    with pytest.raises(UserError, match=says):
        run_recipe(broken, tmp_path / "out", force=False, progress=SilentProgress())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("attack", [*ATTACKS, "deepwordbug,pruthi", "pwws,textfooler"])
def test_the_gates_of_the_quickstart_can_be_measured_with_each_attack(attack, tmp_path):
    recipe = search_recipe(tmp_path, AttackConfig(attack=attack), RunConfig())
    check_measured(parse_gates(recipe.validate_.gates), None, recipe.validate_, recipe.attack)
