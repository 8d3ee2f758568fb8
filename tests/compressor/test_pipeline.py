"""The whole run on a small real model: every stage, the report, the gates, going on after a stop."""

import json
from pathlib import Path

import jsonschema
import pytest

import compressor.pipeline as pipeline
from compressor.classifier import load_classifier
from compressor.console import SilentProgress
from compressor.errors import UserError
from compressor.options import (
    AttackConfig,
    DataConfig,
    ExportConfig,
    FinetuneConfig,
    PruneConfig,
    RunConfig,
    SoupConfig,
    ValidateConfig,
)
from compressor.output import read_json
from compressor.pipeline import check_recipe, run_recipe, train_dense
from compressor.recipe import Recipe
from compressor.robustness import run as robustness
from compressor.validation.report import Report


@pytest.fixture(scope="module")
def recipe(critic_quotes, small_classifier_dir, tmp_path_factory) -> Recipe:
    test = tmp_path_factory.mktemp("texts") / "test.tsv"
    lines = (critic_quotes / "test.tsv").read_text(encoding="utf-8").splitlines()
    test.write_text("\n".join(lines[:401]) + "\n", encoding="utf-8")
    return Recipe(
        model=str(small_classifier_dir),
        data=DataConfig(calibration=str(critic_quotes / "small.tsv"), test=str(test), max_length=48),
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
        holdout_examples=40,
        attack=AttackConfig(attack_examples=4, query_budget=20),
    )
    train = recipe.data.model_copy(update={"train": str(critic_quotes / "small.tsv")})
    changes = {"model": str(small_encoder_dir), "data": train, "soup": soup}
    train_dense(recipe.model_copy(update=changes), tmp_path / "dense", SilentProgress())
    assert read_json(tmp_path / "dense" / "soup.json")["options"]["runs"] == 2
    assert load_classifier(str(tmp_path / "dense")).label_names == ["fresh", "rotten"]


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"soup": SoupConfig()}, "data.train: missing; the soup section"),
        ({"finetune": FinetuneConfig()}, "data.train: missing; the finetune section"),
        ({"finetune": FinetuneConfig(), "soup": SoupConfig()}, "soup: there is a finetune section as well"),
    ],
)
def test_a_dense_model_that_cannot_be_made_is_told_before_anything_runs(recipe, sections, line):
    with pytest.raises(UserError, match=line):
        check_recipe(recipe.model_copy(update=sections))


def test_a_run_leaves_what_it_promises(finished):
    output, _ = finished
    names = {path.name for path in output.iterdir()}
    reports = {"report.json", "report.md", "report.html", "junit.xml"}
    assert names == {"recipe.yaml", "pruned", "artifact", "attack"} | reports
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


def test_a_stopped_run_goes_on_behind_its_last_stage_and_in_two_processes(
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
        patch.setattr(pipeline, "export_directory", stop)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe, output, force=False, progress=SilentProgress())
    assert {path.name for path in output.iterdir()} == {"recipe.yaml", "pruned"}
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "prune_directory", stop)
        original = robustness.attack_in_processes
        patch.setattr(robustness, "attack_in_processes", in_processes)
        report = run_recipe(recipe, output, processes=2, force=False, progress=SilentProgress())
    assert len(shared) == 3
    _, alone = finished
    for own, other in zip(variants(report), variants(alone), strict=True):
        assert own.sparsity == other.sparsity
        assert own.robustness == other.robustness


def test_a_finished_run_is_not_overwritten(recipe, finished):
    output, _ = finished
    before = (output / "report.json").read_bytes()
    with pytest.raises(UserError, match="--force"):
        run_recipe(recipe, output, force=False, progress=SilentProgress())
    assert (output / "report.json").read_bytes() == before


@pytest.mark.parametrize(
    ("section", "change", "says"),
    [
        ("prune", {"pattern": "7:3"}, "0 < N < M"),
        ("prune", {"pattern": "5:7"}, "does not divide"),
        ("validate_", {"gates": ["accuracy_dorp <= 1"]}, "did you mean"),
        ("data", {"test": "missing.tsv"}, "no such file"),
        ("data", {"label_column": "lable"}, "no column 'lable'"),
    ],
)
def test_bad_input_writes_nothing(recipe, tmp_path, section, change, says):
    broken = recipe.model_copy(update={section: getattr(recipe, section).model_copy(update=change)})
    with pytest.raises(UserError, match=says):
        run_recipe(broken, tmp_path / "out", force=False, progress=SilentProgress())
    assert list(tmp_path.iterdir()) == []
