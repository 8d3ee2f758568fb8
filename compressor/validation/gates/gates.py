"""Gates: bounds on what was measured. Pure functions of figures.

A gate is a line such as

    accuracy_drop <= 0.01                 a number
    accuracy >= 0.99 * dense              the same figure of the dense model in this report
    accuracy >= baseline - 0.005          the same figure of the artifact in the report of --baseline
    latency_p50 <= 1.1 * baseline
    warn: size_ratio <= 0.3
    certain: accuracy_drop <= 0.02

in general `[warn:] [certain:] METRIC[ATTACK] <= BOUND` or `>=`, where `[ATTACK]` may be left out and BOUND
is a number, or `dense` or `baseline` with an optional factor in front and an optional number added or taken
away. METRIC is one of `compressor.validation.gates.readings.METRICS`. Times and throughput have a figure at
each shape: such a gate holds if it holds at every shape, and its result shows the shape that is nearest to
the bound or worst. So have attacks within word budgets, one for each of them, and all figures of attacks
where several ran, one for each attack. `accuracy_under_attack[pwws] >= 0.3` is about one of these attacks
alone, `accuracy_under_all_attacks` about all together.

What comes of it:

- `fail`: the figure breaks the bound; exit code 1. With `warn:` in front it is a `warn`; exit code 0.
- `pass`: the figure keeps the bound, and so does all of its 95 % interval, if it has one.
- `inconclusive`: the figure keeps the bound, but its interval crosses it: the test was too small to tell.
  Also where the test data hold one class only, so that a constant answer is always right, where the times
  did not settle, the baseline's times are from another machine, or no artifact could
  have broken the bound: with 2 % accuracy under attack the dense model has no 5 points to lose. Exit code 0.
- With `certain:` in front the bound must hold for the worse end of the interval: one that crosses it fails.
  The other reasons to be inconclusive stay. It is for metrics with an interval only.

The uncertainty of what a figure is held against counts too. Accuracies on the same examples are compared
example by example; where the pairs are not known, the two figures count as independent, which makes the
interval wider, never narrower. A figure exactly on its bound keeps it.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from compressor.errors import UserError, read_all
from compressor.intervals import Interval
from compressor.validation.gates.attack_readings import attack_at
from compressor.validation.gates.metric import Basis, Measured, Reading, Readings
from compressor.validation.gates.readings import ALL_ATTACKS_METRICS, METRICS
from compressor.validation.schema import GateResult, GateStatus, IntervalFigures, VariantFigures

Comparison = Literal["<=", ">="]
Reference = Literal["dense", "baseline"]

REFERENCES: tuple[Reference, ...] = ("dense", "baseline")
PREFIXES = ("warn", "certain")
FORM = "write METRIC <= BOUND or METRIC >= BOUND, with a number, dense or baseline in BOUND"
_NUMBER = r"[-+]?[0-9.]+(?:[eE][-+]?\d+)?"
_GATE = re.compile(r"\s*((?:[a-z]+\s*:\s*)*)([a-z_0-9]+)\s*(?:\[\s*([^][]+?)\s*\]\s*)?(<=|>=)\s*(.*?)\s*")
_RELATIVE = re.compile(rf"(?:({_NUMBER})\s*\*\s*)?([a-z_]+)(?:\s*([-+])\s*({_NUMBER}))?")


@dataclass(frozen=True)
class Bound:
    """`factor * reference + offset`, or `offset` alone.

    Attributes:
        factor: above 0; 1 where there is no reference.
    """

    offset: float
    reference: Reference | None = None
    factor: float = 1.0

    def __str__(self) -> str:
        if self.reference is None:
            return _written(self.offset)
        factor = "" if self.factor == 1 else f"{_written(self.factor)} * "
        sign = "-" if self.offset < 0 else "+"
        offset = f" {sign} {_written(abs(self.offset))}" if self.offset else ""
        return f"{factor}{self.reference}{offset}"


@dataclass(frozen=True)
class Gate:
    """One bound, such as `accuracy_drop <= 0.01`.

    Attributes:
        attack: of which alone the figure is; None if it is of each that ran.
    """

    metric: str
    comparison: Comparison
    bound: Bound
    warns: bool = False
    certain: bool = False
    attack: str | None = None

    def __str__(self) -> str:
        prefixes = ("warn: " if self.warns else "") + ("certain: " if self.certain else "")
        attack = "" if self.attack is None else f"[{self.attack}]"
        return f"{prefixes}{self.metric}{attack} {self.comparison} {self.bound}"

    def judge(
        self,
        measured: Measured,
        baseline: Measured | None = None,
        doubts: Mapping[Basis, str] | None = None,
    ) -> GateResult:
        """Compare the metric with the bound at each of its places.

        Args:
            baseline: of the stored report; needed where the bound refers to it.
            doubts: why figures on that basis do not compare with the baseline's.

        Raises:
            UserError: the metric was not measured, here or in the baseline.
        """
        metric, artifact = METRICS[self.metric], measured.variants.artifact
        reference = self._reference(measured, baseline)
        own = self._of_attack(metric.read(measured, artifact), artifact)
        others = metric.read(*reference) if reference else dict.fromkeys(own, Reading(0.0))
        missing = [place for place in own if place not in others]
        if missing:
            places = f" at {', '.join(missing)}" if any(missing) else ""
            raise UserError(f"gate {str(self)!r}: the baseline has no such figure{places}")
        doubt = next((text for basis, text in (doubts or {}).items() if basis in metric.basis), None)
        if self.bound.reference != "baseline":
            doubt = None
        results = {
            place: self._judge_at(place, reading, others[place], reference and reference[1], artifact, doubt)
            for place, reading in own.items()
        }
        # A bound that nothing can break at one place is judged by the others.
        telling = [result for place, result in results.items() if not self._is_idle(own[place], result.limit)]
        return max(telling or results.values(), key=self._badness)

    def _of_attack(self, readings: Readings, artifact: VariantFigures) -> Readings:
        """The readings that the gate is about.

        Raises:
            UserError: of an attack that did not run.
        """
        if self.attack is None:
            return readings
        if not artifact.attacks:
            ran = artifact.robustness is not None and artifact.robustness.attack == self.attack
            found = readings if ran else {}
        else:
            found = {place: own for place, own in readings.items() if attack_at(place) == self.attack}
        if not found:
            raise UserError(f"gate {str(self)!r}: {self.attack} has no such figure here")
        return found

    def _reference(
        self, measured: Measured, baseline: Measured | None
    ) -> tuple[Measured, VariantFigures] | None:
        if self.bound.reference is None:
            return None
        if self.bound.reference == "dense":
            return measured, measured.variants.dense
        if baseline is None:
            raise UserError(f"gate {str(self)!r}: there is no baseline; give a report with --baseline")
        return baseline, baseline.variants.artifact

    def _judge_at(
        self,
        place: str,
        own: Reading,
        other: Reading,
        reference: VariantFigures | None,
        artifact: VariantFigures,
        doubt: str | None,
    ) -> GateResult:
        moved = self.bound.factor * other.value if reference else 0.0
        limit = moved + self.bound.offset
        margin = own.interval
        if reference is not None:
            factor = self.bound.factor
            metric = METRICS[self.metric]
            margin = metric.difference_interval(place, own, other, artifact, reference, factor)
        interval = margin and IntervalFigures(low=margin.low + moved, high=margin.high + moved)
        holds = self._holds(own.value, limit)
        surely = interval is None or self._holds(self._worst(interval), limit)
        doubt = doubt or own.undefined
        note = doubt or own.doubt or (other.doubt if reference else None) or self._why_idle(own, limit)
        status: GateStatus = "pass"
        if doubt is None and not (holds and (surely or not self.certain)):
            status = "warn" if self.warns else "fail"
        elif note or not surely:
            status = "inconclusive"
        return GateResult(
            gate=str(self),
            metric=self.metric,
            place=place or None,
            # Rounded, so that 0.82 - 0.81 is 0.01 and not 0.010000000000000009.
            value=round(own.value, 9),
            interval=interval,
            bound=f"{self.comparison} {self.bound}",
            limit=round(limit, 9),
            status=status,
            note=note,
        )

    def _holds(self, value: float, limit: float) -> bool:
        value, limit = round(value, 9), round(limit, 9)
        return value <= limit if self.comparison == "<=" else value >= limit

    def _is_idle(self, own: Reading, limit: float) -> bool:
        """Whether no artifact could break the bound."""
        return own.possible is not None and self._holds(self._worst(own.possible), limit)

    def _worst(self, ends: Interval | IntervalFigures) -> float:
        """That end which is nearer to breaking the bound."""
        return ends.high if self.comparison == "<=" else ends.low

    def _why_idle(self, own: Reading, limit: float) -> str | None:
        """Why no artifact could break the bound, if none could."""
        if own.possible is None or not self._is_idle(own, limit):
            return None
        side, worst = "most" if self.comparison == "<=" else "least", self._worst(own.possible)
        is_mean = self.metric.startswith("mean_accuracy_under_attack")
        tells_more = "a tighter bound" if is_mean else "mean_accuracy_under_attack_drop"
        return (
            f"no artifact could break it, since with this dense model it is at {side} {worst:.4g}; "
            f"{tells_more} tells more, or an attack within bounds (attack.max_words_changed)"
        )

    def _badness(self, result: GateResult) -> tuple[int, float]:
        """Grows with what is wrong: the status first, then how far the figure is on the wrong side."""
        over = result.value - result.limit if self.comparison == "<=" else result.limit - result.value
        return ("pass", "inconclusive", "warn", "fail").index(result.status), over / (abs(result.limit) or 1)


def parse_gate(text: str) -> Gate:
    """Parse a gate; the module's docstring has the syntax.

    Raises:
        UserError: another form, an unknown metric (the nearest known one is suggested), no number, or a
            combination that makes no sense.
    """
    match = _GATE.fullmatch(text)
    if not match:
        raise UserError(f"gate {text!r}: {FORM}")
    words, metric, attack, comparison, bound = match.groups()
    prefixes = [word.strip() for word in words.split(":")[:-1]]
    for prefix in prefixes:
        _check_name(text, "prefix", prefix, PREFIXES)
    _check_name(text, "metric", metric, METRICS)
    gate = Gate(
        metric,
        "<=" if comparison == "<=" else ">=",
        _parse_bound(text, bound),
        warns="warn" in prefixes,
        certain="certain" in prefixes,
        attack=attack,
    )
    _check_sense(text, gate)
    return gate


def parse_gates(texts: Sequence[str]) -> list[Gate]:
    """Parse all gates, so that errors are found before anything is measured.

    Raises:
        UserError: all that cannot be read.
    """
    return read_all("the gates", parse_gate, texts)


def _parse_bound(text: str, bound: str) -> Bound:
    if re.fullmatch(_NUMBER, bound):
        return Bound(_number(text, bound))
    match = _RELATIVE.fullmatch(bound)
    if not match:
        raise UserError(f"gate {text!r}: {FORM}")
    factor, reference, sign, offset = match.groups()
    _check_name(text, "name in its bound", reference, REFERENCES)
    added = _number(text, offset) if offset else 0.0
    return Bound(
        offset=-added if sign == "-" else added,
        reference="dense" if reference == "dense" else "baseline",
        factor=_number(text, factor) if factor else 1.0,
    )


def _check_sense(text: str, gate: Gate) -> None:
    metric = METRICS[gate.metric]
    if gate.bound.factor <= 0:
        raise UserError(f"gate {text!r}: the factor of {gate.bound.reference} must be above 0")
    if gate.bound.reference == "dense" and not metric.of_one:
        raise UserError(f"gate {text!r}: {gate.metric} is a comparison with dense already; write a number")
    if gate.attack is not None and ("attack" not in metric.basis or gate.metric in ALL_ATTACKS_METRICS):
        whose = "all attacks together" if "attack" in metric.basis else "no attack"
        raise UserError(f"gate {text!r}: {gate.metric} is of {whose}; leave [{gate.attack}] out")
    if gate.certain and not metric.has_interval:
        known = ", ".join(name for name, entry in METRICS.items() if entry.has_interval)
        raise UserError(f"gate {text!r}: {gate.metric} has no interval to be certain by; those with: {known}")


def _check_name(text: str, kind: str, name: str, known: Iterable[str]) -> None:
    names = list(known)
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=1)
    way_out = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    raise UserError(f"gate {text!r}: unknown {kind} {name!r}; {way_out}")


def _number(text: str, digits: str) -> float:
    try:
        value = float(digits)
    except ValueError as error:
        raise UserError(f"gate {text!r}: {digits!r} is no number") from error
    if not math.isfinite(value):
        raise UserError(f"gate {text!r}: {digits!r} is too large")
    return value


def _written(value: float) -> str:
    """The shortest text that is read as the same number."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def holds_surely(result: GateResult, confidence: float) -> bool:
    """Return whether a gate holds with a one-sided confidence, by the interval of its figure.

    The figure counts as normally distributed. Where it has no interval, that it holds is enough, and so it is
    where a gate only warns or must be certain by itself.
    """
    gate = parse_gates([result.gate])[0]
    if result.status == "fail" or result.interval is None or gate.warns or gate.certain:
        return result.status != "fail"
    deviation = (result.interval.high - result.interval.low) / (2 * NormalDist().inv_cdf(0.975))
    reserve = NormalDist().inv_cdf(confidence) * deviation
    if gate.comparison == "<=":
        return result.value + reserve <= result.limit
    return result.value - reserve >= result.limit


def failed_gates(results: Iterable[GateResult]) -> list[GateResult]:
    """Return the results of the gates that the artifact fails."""
    return [result for result in results if result.status == "fail"]
