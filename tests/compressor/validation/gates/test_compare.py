"""Two reports side by side, as figures, as a table and as JSON."""

import json

import pytest
from made_reports import make_report, variant
from rich.console import Console

import cli
from compressor.validation.gates.compare import compare_reports
from compressor.validation.report.tables import comparison_table
from compressor.validation.schema import Variants

ENVIRONMENT = {
    "device": "cpu",
    "data": {"fingerprint": "abc", "columns": {"max_length": 64}},
    "attack": {"attack": "deepwordbug"},
}


def report(accuracy=0.92, speed=2.0, environment=None, **changes):
    dense = variant("dense")
    variants = Variants(
        dense=dense, pruned=None, artifact=variant("artifact", accuracy, speed=speed, dense=dense)
    )
    return make_report(variants=variants, environment=ENVIRONMENT | (environment or {}), **changes)


def figure_of(comparison, metric, shape=None):
    (found,) = [f for f in comparison.figures if (f.metric, f.shape) == (metric, shape)]
    return found


def test_the_second_is_held_against_the_first_by_pairs():
    found = compare_reports(report(0.92), report(0.87, speed=4.0))
    assert found.differs == {}
    accuracy, score = figure_of(found, "accuracy"), figure_of(found, "task_score")
    assert accuracy.difference == score.difference == pytest.approx(-0.05)
    assert score.interval.low < accuracy.interval.low < -0.05 < accuracy.interval.high < score.interval.high
    p50 = figure_of(found, "latency_p50", "8 x 128")
    assert (p50.first, p50.second, p50.difference, p50.interval) == (256.0, 128.0, -128.0, None)


def test_turning_the_two_round_turns_the_signs():
    one, other = report(0.92), report(0.87, speed=4.0)
    for a, b in zip(compare_reports(one, other).figures, compare_reports(other, one).figures, strict=True):
        assert (a.metric, a.shape, a.difference) == (b.metric, b.shape, -b.difference)
        if a.interval:
            assert (a.interval.low, a.interval.high) == pytest.approx((-b.interval.high, -b.interval.low))


def test_figures_on_other_data_or_machines_are_not_subtracted():
    other = report(environment={"device": "cuda", "data": {"fingerprint": "x"}}, seed=1)
    found = compare_reports(report(), other)
    assert found.differs == {"data": ["data.fingerprint", "data.columns.max_length"], "machine": ["device"]}
    for metric, shape, differs in (
        ("accuracy", None, ["data"]),
        ("latency_p50", "1 x 32", ["machine"]),
        ("size_mb", None, []),
    ):
        figure = figure_of(found, metric, shape)
        assert figure.differs == differs
        assert (figure.difference is None) == bool(differs)
    console = Console(width=200)
    with console.capture() as capture:
        console.print(comparison_table(found, "one", "other"))
    text = capture.get()
    assert "Other data: data.fingerprint, data.columns.max_length." in text
    assert "Other seeds: 13 and 1." in text


def test_what_one_of_them_lacks_is_left_out():
    bare = report(task_metric="f1")
    artifact = bare.variants.artifact.model_copy(update={"footprint": None})
    bare = bare.model_copy(update={"variants": bare.variants.model_copy(update={"artifact": artifact})})
    found = compare_reports(report(), bare)
    assert found.left_out == [
        "task_score", "load_seconds", "peak_memory_mb", "model_memory_mb", "task_score_drop",
    ]  # fmt: skip
    assert not {figure.metric for figure in found.figures} & set(found.left_out)


def test_the_command_reads_folders_and_files_and_prints_one_object(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    for name, accuracy in (("a", 0.92), ("b", 0.87)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(report(accuracy).model_dump_json())
    arguments = ["compare", str(tmp_path / "a"), str(tmp_path / "b" / "report.json")]
    assert cli.execute([*arguments, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    figures = {figure["metric"]: figure for figure in found["figures"]}
    assert figures["accuracy"]["difference"] == pytest.approx(-0.05)
    assert cli.execute(arguments) == 0
    assert "accuracy_under_attack_drop_upper" in capfd.readouterr().out
    assert cli.execute(["compare", str(tmp_path), str(tmp_path)]) == 2
    assert "report.json: no such file" in capfd.readouterr().err
