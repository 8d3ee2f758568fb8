"""What reports and gates make of test data that lack classes of the model, down to a single one."""

import dataclasses

import numpy as np
import pytest
from made_reports import make_appendix, make_report, variant
from rich.console import Console

from compressor.errors import UserError
from compressor.models.metrics import measure
from compressor.options import ValidateConfig
from compressor.pipeline.mlflow import tracked
from compressor.validation.gates.baseline import check_task
from compressor.validation.gates.compare import compare_reports
from compressor.validation.gates.gates import parse_gate
from compressor.validation.gates.metric import Measured
from compressor.validation.measure.answers import Examples, answer_figures
from compressor.validation.measure.slices import label_slices
from compressor.validation.report.junit import render_junit
from compressor.validation.report.render import render_html, render_markdown
from compressor.validation.report.tables import report_table
from compressor.validation.schema import Report, Variants


def measured(share=0.6, coverage=1.0):
    dense = variant("dense", 0.82)
    variants = Variants(dense=dense, pruned=None, artifact=variant("artifact", 0.81, dense=dense))
    return Measured(variants, share, coverage)


@pytest.mark.parametrize(
    ("gate", "coverage", "status"),
    [
        ("class_coverage >= 1", 1.0, "pass"),
        ("class_coverage >= 1", 1 - 1 / 3, "fail"),
        ("class_coverage >= 0.5", 0.5, "pass"),
        ("warn: class_coverage >= 1", 0.5, "warn"),
        ("class_coverage >= baseline", 0.5, "fail"),
    ],
)
def test_the_share_of_classes_that_the_test_data_hold_is_a_gate(gate, coverage, status):
    assert parse_gate(gate).judge(measured(coverage=coverage), measured()).status == status


def test_a_baseline_from_before_has_no_coverage():
    with pytest.raises(UserError, match="the baseline has no such figure"):
        parse_gate("class_coverage >= baseline").judge(measured(), measured(coverage=None))


def test_coverage_is_of_classes():
    with pytest.raises(UserError, match="answers with numbers"):
        gates, config = [parse_gate("class_coverage >= 1")], ValidateConfig(task_metric="pearson")
        check_task(gates, config, "regression")


def test_one_class_tells_nothing_of_the_majority():
    result = parse_gate("dense_over_majority >= 0.05").judge(measured(share=1.0))
    assert result.status == "inconclusive"
    assert "one class only" in result.note
    assert parse_gate("dense_over_majority >= 0.5").judge(measured(share=0.9)).status == "fail"


@pytest.mark.parametrize("metric", ["accuracy", "f1", "matthews"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("label", [0, 1])
def test_answers_to_texts_of_one_class_have_all_figures(monkeypatch, metric, classes, label):
    monkeypatch.setattr("compressor.validation.measure.answers.RESAMPLES", 20)
    generator = np.random.default_rng(0)
    dense, pruned = (generator.normal(size=(40, classes)).astype(np.float32) for _ in range(2))
    labels = [label] * 40
    names = [f"c{index}" for index in range(classes)]
    examples = Examples(labels, label_slices(labels, names), metric, seed=0)
    found = answer_figures(pruned, dense, examples)
    assert found["accuracy"] == (pruned.argmax(axis=1) == label).mean()
    assert found["task_score"] == measure(metric, pruned.argmax(axis=1), labels, classes=classes)
    assert -1 <= found["answers_against_dense"].task_score_drop <= 1
    assert len(found["slices"]) == 1


def test_f1_of_more_classes_is_a_mean_also_where_only_two_occur():
    labels, answers = [0, 1, 1], [0, 1, 0]
    assert measure("f1", answers, labels) == measure("f1", answers, labels, classes=2) == pytest.approx(2 / 3)
    assert measure("f1", answers, labels, classes=3) == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert measure("f1", [0, 0], [0, 0], classes=3) == 1.0
    assert measure("f1", [0, 0], [0, 0], classes=2) == 0.0


def with_absent(*names):
    return make_report().model_copy(update={"absent_classes": list(names), "class_coverage": 0.5})


def printed(report):
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(report_table(report))
    return console.export_text()


def test_absent_classes_are_in_every_form_of_a_report():
    report, appendix = with_absent("neu_tral", "<b>x</b>"), make_appendix()
    assert Report.model_validate_json(report.model_dump_json()).absent_classes == ["neu_tral", "<b>x</b>"]
    sentence = "No test text is of the model's 2 classes neu_tral, <b>x</b>"
    assert sentence in printed(report)
    assert sentence.replace("<", r"\<") in render_markdown(report, appendix).replace(r"\\", "\\")
    html = render_html(report, appendix)
    assert "neu_tral, &lt;b&gt;x&lt;/b&gt;" in html
    assert "<b>x</b>" not in html
    assert render_junit(report)


def test_a_report_whose_test_data_hold_all_classes_has_no_such_line():
    report, appendix = make_report(), make_appendix()
    for text in (printed(report), render_markdown(report, appendix), render_html(report, appendix)):
        assert "No test text is of" not in text


def test_the_way_labels_were_read_is_in_the_readable_reports():
    facts = {"Labels": "0 -> negative, 1 -> positive (by index)"}
    appendix = dataclasses.replace(make_appendix(), facts=facts)
    markdown = render_markdown(make_report(), appendix)
    assert "Labels of the test data: 0 -> negative, 1 -> positive (by index)." in markdown
    assert "0 -&gt; negative" in render_html(make_report(), appendix)


def test_what_is_tracked_of_labels_is_the_rule():
    labels = {"rule": "index", "map": {str(n): f"c{n}" for n in range(300)}}
    report = make_report().model_copy(update={"environment": {"data": {"labels": labels}}})
    params = tracked(report).params
    assert params["environment.data.labels.rule"] == "index"
    assert not [name for name in params if "map" in name]


def test_a_report_from_before_is_read_and_compared():
    value = make_report().model_dump(mode="json")
    del value["class_coverage"], value["absent_classes"]
    old = Report.model_validate(value)
    assert (old.class_coverage, old.absent_classes) == (None, [])
    figures = compare_reports(old, with_absent("a")).figures
    assert "class_coverage" not in {figure.metric for figure in figures}
