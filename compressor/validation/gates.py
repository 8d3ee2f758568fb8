"""Gates: bounds on what was measured. Pure functions of figures."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compressor.errors import UserError
from compressor.validation.report import AgainstFigures, GateResult, Report, Variants

_GATE = re.compile(r"\s*([a-z_0-9]+)\s*(<=|>=)\s*([-+]?[0-9.]+(?:[eE][-+]?\d+)?)\s*")


@dataclass(frozen=True)
class Measured:
    """What gates may bound: the variants, and the share of the most frequent label in the test data."""

    variants: Variants
    majority_share: float


def _success_rate_rise(m: Measured) -> float:
    dense = m.variants.dense.robustness.attack_success_rate
    artifact = m.variants.artifact.robustness.attack_success_rate
    # Where the attack had nothing to attack, it had no success either.
    return (artifact or 0.0) - (dense or 0.0)


def _against_dense(m: Measured) -> AgainstFigures:
    against = m.variants.artifact.against_dense
    if against is None:
        raise ValueError("the artifact's attack was not compared with that on the dense model")
    return against


def _latency_ratio(m: Measured) -> float:
    """Worst ratio of median times, artifact over dense, over all shapes."""
    pairs = zip(m.variants.artifact.latency, m.variants.dense.latency, strict=True)
    return max(artifact.p50_ms / dense.p50_ms for artifact, dense in pairs)


# Name and value of each metric that a gate can bound. Drops are dense minus artifact.
METRICS: dict[str, Callable[[Measured], float]] = {
    "accuracy": lambda m: m.variants.artifact.accuracy,
    "accuracy_drop": lambda m: m.variants.dense.accuracy - m.variants.artifact.accuracy,
    "accuracy_under_attack": lambda m: m.variants.artifact.robustness.accuracy_under_attack,
    "accuracy_under_attack_drop": lambda m: (
        m.variants.dense.robustness.accuracy_under_attack
        - m.variants.artifact.robustness.accuracy_under_attack
    ),
    # What the drop may still be, given the number of examples: a bound on it tests "no less robust".
    "accuracy_under_attack_drop_upper": lambda m: _against_dense(m).accuracy_under_attack_drop.interval.high,
    # Where no attack on the dense model succeeded, none fools the artifact.
    "transfer_rate": lambda m: _against_dense(m).transfer.rate or 0.0,
    "attack_success_rate": lambda m: m.variants.artifact.robustness.attack_success_rate or 0.0,
    "attack_success_rate_rise": _success_rate_rise,
    # A dense model that is no better than a constant answer is the wrong checkpoint.
    "dense_over_majority": lambda m: m.variants.dense.accuracy - m.majority_share,
    "sparsity": lambda m: m.variants.artifact.sparsity,
    "size_ratio": lambda m: m.variants.artifact.size_bytes / m.variants.dense.size_bytes,
    "latency_ratio": _latency_ratio,
}


@dataclass(frozen=True)
class Gate:
    """One bound, such as `accuracy_drop <= 0.01`."""

    metric: str
    comparison: str
    bound: float

    def judge(self, measured: Measured) -> GateResult:
        """Hold the metric against the bound; a figure exactly on it passes."""
        value = METRICS[self.metric](measured)
        # Rounded, so that 0.82 - 0.81 is 0.01 and not 0.010000000000000009.
        rounded = round(value, 9)
        passed = rounded <= self.bound if self.comparison == "<=" else rounded >= self.bound
        return GateResult(
            metric=self.metric,
            bound=f"{self.comparison} {self.bound:g}",
            value=rounded,
            status="pass" if passed else "fail",
        )


def parse_gate(text: str) -> Gate:
    """Read `METRIC <= NUMBER` or `METRIC >= NUMBER`.

    Raises:
        UserError: another form, an unknown metric (the nearest known one is suggested), no number.
    """
    match = _GATE.fullmatch(text)
    if not match:
        raise UserError(f"gate {text!r}: write METRIC <= NUMBER or METRIC >= NUMBER")
    metric, comparison, number = match.groups()
    if metric not in METRICS:
        near = difflib.get_close_matches(metric, METRICS, n=1)
        way_out = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(METRICS)}"
        raise UserError(f"gate {text!r}: unknown metric {metric!r}; {way_out}")
    try:
        return Gate(metric, comparison, float(number))
    except ValueError as error:
        raise UserError(f"gate {text!r}: {number!r} is no number") from error


def parse_gates(texts: Sequence[str]) -> list[Gate]:
    """Read all gates, so that a bad one is found before anything is measured."""
    return [parse_gate(text) for text in texts]


def failed_gates(report: Report) -> list[GateResult]:
    """The gates that the artifact does not pass."""
    return [gate for gate in report.gates if gate.status == "fail"]
