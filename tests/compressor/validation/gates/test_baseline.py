"""Stored reports: read or refused in one line, and held against new ones only where figures compare."""

import json
from contextlib import nullcontext

import pytest
from made_reports import make_report

from compressor.errors import UserError
from compressor.options import AttackConfig, ValidateConfig
from compressor.validation.gates.baseline import check_baseline, check_measured, doubts, read_report
from compressor.validation.gates.gates import parse_gates

ENVIRONMENT = {
    "device": "cpu",
    "processor": "one",
    "data": {"fingerprint": "abc", "columns": {"max_length": 64}},
    "attack": {"attack": "deepwordbug", "attack_examples": 100},
}
SHAPES = [(1, 32), (8, 128)]


def changed(**entries):
    return make_report(environment=ENVIRONMENT | entries)


def test_a_report_is_read_from_its_file_and_from_its_folder(tmp_path):
    report = make_report()
    (tmp_path / "report.json").write_text(report.model_dump_json())
    assert read_report(tmp_path) == read_report(tmp_path / "report.json") == report


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1, 2]", "is no report of compress validate"),
        ('{"schema_version": 1, "files": {}}', "is no report of compress validate"),
        ('{"schema_version": 2, "variants": {}}', "is a report of schema 2, and this version reads 3"),
        ('{"schema_version": 3, "variants": {}}', "is a broken report: "),
        ("{", "not valid JSON"),
    ],
)
def test_what_is_no_report_is_one_line(tmp_path, text, says):
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(UserError, match=says) as caught:
        read_report(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_a_report_with_a_key_of_its_own_is_broken(tmp_path):
    value = json.loads(make_report().model_dump_json()) | {"verdct": "pass"}
    (tmp_path / "report.json").write_text(json.dumps(value))
    with pytest.raises(UserError, match="verdct: unknown key; did you mean 'verdict'"):
        read_report(tmp_path)


@pytest.mark.parametrize(
    ("gate", "entries", "says"),
    [
        ("accuracy >= baseline", {"data": {"fingerprint": "x"}}, "the baseline has another data fingerprint"),
        ("accuracy_under_attack >= baseline", {"attack": {}}, "the baseline has another attack"),
    ],
)
def test_figures_on_other_data_or_attacks_are_not_held_against_each_other(gate, entries, says):
    with pytest.raises(UserError, match=says):
        check_baseline(parse_gates([gate]), changed(**entries), ENVIRONMENT, SHAPES)
    # A gate that does not rest on it is let pass.
    check_baseline(parse_gates(["size_mb <= baseline"]), changed(**entries), ENVIRONMENT, SHAPES)


def test_a_shape_that_the_baseline_was_not_timed_at_is_told():
    with pytest.raises(UserError, match="not timed at 3 x 7"):
        check_baseline(parse_gates(["latency_p99 <= baseline"]), changed(), ENVIRONMENT, [*SHAPES, (3, 7)])
    check_baseline(parse_gates(["latency_p99 <= baseline"]), changed(), ENVIRONMENT, SHAPES)


@pytest.mark.parametrize(
    ("gate", "has_baseline", "options", "says"),
    [
        ("accuracy >= baseline", False, {}, "there is no baseline"),
        ("load_seconds <= 1", False, {"footprint": False}, "not measured with --no-footprint"),
        ("task_score >= baseline", True, {"task_metric": "f1"}, "baseline's task metric is accuracy"),
    ],
)
def test_what_will_not_be_measured_is_told_before(gate, has_baseline, options, says):
    with pytest.raises(UserError, match=says):
        baseline = changed() if has_baseline else None
        check_measured(parse_gates([gate]), baseline, ValidateConfig(**options), AttackConfig())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"attack": "textfooler"}, None),
        ({"attack": "pwws", "max_words_changed": 0.05}, None),
        ({"attack": "pwws", "max_words_changed": 0.04}, "no attack.word_budgets, or none up to attack.max"),
        ({"attack": "textfooler", "word_budgets": []}, "no attack.word_budgets, or none up to attack.max"),
        ({"attack": "deepwordbug"}, None),
        ({"attack": "pruthi"}, "within word budgets; .* bertattack, deepwordbug, pwws, textfooler"),
    ],
)
def test_a_gate_within_word_budgets_needs_an_attack_that_tells_them(options, says):
    gates = parse_gates(["accuracy_under_attack_drop_within_budgets <= 0.05"])
    refused = nullcontext() if says is None else pytest.raises(UserError, match=says)
    with refused:
        check_measured(gates, None, ValidateConfig(), AttackConfig(**options))


def test_a_gate_on_the_mean_over_word_budgets_needs_an_attack_that_tells_it_and_no_budgets():
    gates = parse_gates(["mean_accuracy_under_attack_drop <= 0.05"])
    check_measured(gates, None, ValidateConfig(), AttackConfig(attack="pwws", word_budgets=[]))
    with pytest.raises(UserError, match="pruthi has no figures within word budgets"):
        check_measured(gates, None, ValidateConfig(), AttackConfig(attack="pruthi"))


def test_doubts_name_what_differs():
    assert doubts(changed(), ENVIRONMENT) == {}
    found = doubts(changed(processor="two"), ENVIRONMENT | {"attack_resources": {}})
    assert found == {
        "attack": "the baseline has another attack resources",
        "machine": "the baseline has another processor",
    }
