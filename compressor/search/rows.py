"""What a search found as rows of text, for its pages. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compressor.display.pages import NOTHING, number, percent
from compressor.search.record import (
    CandidateFigures,
    ModelFigures,
    OutcomeFigures,
    QualityFigures,
    SearchRecord,
)
from compressor.validation.gates.gates import parse_gates
from compressor.validation.report.rows import TASK_SCORES, gate_limit, gate_value, interval, number_interval
from compressor.validation.schema import GateResult, MeanDifferenceFigures

# A name, then a cell for each column.
Row = list[str]


@dataclass(frozen=True)
class CandidateRow:
    """A candidate in the table of all.

    Attributes:
        name: number, and what it is.
        marks: `chosen`, `nearest`, `front`, as far as it is that.
        cells: as `candidate_columns` has them.
        holds: whether it holds all gates.
        gates: what came of them.
    """

    name: str
    marks: list[str]
    cells: Row
    holds: bool
    gates: str


@dataclass(frozen=True)
class Obstacle:
    """A gate that the nearest candidate does not hold.

    Attributes:
        value, limit: of the nearest candidate; `short`: by how much it misses.
        best: the value that comes closest among all candidates, with the number of its candidate.
    """

    gate: str
    value: str
    limit: str
    short: str
    best: str


def has_accuracy(record: SearchRecord) -> bool:
    """Return whether the models answer with classes; the answers of a regression have no accuracy."""
    return record.dense_figures.accuracy is not None


def score_name(record: SearchRecord) -> str:
    """Return what `task_score` is, as it is within a sentence."""
    return "accuracy" if record.task_metric == "accuracy" else TASK_SCORES[record.task_metric]


def candidate_columns(record: SearchRecord) -> Row:
    """Return the names of the columns of figures in the table of candidates."""
    scores = ["Accuracy"] if has_accuracy(record) else []
    if record.task_metric != "accuracy":
        scores.append(TASK_SCORES[record.task_metric])
    attack = ["Under attack"] if is_attacked(record) else []
    return ["Made for", "Runtime", "Speed-up", "Size, MB", *scores, *attack]


def attack_name(record: SearchRecord) -> str:
    """Return what the accuracy under attack is, as it is within a sentence."""
    return record.attack_metric.replace("_", " ")


def is_attacked(record: SearchRecord) -> bool:
    """Return whether any candidate was attacked."""
    return any(one.accuracy_under_attack is not None for one in record.candidates)


def candidate_rows(record: SearchRecord) -> list[CandidateRow]:
    """Return a row for each candidate, in the order of their numbers."""
    return [
        CandidateRow(
            f"{one.number}",
            _marks(one, record),
            _candidate_cells(one, record),
            one.holds,
            "hold" if one.holds else one.problems,
        )
        for one in record.candidates
    ]


def outcome_rows(record: SearchRecord) -> list[Row]:
    """Return rows of figure, dense model, chosen candidate and their difference, on the test texts."""
    found = record.test_figures
    if found is None:
        return []
    dense, artifact = found.dense, found.artifact
    times = [
        _ratio_row(f"p50 of {own.batch_size} × {own.length}, ms", other.ms, own.ms, ".2f", "as fast")
        for own, other in zip(artifact.latency, dense.latency, strict=True)
    ]
    sizes = (dense.size_bytes / 1e6, artifact.size_bytes / 1e6)
    return [*_quality_rows(record, found), _ratio_row("Size, MB", *sizes, ".1f", "smaller"), *times]


def headline(record: SearchRecord) -> str | None:
    """Return the chosen candidate against the dense model in one sentence; None where none was chosen."""
    found = record.test_figures
    if found is None or record.chosen is None:
        return None
    dense, artifact = found.dense, found.artifact
    chosen = record.candidates[record.chosen]
    name = "accuracy" if has_accuracy(record) else score_name(record)
    parts = [
        f"{found.speedup:.1f} times as fast as the dense model in PyTorch",
        f"{dense.size_bytes / artifact.size_bytes:.1f} times smaller",
        f"{name} {_quality(artifact, record)}, of the dense model {_quality(dense, record)}",
    ]
    if artifact.accuracy_under_attack is not None:
        own, other = percent(artifact.accuracy_under_attack), percent(dense.accuracy_under_attack)
        parts.append(f"{attack_name(record)} {own}, of the dense model {other}")
    return f"Candidate {chosen.number} ({chosen.name}): {'; '.join(parts)}."


def obstacles(record: SearchRecord) -> list[Obstacle]:
    """Return the gates that stand in the way of the nearest candidate; none where one was chosen."""
    if record.nearest is None:
        return []
    return [
        Obstacle(
            result.gate,
            gate_value(result),
            gate_limit(result),
            "unsure" if result.status != "fail" else f"{shortfall(result):.3g}",
            _closest(result.gate, record.candidates),
        )
        for result in record.candidates[record.nearest].not_held
    ]


def shortfall(result: GateResult) -> float:
    """Return by how much a failed gate is missed: the value, or the end of the interval that must hold."""
    gate = parse_gates([result.gate])[0]
    held = result.value
    if gate.certain and result.interval is not None:
        held = result.interval.high if gate.comparison == "<=" else result.interval.low
    return held - result.limit if gate.comparison == "<=" else result.limit - held


def prediction_groups(record: SearchRecord) -> list[tuple[str, list[Row]]]:
    """Return for each candidate its name and a row for each shape.

    A row has shape, milliseconds of the dense model, predicted and measured ones, and by what fraction the
    prediction is off.
    """
    return [
        (
            f"{one.number}: {one.name}",
            [
                [
                    f"{entry.batch_size} × {entry.length}",
                    f"{entry.dense_ms:.2f}",
                    number(entry.predicted_ms, ".2f"),
                    f"{entry.artifact_ms:.2f}",
                    _off(entry.predicted_ms, entry.artifact_ms),
                ]
                for entry in one.latency
            ],
        )
        for one in record.candidates
    ]


def width_rows(record: SearchRecord) -> list[Row]:
    """Return what each pruned candidate keeps: number, then heads and neurons of each layer."""
    return [
        [
            f"{one.number}: {one.name}",
            ", ".join(str(own.heads) for own in one.widths),
            ", ".join(str(own.neurons) for own in one.widths),
        ]
        for one in record.candidates
        if one.widths
    ]


def table_rows(record: SearchRecord) -> list[Row]:
    """Return file, runtime and precision of each latency table, in the order in which they were tried."""
    found = {one.table: [one.table, one.runtime, one.precision] for one in record.candidates}
    return list(found.values())


def _candidate_cells(one: CandidateFigures, record: SearchRecord) -> Row:
    scores = [_with(percent(one.accuracy), interval(one.accuracy_interval))] if has_accuracy(record) else []
    if record.task_metric != "accuracy":
        scores.append(_with(f"{one.task_score:.3f}", number_interval(one.task_score_interval)))
    attack = [_under_attack(one)] if is_attacked(record) else []
    return [
        "dense" if one.target is None else f"{one.target:.3g}×",
        f"{one.runtime} {one.precision}",
        f"{one.speedup:.2f}",
        f"{one.size_bytes / 1e6:.1f}",
        *scores,
        *attack,
    ]


def _marks(one: CandidateFigures, record: SearchRecord) -> list[str]:
    found = {
        "chosen": one.number == record.chosen,
        "nearest": one.number == record.nearest,
        "front": one.number in record.front,
    }
    return [name for name, is_so in found.items() if is_so]


def _quality_rows(record: SearchRecord, outcome: OutcomeFigures) -> list[Row]:
    found, dense, artifact = [], outcome.dense, outcome.artifact
    if dense.accuracy is not None and artifact.accuracy is not None:
        cells = [_with(percent(own.accuracy), interval(own.accuracy_interval)) for own in (dense, artifact)]
        found.append(["Accuracy", *cells, _points(outcome.accuracy_drop)])
    if record.task_metric != "accuracy":
        pair = (dense, artifact)
        cells = [_with(f"{own.task_score:.3f}", number_interval(own.task_score_interval)) for own in pair]
        difference = f"{artifact.task_score - dense.task_score:+.3f}"
        found.append([TASK_SCORES[record.task_metric], *cells, difference])
    if artifact.accuracy_under_attack is not None:
        cells = [_under_attack(own) for own in (dense, artifact)]
        found.append([attack_name(record).capitalize(), *cells, _points(outcome.accuracy_under_attack_drop)])
    if artifact.worst_batch_shift is not None:
        cells = [_in_batches(own) for own in (dense, artifact)]
        found.append(["Other labels in batches", *cells, ""])
    return found


def _ratio_row(name: str, dense: float, artifact: float, form: str, better: str) -> Row:
    return [name, format(dense, form), format(artifact, form), f"{dense / artifact:.2f} times {better}"]


def _quality(figures: ModelFigures, record: SearchRecord) -> str:
    """Accuracy, or the score of a regression, with its 95 % interval."""
    if has_accuracy(record):
        return _with(percent(figures.accuracy), interval(figures.accuracy_interval))
    return _with(f"{figures.task_score:.3f}", number_interval(figures.task_score_interval))


def _points(drop: MeanDifferenceFigures | None) -> str:
    """What the artifact has more, in points, with its 95 % interval."""
    if drop is None:
        return NOTHING
    low, high = (-100 * end for end in (drop.interval.high, drop.interval.low))
    return _with(f"{-100 * drop.difference:+.1f} points", f"{low:+.1f} to {high:+.1f}")


def _under_attack(figures: QualityFigures) -> str:
    found = figures.accuracy_under_attack
    if found is None:
        return NOTHING
    return _with(percent(found), interval(figures.accuracy_under_attack_interval))


def _in_batches(figures: QualityFigures) -> str:
    """Share of labels that depend on the batch, and the largest shift of a logit."""
    shift = number(figures.worst_batch_shift, ".1e")
    return f"{percent(figures.batch_disagreement)}, logits within {shift}"


def _with(text: str, ends: str) -> str:
    return f"{text} ({ends})"


def _off(predicted: float | None, measured: float) -> str:
    return NOTHING if predicted is None else f"{predicted / measured - 1:+.1%}"


def _closest(gate: str, candidates: Sequence[CandidateFigures]) -> str:
    """The value of a gate at the candidate that misses it least, and that candidate's number."""
    found = [(result, one) for one in candidates for result in one.gates if result.gate == gate]
    result, one = min(found, key=lambda entry: shortfall(entry[0]))
    return f"{gate_value(result)} (candidate {one.number})"
