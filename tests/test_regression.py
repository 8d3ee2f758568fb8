"""A regression through the whole of it: prune, inspect, export, validate, serve; and what it refuses."""

import importlib.util
import json
import sys

import numpy as np
import pytest
import torch
from project import ROOT

from compressor.attacks.perturb_stage import perturb_directory
from compressor.attacks.stage import attack_directory
from compressor.config.recipe import Recipe
from compressor.data.labels import NUMBER_NAMES
from compressor.data.texts import load_text_data
from compressor.errors import UserError
from compressor.inspection.stage import inspect_directory
from compressor.models.classifier import encoder_weights, load_classifier, save_classifier, sparsity_of
from compressor.models.metrics import correlation
from compressor.models.predictors import OnnxPredictor, TorchPredictor, predict
from compressor.options import (
    AdaptiveConfig,
    AttackConfig,
    ColumnsConfig,
    ExportConfig,
    PerturbConfig,
    PruneConfig,
    RandomizedConfig,
    RunConfig,
    ValidateConfig,
)
from compressor.pipeline.keys import stages_of
from compressor.pipeline.run import check_metrics, check_texts
from compressor.pruning.interface import prune_directory
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from compressor.system.files import read_json
from compressor.validation.gates.compare import compare_reports
from compressor.validation.report.tables import report_table
from compressor.validation.stage import ValidationJob, validate_directories
from exporters.stage import export_directory

COLUMNS = ColumnsConfig(max_length=32)
RUN = RunConfig(device="cpu", threads=2)
QUICK = RandomizedConfig(
    steps=1, candidates=2, early_steps=1, recovery_steps=4, holdout_examples=30, batch_size=16
)
STAGE = {"progress": SilentProgress()}
MEASURED = ValidateConfig(
    task_metric="pearson",
    batch_sizes=[1],
    sequence_lengths=[16],
    latency_rounds=3,
    footprint=False,
    gates=["task_score_drop <= 2", "task_score >= 0.5 * dense"],
)


def pruned(regression_dir, data, output, **options):
    config = PruneConfig(sparsity=0.3, **options)
    record = prune_directory(
        str(regression_dir), str(data), config, Context(output=output, columns=COLUMNS, run=RUN, **STAGE)
    )
    return output, record.model_dump()


@pytest.fixture(scope="module")
def randomized_dir(regression_dir, numbered_pairs, tmp_path_factory):
    output = tmp_path_factory.mktemp("randomized") / "model"
    config = QUICK.model_copy(update={"score": "spearman"})
    return pruned(
        regression_dir, numbered_pairs / "train.tsv", output, algorithm="randomized", randomized=config
    )[0]


@pytest.fixture(scope="module")
def artifact_dir(randomized_dir, numbered_pairs, tmp_path_factory):
    output = tmp_path_factory.mktemp("artifact") / "artifact"
    export_directory(
        str(randomized_dir),
        str(numbered_pairs / "test.tsv"),
        ExportConfig(),
        Context(output=output, columns=COLUMNS, run=RUN, **STAGE),
    )
    return output


@pytest.fixture(scope="module")
def test_pairs(numbered_pairs):
    return load_text_data(str(numbered_pairs / "test.tsv"), COLUMNS, "test", label_names=NUMBER_NAMES)


def test_randomized_pruning_learns_and_compares_by_numbers(randomized_dir, regression_dir, test_pairs):
    record = read_json(randomized_dir / "pruning.json")
    (costs,) = record["details"]["steps"][0]["early_costs"]
    assert record["details"]["holdout_examples"] == 30
    assert all(0 <= cost <= 2 for cost in costs.values())
    models = [load_classifier(str(directory)) for directory in (regression_dir, randomized_dir)]
    assert sparsity_of(encoder_weights(models[1].model)) == pytest.approx(0.3, abs=1e-3)
    dense, sparse = (predict(TorchPredictor(model), test_pairs, 32)[:, 0] for model in models)
    assert correlation("pearson", dense, sparse) > 0.8


def test_adaptive_pruning_needs_no_numbers(regression_dir, numbered_pairs, tmp_path):
    lines = (numbered_pairs / "train.tsv").read_text().splitlines()[:60]
    unlabelled = tmp_path / "texts.tsv"
    unlabelled.write_text("\n".join(line.rpartition("\t")[0] for line in lines) + "\n")
    narrow = load_classifier(str(regression_dir))
    for block in narrow.model.bert.encoder.layer:
        block.intermediate.dense = torch.nn.Linear(384, 32)
        block.output.dense = torch.nn.Linear(32, 384)
    narrow.model.config.intermediate_size = 32
    save_classifier(narrow, tmp_path / "narrow")
    adaptive = AdaptiveConfig(iterations=2)
    output, record = pruned(tmp_path / "narrow", unlabelled, tmp_path / "model", adaptive=adaptive)
    assert record["sparsity"] == pytest.approx(0.3, abs=1e-3)
    assert load_classifier(str(output)).task == "regression"


def test_inspect_tells_of_the_task(regression_dir, artifact_dir):
    for directory in (regression_dir, artifact_dir):
        facts = inspect_directory(str(directory))
        assert (facts["task"], facts["labels"]) == ("regression", ["score"])


def test_the_artifact_gives_pytorch_s_numbers(randomized_dir, artifact_dir, test_pairs):
    parity = read_json(artifact_dir / "manifest.json")["parity"]
    assert parity["max_difference"] <= 1e-4
    assert parity["variance_kept"] == pytest.approx(1, abs=1e-6)
    # Equal labels would be 100 % of texts, whatever the numbers.
    assert parity["label_agreement"] is parity["accuracy"] is None
    found = predict(OnnxPredictor(artifact_dir, 1), test_pairs, 32)
    expected = predict(TorchPredictor(load_classifier(str(randomized_dir))), test_pairs, 32)
    assert found.shape == (len(test_pairs), 1)
    assert np.abs(found - expected).max() < 1e-4


@pytest.fixture(scope="module")
def report(regression_dir, randomized_dir, artifact_dir, numbered_pairs, tmp_path_factory):
    output = tmp_path_factory.mktemp("validation") / "report"
    return validated(regression_dir, artifact_dir, numbered_pairs, output, MEASURED), output


def validated(dense, artifact, data, output, config):
    job = ValidationJob(str(dense), artifact, None, str(data / "test.tsv"), config, AttackConfig())
    return validate_directories(job, Context(output=output, columns=COLUMNS, run=RUN, **STAGE))


def test_a_report_has_the_correlation_and_nothing_of_classes(report, regression_dir, test_pairs):
    found, output = report
    answers = predict(TorchPredictor(load_classifier(str(regression_dir))), test_pairs, 32)[:, 0]
    dense, artifact = found.variants.dense, found.variants.artifact
    assert dense.task_score == pytest.approx(correlation("pearson", answers, test_pairs.numbers), abs=1e-6)
    for figures in (dense, found.variants.pruned, artifact):
        assert (figures.accuracy, figures.right, figures.calibration_error) == (None, None, None)
        assert (figures.robustness, figures.against_dense, figures.slices) == (None, None, [])
    assert found.majority_share is None
    assert not (output / "attack").exists()
    drop = artifact.answers_against_dense
    assert drop.task_score_drop == pytest.approx(dense.task_score - artifact.task_score)
    ends, own = drop.task_score_drop_interval, artifact.task_score_interval
    assert ends.low <= drop.task_score_drop <= ends.high
    # Both answer the same examples alike: the difference is surer than either score.
    assert ends.high - ends.low < own.high - own.low
    assert [gate.status for gate in found.gates] == ["pass", "pass"]


def test_forms_of_the_report_show_the_score(report):
    found, output = report
    shown = f"{found.variants.artifact.task_score:.3f}"
    html, markdown = ((output / name).read_text() for name in ("report.html", "report.md"))
    for text in (html, markdown):
        assert "Pearson correlation" in text
        assert shown in text
        assert "The answers are numbers" in text
        assert "ccuracy under attack" not in text
    assert report_table(found) is not None


def test_two_reports_compare_by_what_both_have(report):
    comparison = compare_reports(report[0], report[0])
    names = {figure.metric for figure in comparison.figures}
    assert {"task_score", "task_score_drop", "size_mb"} <= names
    assert {"accuracy", "accuracy_under_attack", "dense_over_majority"} <= set(comparison.left_out)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_metric": "accuracy"}, "task_metric accuracy: the model answers with numbers"),
        ({"gates": ["accuracy_drop <= 0.01"]}, "gate 'accuracy_drop <= 0.01': is of classes"),
        ({"gates": ["dense_over_majority >= 0.05"]}, "is of classes"),
    ],
)
def test_what_is_of_classes_is_refused(
    regression_dir, artifact_dir, numbered_pairs, tmp_path, changes, message
):
    config = MEASURED.model_copy(update=changes)
    with pytest.raises(UserError, match=message):
        validated(regression_dir, artifact_dir, numbered_pairs, tmp_path / "report", config)
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("stage", "config"), [(attack_directory, AttackConfig()), (perturb_directory, PerturbConfig())]
)
def test_attacks_and_perturbations_are_refused(regression_dir, numbered_pairs, tmp_path, stage, config):
    test = str(numbered_pairs / "test.tsv")
    with pytest.raises(UserError, match="answers with a number"):
        context = Context(output=tmp_path / "attack", columns=COLUMNS, run=RUN, **STAGE)
        stage(str(regression_dir), test, config, context)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": "f1"}, "score f1: the model answers with numbers"),
        ({"attack_weight": 1.0}, "attack_weight 1"),
    ],
)
def test_candidates_are_not_compared_by_classes(regression_dir, numbered_pairs, tmp_path, changes, message):
    config = QUICK.model_copy(update=changes)
    with pytest.raises(UserError, match=message):
        pruned(
            regression_dir,
            numbered_pairs / "train.tsv",
            tmp_path / "model",
            algorithm="randomized",
            randomized=config,
        )


def test_a_run_of_a_regression_attacks_nothing_and_checks_gates_first(small_encoder_dir, numbered_pairs):
    files = {name: str(numbered_pairs / f"{name}.tsv") for name in ("train", "test")}
    values = {
        "model": str(small_encoder_dir),
        "data": {**files, "calibration": files["train"]},
        "finetune": {"task": "regression"},
        "validate": MEASURED.model_dump(),
    }
    recipe = Recipe.model_validate(values)
    assert [stage.name for stage in stages_of(recipe, "regression")] == [
        "dense",
        "prune",
        "export",
        "validate",
    ]
    check_metrics(recipe, "regression")
    check_texts(recipe, "regression")
    values["validate"]["gates"] = ["accuracy >= 0.9"]
    with pytest.raises(UserError, match="is of classes"):
        check_metrics(Recipe.model_validate(values), "regression")


def test_the_server_answers_with_the_number(artifact_dir, randomized_dir, test_pairs):
    path = ROOT / "deploy" / "docker" / "serve.py"
    spec = importlib.util.spec_from_file_location("serve", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "serve", module)
        spec.loader.exec_module(module)
        server = module.Classifier(module.Settings(artifact=artifact_dir))
    few = test_pairs.select(range(4))
    expected = predict(TorchPredictor(load_classifier(str(randomized_dir))), few, 32)[:, 0]
    found = server.predict(few.texts, few.pairs)
    assert [entry["score"] for entry in found] == pytest.approx(expected.tolist(), abs=1e-4)
    assert {entry["label"] for entry in found} == {"score"}
    json.dumps(found)
