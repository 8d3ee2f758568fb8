"""Gates: what is read, what is refused, and what comes of figures and their intervals."""

import re
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_reports import AGAINST, dropped_within_budgets, robustness, variant, within_budgets

from compressor.errors import UserError
from compressor.intervals import mean_interval, paired_interval, paired_mean_difference
from compressor.options import ValidateConfig
from compressor.validation.gates.gates import (
    PREFIXES,
    REFERENCES,
    Bound,
    Gate,
    holds_surely,
    parse_gate,
    parse_gates,
)
from compressor.validation.gates.metric import Measured
from compressor.validation.gates.readings import METRICS
from compressor.validation.schema import GateResult, MeanAccuracyFigures, MeanDifferenceFigures, Variants


def timed(p50):
    first, *_ = variant("any").latency
    return [first.model_copy(update={"p50_ms": p50})]


@pytest.fixture
def measured():
    dense = variant("dense", 0.82, under_attack=0.3, latency=timed(10.0), size_bytes=1000)
    artifact = variant("artifact", 0.81, under_attack=0.25, latency=timed(5.0), size_bytes=1000, dense=dense)
    variants = Variants(dense=dense, pruned=None, artifact=artifact)
    return Measured(variants, majority_share=0.6)


@pytest.mark.parametrize(
    ("gate", "value", "status"),
    [
        # 82 and 81 of 100 answers: the figure keeps the bound, its interval does not.
        ("accuracy_drop <= 0.01", 0.01, "inconclusive"),
        ("accuracy_drop <= 0.2", 0.01, "pass"),
        ("accuracy_drop <= 0.0099", 0.01, "fail"),
        ("warn: accuracy_drop <= 0.0099", 0.01, "warn"),
        ("certain: accuracy_drop <= 0.01", 0.01, "fail"),
        ("certain: accuracy_drop <= 0.2", 0.01, "pass"),
        ("warn: certain: accuracy_drop <= 0.01", 0.01, "warn"),
        ("accuracy >= 0.81", 0.81, "inconclusive"),
        ("accuracy >= 0.7", 0.81, "pass"),
        ("accuracy_under_attack_drop<=0.04", 0.05, "fail"),
        ("accuracy_under_attack_drop<=0.05", 0.05, "inconclusive"),
        # The drop is 0.05, but so few examples cannot exclude 0.11.
        ("accuracy_under_attack_drop_upper <= 0.1", 0.11, "fail"),
        ("accuracy_under_attack_drop_upper <= 0.12", 0.11, "pass"),
        ("transfer_rate <= 0.9", 0.75, "pass"),
        ("attack_success_rate_rise <= 0", 0.0, "pass"),
        ("dense_over_majority >= 0.1", 0.22, "pass"),
        ("latency_ratio <= 0.5", 0.5, "pass"),
        ("latency_p50 <= 0.4 * dense", 5.0, "fail"),
        ("latency_p50 <= 0.5 * dense", 5.0, "pass"),
        ("latency_p50 <= dense - 4", 5.0, "pass"),
        ("size_ratio <= 0.9", 1.0, "fail"),
        ("size_mb <= 1e-3", 0.001, "pass"),
        ("sparsity >= 0.5", 0.5, "pass"),
        ("slice_regressions <= 0", 0.0, "pass"),
        ("worst_slice_drop <= 0.01", 0.01, "pass"),
        ("label_agreement >= 0.9", 0.97, "pass"),
        ("calibration_error <= 0.05", 0.0312, "pass"),
        ("load_seconds <= dense", 0.31, "pass"),
        ("flops_nonzero <= 0.6 * dense", 11_475_615_744, "fail"),
    ],
)
def test_gates_judge_as_written(measured, gate, value, status):
    result = parse_gate(gate).judge(measured)
    assert (result.value, result.status) == (value, status)
    assert result.gate == str(parse_gate(gate))


@pytest.mark.parametrize(
    ("gate", "idle"),
    [
        ("accuracy_under_attack_drop <= 0.02", True),
        ("accuracy_under_attack_drop <= 0.05", True),
        ("warn: accuracy_under_attack_drop <= 0.05", True),
        ("accuracy_under_attack_drop <= 0.019", False),
        ("accuracy_under_attack >= dense - 0.05", True),
        ("accuracy_under_attack >= 0.5 * dense", False),
        ("accuracy_under_attack <= 1", True),
        ("attack_success_rate_rise <= 0.022", True),
        ("attack_success_rate_rise <= 0.021", False),
        ("attack_success_rate_rise >= -1", True),
    ],
)
def test_a_bound_that_no_artifact_could_break_proves_nothing(gate, idle):
    attacked = robustness(0.02, rate=0.978)
    dense = variant("dense", robustness=attacked)
    artifact = variant("artifact", robustness=attacked, dense=dense)
    measured = Measured(Variants(dense=dense, pruned=None, artifact=artifact), 0.6)
    result = parse_gate(gate).judge(measured)
    assert (result.note is not None and "no artifact could break it" in result.note) == idle
    if idle:
        assert result.status == "inconclusive"


def attacked_within_budgets(*budgets):
    """Dense model and artifact on 100 examples: share of words, held by the dense model, of these lost."""
    dense = variant(
        "dense",
        robustness=robustness(0.02).model_copy(
            update={"word_budgets": within_budgets(*((share, held / 100) for share, held, _ in budgets))}
        ),
    )
    own = within_budgets(*((share, (held - lost) / 100) for share, held, lost in budgets))
    drops = dropped_within_budgets(*((share, lost) for share, _, lost in budgets))
    artifact = variant(
        "artifact",
        dense=dense,
        robustness=robustness(0.02).model_copy(update={"word_budgets": own}),
        against_dense=AGAINST.model_copy(update={"word_budgets": drops}),
    )
    return Measured(Variants(dense=dense, pruned=None, artifact=artifact), 0.6)


@pytest.mark.parametrize(
    ("gate", "place", "value", "status"),
    [
        ("accuracy_under_attack_drop_within_budgets <= 0.05", "0.1 of words", 0.06, "fail"),
        ("accuracy_under_attack_drop_within_budgets <= 0.07", "0.1 of words", 0.06, "inconclusive"),
        ("accuracy_under_attack_drop_within_budgets <= 0.2", "0.1 of words", 0.06, "pass"),
        ("accuracy_under_attack_within_budgets >= dense - 0.2", "0.05 of words", 0.59, "pass"),
        ("accuracy_under_attack_within_budgets >= 0.95 * dense", "0.1 of words", 0.24, "fail"),
        ("accuracy_under_attack_within_budgets >= 0.04", "0.2 of words", 0.03, "fail"),
    ],
)
def test_within_word_budgets_each_of_them_is_judged(gate, place, value, status):
    measured = attacked_within_budgets((0.05, 60, 1), (0.1, 30, 6), (0.2, 3, 0))
    result = parse_gate(gate).judge(measured)
    assert (result.place, result.value, result.status) == (place, value, status)
    assert f" at {place} is " in result.sentence


def test_where_nothing_can_be_lost_is_told_only_if_it_is_so_within_every_budget():
    gate = parse_gate("accuracy_under_attack_drop_within_budgets <= 0.1")
    judged = gate.judge(attacked_within_budgets((0.05, 60, 1), (0.2, 3, 0)))
    assert (judged.place, judged.status, judged.note) == ("0.05 of words", "pass", None)
    idle = gate.judge(attacked_within_budgets((0.1, 6, 0), (0.2, 3, 0)))
    assert idle.status == "inconclusive"
    assert "no artifact could break it" in idle.note


def with_means(mean, drop):
    """Dense model and artifact on 100 examples, of which one loses the drop."""
    examples = 100
    held = [mean] * examples
    lost = [max(0.0, mean - drop * examples), *held[1:]]
    figures = [
        robustness(0.02).model_copy(
            update={
                "mean_accuracy_under_attack": MeanAccuracyFigures(
                    longest_budget=0.3, mean=np.mean(values), interval=asdict(mean_interval(values))
                )
            }
        )
        for values in (held, lost)
    ]
    change = MeanDifferenceFigures.model_validate(asdict(paired_mean_difference(held, lost)))
    dense = variant("dense", robustness=figures[0])
    against = AGAINST.model_copy(update={"mean_accuracy_under_attack_drop": change})
    artifact = variant("artifact", dense=dense, robustness=figures[1], against_dense=against)
    return Measured(Variants(dense=dense, pruned=None, artifact=artifact), 0.6)


@pytest.mark.parametrize(
    ("gate", "value", "status"),
    [
        ("mean_accuracy_under_attack_drop <= 0.05", 0.005, "pass"),
        ("certain: mean_accuracy_under_attack_drop <= 0.05", 0.005, "pass"),
        ("certain: mean_accuracy_under_attack_drop <= 0.006", 0.005, "fail"),
        ("mean_accuracy_under_attack_drop <= 0.006", 0.005, "inconclusive"),
        ("mean_accuracy_under_attack_drop <= 0.004", 0.005, "fail"),
        ("mean_accuracy_under_attack_drop <= 0.5", 0.005, "inconclusive"),
        ("mean_accuracy_under_attack >= 0.8 * dense", 0.495, "pass"),
        ("mean_accuracy_under_attack >= 0.5", 0.495, "fail"),
    ],
)
def test_the_mean_over_word_budgets_is_judged(gate, value, status):
    result = parse_gate(gate).judge(with_means(0.5, 0.005))
    assert (result.value, result.status) == (value, status)


def test_what_tells_more_is_another_figure_or_a_tighter_bound_on_the_same():
    measured = with_means(0.5, 0.005)
    note = parse_gate("mean_accuracy_under_attack_drop <= 0.5").judge(measured).note
    assert "a tighter bound tells more" in note
    idle = attacked_within_budgets((0.1, 6, 0))
    note = parse_gate("accuracy_under_attack_drop_within_budgets <= 0.1").judge(idle).note
    assert "mean_accuracy_under_attack_drop tells more" in note


def test_a_baseline_whose_attack_told_no_mean_is_told(measured):
    with pytest.raises(UserError, match=r"the baseline has no such figure$"):
        parse_gate("mean_accuracy_under_attack >= baseline").judge(with_means(0.5, 0.0), measured)


def test_a_bound_on_dense_within_a_budget_is_judged_by_the_pairs():
    measured = attacked_within_budgets((0.1, 30, 6))
    result = parse_gate("accuracy_under_attack_within_budgets >= 0.5 * dense").judge(measured)
    margin = paired_interval(24, 0, 6, 100, factor=0.5)
    assert result.limit == pytest.approx(0.15)
    ends = (margin.low + result.limit, margin.high + result.limit)
    assert (result.interval.low, result.interval.high) == pytest.approx(ends)


def test_a_bound_on_dense_is_judged_by_the_pairs(measured):
    # 81 answers are right in both, one in the dense model alone.
    margin = paired_interval(81, 0, 1, 100, factor=0.9)
    result = parse_gate("accuracy >= 0.9 * dense").judge(measured)
    assert result.limit == pytest.approx(0.9 * 0.82)
    assert (result.interval.low, result.interval.high) == pytest.approx(
        (margin.low + result.limit, margin.high + result.limit)
    )
    assert result.status == "pass"
    assert parse_gate("accuracy >= 0.7").judge(measured).interval.low < result.interval.low


def test_a_bound_on_a_baseline(measured):
    artifact = variant("old", 0.84, under_attack=0.3, latency=timed(4.8), dense=variant("dense"))
    old = Measured(measured.variants.model_copy(update={"artifact": artifact}), 0.6)
    cases = {
        "accuracy >= baseline": "fail",
        "accuracy >= baseline - 0.03": "inconclusive",
        "accuracy >= baseline - 0.2": "pass",
        "certain: accuracy >= baseline - 0.03": "fail",
        "accuracy_under_attack >= baseline - 0.1": "inconclusive",
        "latency_p50 <= 1.1 * baseline": "pass",
        "warn: latency_p50 <= baseline": "warn",
        "accuracy_drop <= baseline + 0.5": "pass",
    }
    assert {text: parse_gate(text).judge(measured, old).status for text in cases} == cases
    paired = parse_gate("accuracy >= baseline").judge(measured, old).interval
    apart = parse_gate("task_score >= baseline").judge(measured, old).interval
    assert apart.low < paired.low < paired.high < apart.high


def test_times_of_another_machine_or_that_did_not_settle_prove_nothing(measured):
    elsewhere = {"machine": "the baseline has another processor"}
    for text in ("latency_p50 <= 0.1 * baseline", "latency_p50 <= 10 * baseline"):
        result = parse_gate(text).judge(measured, measured, elsewhere)
        assert (result.status, result.note) == ("inconclusive", elsewhere["machine"])
    assert parse_gate("accuracy >= baseline - 0.2").judge(measured, measured, elsewhere).status == "pass"
    assert parse_gate("latency_p50 <= 6").judge(measured, measured, elsewhere).status == "pass"
    latency = [timed(5.0)[0].model_copy(update={"stable": False})]
    artifact = measured.variants.artifact.model_copy(update={"latency": latency})
    shaky = Measured(measured.variants.model_copy(update={"artifact": artifact}), 0.6)
    assert parse_gate("latency_p50 <= 6").judge(shaky).status == "inconclusive"
    assert parse_gate("latency_p50 <= 4").judge(shaky).status == "fail"


def test_times_must_hold_at_every_shape_and_the_worst_is_shown(measured):
    variants = Variants(dense=variant("dense"), pruned=None, artifact=variant("a", speed=2.0))
    result = parse_gate("latency_p50 <= 200").judge(Measured(variants, 0.6))
    assert (result.status, result.place, result.value) == ("fail", "8 x 128", 256.0)
    assert result.sentence == "latency_p50 at 8 x 128 is 256, bound <= 200"
    result = parse_gate("throughput >= 20").judge(Measured(variants, 0.6))
    assert (result.status, result.place) == ("pass", "1 x 128")


def test_sentences_tell_figure_interval_and_limit(measured):
    result = parse_gate("certain: accuracy >= dense + 0.01").judge(measured)
    assert result.sentence.startswith("accuracy is 0.81 (0.7")
    assert result.sentence.endswith("), bound certainly >= dense + 0.01 = 0.83")


numbers = st.floats(-1e6, 1e6)
bounds = st.one_of(
    st.builds(Bound, numbers),
    st.builds(Bound, numbers, st.sampled_from(REFERENCES), st.floats(1e-6, 1e6)),
)
gates = st.builds(
    Gate,
    st.sampled_from(sorted(METRICS)),
    st.sampled_from(["<=", ">="]),
    bounds,
    st.booleans(),
    st.booleans(),
)


def makes_sense(gate):
    metric = METRICS[gate.metric]
    return (metric.has_interval or not gate.certain) and (metric.of_one or gate.bound.reference != "dense")


@given(gates)
def test_what_is_written_is_read(gate):
    if makes_sense(gate):
        assert parse_gate(str(gate)) == gate
    else:
        with pytest.raises(UserError):
            parse_gate(str(gate))


words = st.sampled_from([*PREFIXES, *REFERENCES, ":", "<=", ">=", "*", "+", "-", "0.5", "accuracy", "x", " "])


@given(st.lists(words, max_size=9).map("".join))
def test_any_words_are_a_gate_or_a_user_error(text):
    try:
        assert parse_gate(str(parse_gate(text))) == parse_gate(text)
    except UserError as error:
        assert repr(text) in str(error)


@given(st.text(max_size=40))
def test_any_text_is_a_gate_or_a_user_error(text):
    try:
        assert parse_gate(text).metric in METRICS
    except UserError as error:
        assert repr(text)[1:-1] in str(error) or "gate" in str(error)


def test_a_misspelt_metric_is_suggested():
    with pytest.raises(UserError, match="did you mean 'accuracy_drop'"):
        parse_gate("acuracy_drop <= 0.01")


@pytest.mark.parametrize(
    ("gate", "says"),
    [
        ("accuracy >= denes", "unknown name in its bound 'denes'; did you mean 'dense'"),
        ("wran: accuracy >= 0.5", "unknown prefix 'wran'; did you mean 'warn'"),
        ("accuracy_drop <= dense", "is a comparison with dense already"),
        ("certain: sparsity >= 0.5", "sparsity has no interval"),
        ("accuracy >= -1 * dense", "must be above 0"),
        ("accuracy >= 1e999", "is too large"),
        ("accuracy >= 0.5.1", "is no number"),
        ("accuracy = 1", "write METRIC <= BOUND"),
    ],
)
def test_what_makes_no_sense_is_told(gate, says):
    with pytest.raises(UserError, match=re.escape(says)):
        parse_gate(gate)


def test_a_baseline_that_is_not_there_is_told(measured):
    with pytest.raises(UserError, match="there is no baseline; give a report with --baseline"):
        parse_gate("accuracy >= baseline").judge(measured)


def test_default_gates_are_valid():
    assert len(parse_gates(ValidateConfig().gates)) == 3


def test_no_attempted_attack_is_no_success(measured):
    dense = variant("dense", 0.82, robustness=robustness(0.3))
    artifact = variant("artifact", 0.0, robustness=robustness(0.0, rate=None))
    variants = Variants(dense=dense, pruned=None, artifact=artifact)
    result = parse_gate("attack_success_rate_rise <= 0").judge(Measured(variants, 0.6))
    assert result.value == -0.5


def result_of(gate, value, low, high, limit):
    interval = None if low is None else {"low": low, "high": high}
    status = "fail" if (value > limit) == ("<=" in gate) and value != limit else "pass"
    return GateResult(
        gate=gate, metric="accuracy_drop", place=None, value=value, interval=interval, bound="<= 0.02",
        limit=limit, status=status, note=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("gate", "value", "ends", "confidence", "holds"),
    [
        # A deviation of 0.005: the figure is 1.0 of them below its limit, that is 84 %.
        ("accuracy_drop <= 0.02", 0.015, (0.0052, 0.0248), 0.84, True),
        ("accuracy_drop <= 0.02", 0.015, (0.0052, 0.0248), 0.85, False),
        ("accuracy_drop <= 0.02", 0.02, (0.01, 0.03), 0.5, True),
        ("accuracy_drop <= 0.02", 0.021, (0.011, 0.031), 0.5, False),
        ("accuracy_drop >= 0.02", 0.025, (0.0152, 0.0348), 0.84, True),
        ("accuracy_drop >= 0.02", 0.025, (0.0152, 0.0348), 0.85, False),
        ("accuracy_drop <= 0.02", 0.0199, (None, None), 0.99, True),
        ("warn: accuracy_drop <= 0.02", 0.0199, (0.0, 0.04), 0.99, True),
        ("certain: accuracy_drop <= 0.02", 0.0199, (0.0, 0.04), 0.99, True),
    ],
)
def test_a_gate_holds_with_a_confidence_by_its_interval(gate, value, ends, confidence, holds):
    assert holds_surely(result_of(gate, value, *ends, 0.02), confidence) is holds
