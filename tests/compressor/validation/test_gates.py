import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.errors import UserError
from compressor.options import ValidateConfig
from compressor.validation.gates import METRICS, Gate, Measured, parse_gate, parse_gates
from compressor.validation.report import (
    AgainstFigures,
    IntervalFigures,
    LatencyFigures,
    RobustnessFigures,
    VariantFigures,
    Variants,
)

ANY_INTERVAL = IntervalFigures(low=0.0, high=1.0)
AGAINST = AgainstFigures.model_validate(
    {
        "accuracy_under_attack_drop": {
            "difference": 0.05,
            "interval": {"low": -0.01, "high": 0.11},
            "p_value": 0.18,
            "only_first": 8,
            "only_second": 3,
            "examples": 100,
        },
        "transfer": {"texts": 40, "fooled": 30, "rate": 0.75, "interval": {"low": 0.6, "high": 0.86}},
    }
)


def variant(
    accuracy: float,
    under_attack: float,
    p50: float = 10.0,
    rate: float | None = 0.5,
    against: AgainstFigures | None = None,
) -> VariantFigures:
    return VariantFigures(
        path="somewhere",
        accuracy=accuracy,
        examples=100,
        robustness=RobustnessFigures(
            attack="deepwordbug",
            accuracy=accuracy,
            accuracy_under_attack=under_attack,
            attack_success_rate=rate,
            queries_per_example=20.0,
            examples=100,
            accuracy_interval=ANY_INTERVAL,
            accuracy_under_attack_interval=ANY_INTERVAL,
            attack_success_rate_interval=None,
        ),
        against_dense=against,
        latency=[
            LatencyFigures(batch_size=1, sequence_length=32, p50_ms=p50, p95_ms=p50, examples_per_second=1.0)
        ],
        size_bytes=1000,
        sparsity=0.5,
    )


@pytest.fixture
def measured() -> Measured:
    artifact = variant(0.81, 0.25, 5.0, against=AGAINST)
    variants = Variants(dense=variant(0.82, 0.3, 10.0), pruned=None, artifact=artifact)
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
    dense = variant(0.82, 0.3)
    variants = Variants(dense=dense, pruned=None, artifact=variant(0.0, 0.0, rate=None))
    result = parse_gate("attack_success_rate_rise <= 0").judge(Measured(variants, 0.6))
    assert result.value == -0.5
