import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_reports import robustness, variant

from compressor.errors import UserError
from compressor.options import ValidateConfig
from compressor.validation.gates import METRICS, Gate, Measured, parse_gate, parse_gates
from compressor.validation.report import LatencyFigures, Variants


def timed(p50: float) -> list[LatencyFigures]:
    return [LatencyFigures(batch_size=1, sequence_length=32, p50_ms=p50, p95_ms=p50, examples_per_second=1.0)]


@pytest.fixture
def measured() -> Measured:
    dense = variant("dense", 0.82, under_attack=0.3, latency=timed(10.0), size_bytes=1000)
    artifact = variant("artifact", 0.81, under_attack=0.25, latency=timed(5.0), size_bytes=1000, dense=dense)
    variants = Variants(dense=dense, pruned=None, artifact=artifact)
    return Measured(variants, majority_share=0.6)


@pytest.mark.parametrize(
    ("gate", "value", "status"),
    [
        ("accuracy_drop <= 0.01", 0.01, "pass"),
        ("accuracy_drop <= 0.0099", 0.01, "fail"),
        ("accuracy >= 0.81", 0.81, "pass"),
        ("accuracy_under_attack_drop<=0.04", 0.05, "fail"),
        ("accuracy_under_attack_drop<=0.05", 0.05, "pass"),
        # The drop is 0.05, but so few examples cannot exclude 0.11.
        ("accuracy_under_attack_drop_upper <= 0.1", 0.11, "fail"),
        ("accuracy_under_attack_drop_upper <= 0.12", 0.11, "pass"),
        ("transfer_rate <= 0.8", 0.75, "pass"),
        ("attack_success_rate_rise <= 0", 0.0, "pass"),
        ("dense_over_majority >= 0.2", 0.22, "pass"),
        ("latency_ratio <= 0.5", 0.5, "pass"),
        ("size_ratio <= 0.9", 1.0, "fail"),
        ("sparsity >= 0.5", 0.5, "pass"),
    ],
)
def test_gates_judge_as_written(measured, gate, value, status):
    result = parse_gate(gate).judge(measured)
    assert (result.value, result.status) == (value, status)


@given(metric=st.sampled_from(sorted(METRICS)), bound=st.floats(-1e6, 1e6), op=st.sampled_from(["<=", ">="]))
def test_what_is_written_is_read(metric, bound, op):
    assert parse_gate(f" {metric}{op} {bound!r} ") == Gate(metric, op, bound)


@given(st.text(max_size=40))
def test_any_text_is_a_gate_or_a_user_error(text):
    try:
        assert parse_gate(text).metric in METRICS
    except UserError as error:
        assert repr(text)[1:-1] in str(error) or "gate" in str(error)


def test_a_misspelt_metric_is_suggested():
    with pytest.raises(UserError, match="did you mean 'accuracy_drop'"):
        parse_gate("acuracy_drop <= 0.01")


def test_default_gates_are_valid():
    assert len(parse_gates(ValidateConfig().gates)) == 3


def test_no_attempted_attack_is_no_success(measured):
    dense = variant("dense", 0.82, robustness=robustness(0.3))
    artifact = variant("artifact", 0.0, robustness=robustness(0.0, rate=None))
    variants = Variants(dense=dense, pruned=None, artifact=artifact)
    result = parse_gate("attack_success_rate_rise <= 0").judge(Measured(variants, 0.6))
    assert result.value == -0.5
