"""Answers alone and in batches: how they are measured, bounded and shown."""

import numpy as np
import pytest
import torch
from made_reports import make_appendix, make_report, variant
from quantized import quantized_copy
from rich.console import Console

from compressor.errors import UserError
from compressor.models.batching import encode
from compressor.models.invariance import compare_in_batches
from compressor.models.predictors import OnnxPredictor, TorchPredictor
from compressor.options import AttackConfig, ColumnsConfig, RunConfig, ValidateConfig
from compressor.pipeline.mlflow import tracked
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from compressor.validation.gates.baseline import check_measured, check_task
from compressor.validation.gates.compare import compare_reports
from compressor.validation.gates.gates import parse_gate, parse_gates
from compressor.validation.gates.metric import Measured
from compressor.validation.measure.invariance import invariance_figures
from compressor.validation.report.render import render_html
from compressor.validation.report.tables import report_table
from compressor.validation.schema import InvarianceFigures, Report, Variants
from compressor.validation.stage import ValidationJob, validate_directories
from exporters.quantize import quantize_dynamic

DEPENDENT = InvarianceFigures(
    examples=128, batch_size=16, shuffles=3, batch_disagreement=0.0156, worst_batch_shift=0.79
)


def report_of(**changes):
    report = make_report()
    artifact = report.variants.artifact.model_copy(update=changes)
    return report.model_copy(update={"variants": report.variants.model_copy(update={"artifact": artifact})})


def measured(invariance):
    dense = variant("dense")
    return Measured(
        Variants(dense=dense, pruned=None, artifact=variant("artifact", dense=dense, invariance=invariance)),
        0.6,
    )


def printed(report):
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(report_table(report))
    return console.export_text()


def test_a_model_in_pytorch_answers_alone_on_one_thread(small_classifier, test_quotes):
    threads = []

    class Counting(TorchPredictor):
        def logits(self, batch):
            threads.append((len(batch["input_ids"]), torch.get_num_threads()))
            return super().logits(batch)

    predictor = Counting(small_classifier)
    encoded = encode(predictor.tokenizer, test_quotes.select(range(20)), 48)
    before = torch.get_num_threads()
    found = invariance_figures(predictor, predictor, encoded, seed=0)
    assert threads[:20] == [(1, 1)] * 20
    assert threads[20:] == [(16, before), (4, before)] * 3
    assert (found.examples, found.batch_disagreement) == (20, 0)
    assert found.worst_batch_shift < 1e-4


def test_one_scale_for_a_batch_is_found(small_artifact_dir, test_quotes, tmp_path):
    directory = quantized_copy(small_artifact_dir, tmp_path, quantize_dynamic)
    alone, together = (OnnxPredictor(directory, threads) for threads in (1, 2))
    encoded = encode(alone.tokenizer, test_quotes.select(range(32)), 48)
    assert invariance_figures(alone, together, encoded, seed=0).worst_batch_shift > 1e-3


def test_an_answer_that_is_no_number_is_as_far_as_can_be_and_can_be_written(small_classifier):
    class Broken(TorchPredictor):
        def logits(self, batch):
            return np.full((len(batch["input_ids"]), 2), np.nan, np.float32)

    found = compare_in_batches(
        np.zeros((1, 2), np.float32), Broken(small_classifier), [([101, 102], [0, 0])], seed=0
    )
    assert found.worst_batch_shift == np.finfo(np.float32).max


@pytest.mark.parametrize(
    ("gate", "status"),
    [
        ("batch_disagreement <= 0", "fail"),
        ("warn: batch_disagreement <= 0", "warn"),
        ("batch_disagreement <= 0.02", "pass"),
        ("batch_disagreement <= dense", "fail"),
        ("worst_batch_shift <= 1e-3", "fail"),
        ("worst_batch_shift <= 0.8", "pass"),
        ("worst_batch_shift <= baseline", "fail"),
    ],
)
def test_both_figures_are_gates(gate, status):
    baseline = measured(variant("any").invariance)
    assert parse_gate(gate).judge(measured(DEPENDENT), baseline).status == status


def test_labels_are_of_classes_and_logits_of_all_models():
    config = ValidateConfig(task_metric="pearson")
    with pytest.raises(UserError, match="answers with numbers"):
        check_task(parse_gates(["batch_disagreement <= 0"]), config, "regression")
    check_task(parse_gates(["worst_batch_shift <= 1e-3"]), config, "regression")


@pytest.mark.parametrize("gate", ["batch_disagreement <= 0", "worst_batch_shift <= 1e-3"])
def test_a_gate_on_what_is_left_out_is_refused_before_anything_is_measured(gate):
    with pytest.raises(UserError, match="is not measured with --invariance-examples 0"):
        check_measured(parse_gates([gate]), None, ValidateConfig(invariance_examples=0), AttackConfig())


def test_a_baseline_from_before_has_neither():
    gates = parse_gates(["worst_batch_shift <= baseline"])
    with pytest.raises(UserError, match="the baseline did not measure it; make a new baseline"):
        check_measured(gates, report_of(invariance=None), ValidateConfig(), AttackConfig())
    check_measured(gates, report_of(), ValidateConfig(), AttackConfig())


def test_a_report_from_before_is_read_compared_and_tracked():
    value = make_report().model_dump(mode="json")
    for figures in value["variants"].values():
        del figures["invariance"]
    old = Report.model_validate(value)
    assert old.variants.artifact.invariance is None
    found = compare_reports(old, make_report())
    assert found.left_out == ["batch_disagreement", "worst_batch_shift"]
    assert "artifact.worst_batch_shift" not in tracked(old).metrics
    assert tracked(make_report()).metrics["artifact.worst_batch_shift"] == 2.4e-6
    for text in (printed(old), render_html(old, make_appendix())):
        assert "in a batch" not in text


def test_readable_reports_show_both():
    report = report_of(invariance=DEPENDENT)
    html, table = render_html(report, make_appendix()), printed(report)
    for text in (html, table.replace("largest", "Largest").replace("labels", "Labels")):
        assert "Labels changed in a batch" in text
        assert "Largest shift of a logit in a batch" in text
        assert "1.6%" in text
        assert "7.9e-01" in text


def test_a_regression_shows_the_shift_alone():
    found = DEPENDENT.model_copy(update={"batch_disagreement": None})
    html = render_html(report_of(invariance=found), make_appendix())
    assert "Largest shift of a logit in a batch" in html


@pytest.mark.parametrize("examples", [0, 5, 100])
def test_validation_measures_each_variant_on_texts_of_the_test_data(made, tmp_path, examples):
    config = ValidateConfig(
        batch_sizes=[1],
        sequence_lengths=[8],
        latency_rounds=3,
        footprint=False,
        invariance_examples=examples,
        gates=["batch_disagreement <= 0", "worst_batch_shift <= 1e-3"] if examples else [],
    )
    attack = AttackConfig(attack_examples=1)
    job = ValidationJob(str(made / "dense"), made / "artifact", None, str(made / "data.tsv"), config, attack)
    context = Context(
        output=tmp_path / "report",
        columns=ColumnsConfig(max_length=24),
        run=RunConfig(device="cpu", threads=2),
        progress=SilentProgress(),
    )
    report = validate_directories(job, context)
    assert [gate.status for gate in report.gates] == (["pass"] * 2 if examples else [])
    for figures in (report.variants.dense, report.variants.artifact):
        # The data has eight texts.
        found = figures.invariance and figures.invariance.examples
        assert found == (min(examples, 8) or None)
        parts = figures.size_by_part
        assert parts.embeddings + parts.encoder + parts.head + parts.other == figures.size_bytes
    assert report.variants.dense.size_ratio == 1
    assert report.variants.artifact.size_ratio == (
        report.variants.artifact.size_bytes / report.variants.dense.size_bytes
    )
