"""Gates where several attacks ran: of each, of one, and of all together."""

import pytest
from made_reports import make_report, make_report_of_several

from compressor.errors import UserError
from compressor.options import AttackConfig, ValidateConfig
from compressor.validation.gates.baseline import prepare_gates
from compressor.validation.gates.compare import compare_reports
from compressor.validation.gates.gates import parse_gate
from compressor.validation.gates.metric import Measured
from compressor.validation.gates.readings import ALL_ATTACKS_METRICS, METRICS


@pytest.fixture(scope="module")
def measured():
    return Measured.of(make_report_of_several())


@pytest.mark.parametrize(
    ("gate", "place", "value", "status"),
    [
        # Of each attack: the worst one decides.
        ("accuracy_under_attack >= 0.5", "pwws", 0.3, "fail"),
        ("accuracy_under_attack >= 0.3", "pwws", 0.3, "inconclusive"),
        ("accuracy_under_attack[pruthi] >= 0.4", "pruthi", 0.58, "pass"),
        ("accuracy_under_attack[ pwws ] >= 0.4", "pwws", 0.3, "fail"),
        ("warn: accuracy_under_attack[pwws]>=0.4", "pwws", 0.3, "warn"),
        ("accuracy_under_attack_drop <= 0.05", "pwws", 0.1, "fail"),
        ("accuracy_under_attack_drop[pruthi] <= 0.3", "pruthi", 0.02, "pass"),
        ("certain: accuracy_under_attack_drop[pruthi] <= 0.02", "pruthi", 0.02, "fail"),
        ("accuracy_under_attack[pwws] >= 0.9 * dense", "pwws", 0.3, "fail"),
        ("accuracy_under_attack[pwws] >= 0.75 * dense", "pwws", 0.3, "inconclusive"),
        # Of all together.
        ("accuracy_under_all_attacks >= 0.23", None, 0.23, "inconclusive"),
        ("accuracy_under_all_attacks >= 0.25", None, 0.23, "fail"),
        ("accuracy_under_all_attacks_drop <= 0.1", None, 0.12, "fail"),
        ("certain: accuracy_under_all_attacks_drop <= 0.3", None, 0.12, "pass"),
        ("accuracy_under_all_attacks >= dense - 0.2", None, 0.23, "pass"),
    ],
)
def test_gates_are_of_each_of_one_and_of_all(measured, gate, place, value, status):
    result = parse_gate(gate).judge(measured)
    assert (result.place, result.value, result.status) == (place, value, status)


def test_a_gate_of_one_attack_is_written_as_it_is_read():
    gate = parse_gate("warn: accuracy_under_attack[pwws] >= 0.4")
    assert (gate.metric, gate.attack) == ("accuracy_under_attack", "pwws")
    assert str(gate) == "warn: accuracy_under_attack[pwws] >= 0.4"
    assert parse_gate(str(gate)) == gate


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("accuracy[pwws] >= 0.5", "accuracy is of no attack; leave .pwws. out"),
        ("accuracy_under_all_attacks[pwws] >= 0.5", "of all attacks together; leave .pwws. out"),
        ("accuracy_under_attack[] >= 0.5", "write METRIC"),
        ("accuracy_under_attack[pwws >= 0.5", "write METRIC"),
    ],
)
def test_brackets_that_make_no_sense_are_refused(gate, said):
    with pytest.raises(UserError, match=said):
        parse_gate(gate)


@pytest.mark.parametrize(
    ("attack", "gate", "said"),
    [
        ("pwws,pruthi", "accuracy_under_attack[textfooler] >= 0.1", "textfooler is not run here; run here:"),
        ("pwws", "accuracy_under_attack[pruthi] >= 0.1", "pruthi is not run here; run here: pwws"),
        ("pwws", "accuracy_under_all_attacks >= 0.1", "pwws is run alone; use accuracy_under_attack, or"),
        ("pwws", "accuracy_under_all_attacks_drop <= 0.1", "use accuracy_under_attack_drop, or name more"),
        (
            "pwws,pruthi",
            "mean_accuracy_under_attack_drop <= 0.1",
            "pruthi has no figures within word budgets.*mean_accuracy_under_attack_drop.ATTACK. for one",
        ),
        ("pwws,pruthi", "mean_accuracy_under_attack[pruthi] >= 0.1", "pruthi has no figures within"),
    ],
)  # fmt: skip
def test_a_gate_on_what_is_not_run_is_refused_before_anything_is_measured(attack, gate, said):
    with pytest.raises(UserError, match=said):
        prepare_gates(ValidateConfig(gates=[gate]), AttackConfig(attack=attack))


@pytest.mark.parametrize(
    ("attack", "gate"),
    [
        ("pwws", "accuracy_under_attack[pwws] >= 0.1"),
        ("pwws,pruthi", "mean_accuracy_under_attack_drop[pwws] <= 0.1"),
        ("pwws,textfooler", "mean_accuracy_under_attack_drop <= 0.1"),
        ("pwws,pruthi", "accuracy_under_all_attacks_drop <= 0.1"),
    ],
)
def test_gates_on_what_is_run_are_taken(attack, gate):
    prepare_gates(ValidateConfig(gates=[gate]), AttackConfig(attack=attack))


def test_one_attack_has_its_figures_under_its_name_too_and_none_of_several():
    measured = Measured.of(make_report())
    alone, named = (
        parse_gate(f"accuracy_under_attack{name} >= 0.1").judge(measured) for name in ("", "[deepwordbug]")
    )
    assert (named.value, named.place) == (alone.value, None)
    with pytest.raises(UserError, match="pwws has no such figure here"):
        parse_gate("accuracy_under_attack[pwws] >= 0.1").judge(measured)
    for name in ALL_ATTACKS_METRICS:
        assert METRICS[name].read(measured, measured.variants.artifact) == {}


def test_reports_of_several_attacks_compare_attack_by_attack_and_not_with_those_of_one():
    several, alone = make_report_of_several(), make_report()
    found = compare_reports(several, several)
    places = [figure.shape for figure in found.figures if figure.metric == "accuracy_under_attack"]
    assert places == ["pwws", "pruthi"]
    assert [f.first for f in found.figures if f.metric == "accuracy_under_all_attacks"] == [0.23]
    other = compare_reports(several, alone)
    assert "accuracy_under_attack" in other.left_out
    assert not any("attack" in figure.metric for figure in other.figures)
