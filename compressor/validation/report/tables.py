"""A report, and two of them side by side, as tables for terminals."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from compressor.display.pages import NOTHING, number, percent
from compressor.validation.gates.compare import ComparedFigure, Comparison
from compressor.validation.report.rows import (
    absent_line,
    attack_names,
    gate_interval,
    gate_limit,
    gate_value,
    interval,
    measured_variants,
    number_interval,
    words,
)
from compressor.validation.schema import AgainstFigures, AttackFigures, Report, VariantFigures


def report_table(report: Report) -> Group:
    """Return the table of variants, the gates with their notes, and the verdict."""
    variants = measured_variants(report)
    table = Table(title="Dense model against artifact", title_justify="left")
    table.add_column("")
    for name in variants:
        table.add_column(name, justify="right")
    for label, values in _rows(list(variants.values()), report.task_metric):
        table.add_row(label, *values)
    gates = Table(title="Gates", title_justify="left")
    for column in ("gate", "result", "value", "limit", "95 % interval"):
        gates.add_column(column, justify="left" if column in ("gate", "result") else "right")
    for gate in report.gates:
        gates.add_row(gate.gate, gate.status, gate_value(gate), gate_limit(gate), gate_interval(gate))
    verdict = Text(
        f"Verdict: {report.verdict}", style="bold green" if report.verdict == "pass" else "bold red"
    )
    absent = absent_line(report)
    notes = [Text(absent)] if absent else []
    notes += [Text(f"{gate.gate}: {gate.note}") for gate in report.gates if gate.note]
    return Group(table, gates, *notes, verdict)


def comparison_table(comparison: Comparison, first: str, second: str) -> Group:
    """Return one row for each metric of the two artifacts, then the differences between the reports."""
    table = Table(title=Text(f"A: {first}\nB: {second}"), title_justify="left", title_style="none")
    for column in ("figure", "A", "B", "B - A", "95 % interval"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    table.add_row("verdict", *comparison.verdicts, "", "")
    for figure in comparison.figures:
        table.add_row(*_compared_cells(figure))
    notes = [
        f"Other {basis}: {', '.join(names)}. Figures that rest on it do not compare ({NOTHING})."
        for basis, names in comparison.differs.items()
    ]
    if len(set(comparison.seeds)) > 1:
        seeds = " and ".join(map(str, comparison.seeds))
        notes.append(f"Other seeds: {seeds}. Other examples may have been attacked.")
    if comparison.left_out:
        notes.append(f"Not measured alike in both: {', '.join(comparison.left_out)}.")
    return Group(table, *map(Text, notes))


def _compared_cells(figure: ComparedFigure) -> list[str]:
    name = f"{figure.metric}, {figure.shape}" if figure.shape else figure.metric
    ends = figure.interval
    return [
        name,
        f"{figure.first:.5g}",
        f"{figure.second:.5g}",
        NOTHING if figure.difference is None else f"{figure.difference:+.4g}",
        "" if ends is None else f"{ends.low:+.4f} to {ends.high:+.4f}",
    ]


def _rows(variants: Sequence[VariantFigures], metric: str) -> list[tuple[str, list[str]]]:
    rows = [
        *(_class_rows(variants) if variants[0].accuracy is not None else _number_rows(variants, metric)),
        *_invariance_rows(variants),
        *_attacks_rows(variants),
        ("zeros in the encoder", [percent(v.sparsity) for v in variants]),
        ("size", [f"{v.size_bytes / 1e6:.1f} MB" for v in variants]),
        (
            "load time",
            [NOTHING if v.footprint is None else f"{v.footprint.load_seconds:.2f} s" for v in variants],
        ),
        ("memory of the model", [_memory(v) for v in variants]),
    ]
    for index, shape in enumerate(variants[0].latency):
        rows.append(
            (
                f"p50 of {shape.batch_size} x {shape.sequence_length} tokens",
                [f"{v.latency[index].p50_ms:.1f} ms" for v in variants],
            )
        )
    return rows


def _class_rows(variants: Sequence[VariantFigures]) -> list[tuple[str, list[str]]]:
    return [
        (f"accuracy ({variants[0].examples} texts)", [percent(v.accuracy) for v in variants]),
        ("  its 95 % interval", [interval(v.accuracy_interval) for v in variants]),
        ("  drop to dense, 95 % interval", [_answers_drop(v) for v in variants]),
        ("same label as dense", [_agreement(v) for v in variants]),
        ("calibration error", [percent(v.calibration_error) for v in variants]),
        ("slices worse than dense", [str(sum(part.regression for part in v.slices)) for v in variants]),
    ]


def _number_rows(variants: Sequence[VariantFigures], metric: str) -> list[tuple[str, list[str]]]:
    """The score of a regression, which has no accuracy."""
    return [
        (f"{metric} ({variants[0].examples} texts)", [f"{v.task_score:.3f}" for v in variants]),
        ("  its 95 % interval", [number_interval(v.task_score_interval) for v in variants]),
        ("  drop to dense, 95 % interval", [_score_drop(v) for v in variants]),
        *_ranking_rows(variants),
    ]


def _ranking_rows(variants: Sequence[VariantFigures]) -> list[tuple[str, list[str]]]:
    """How alike the candidates of a query are ordered; no row but for rerankers."""
    found = [v.answers_against_dense and v.answers_against_dense.rank_correlation for v in variants]
    if all(value is None for value in found):
        return []
    return [("rank correlation with dense", [NOTHING if v is None else f"{v:.3f}" for v in found])]


def _invariance_rows(variants: Sequence[VariantFigures]) -> list[tuple[str, list[str]]]:
    """What sharing a batch changes; no rows in reports that did not measure it."""
    measured = [v.invariance for v in variants if v.invariance is not None]
    if not measured:
        return []
    rows = [("largest shift of a logit in a batch", [f"{found.worst_batch_shift:.1e}" for found in measured])]
    if measured[0].batch_disagreement is not None:
        rows.insert(
            0, ("labels changed in a batch", [percent(found.batch_disagreement) for found in measured])
        )
    return rows


def _attacks_rows(variants: Sequence[VariantFigures]) -> list[tuple[str, list[str]]]:
    """Rows under the attack; of several under all of them, then under each."""
    if variants[0].robustness is None:
        return []
    names, examples = attack_names(variants[0]), variants[0].robustness.examples
    whole = [AttackFigures(robustness=v.robustness, against_dense=v.against_dense) for v in variants]
    if len(names) < 2:
        return _attack_rows(f"under attack ({names[0]}, {examples})", whole)
    rows = _attack_rows(f"under all {len(names)} attacks ({examples})", whole)
    for place, name in enumerate(names):
        rows += _attack_rows(f"under {name}", [v.attacks[place] for v in variants])
    return rows


def _attack_rows(title: str, figures: Sequence[AttackFigures]) -> list[tuple[str, list[str]]]:
    attacks = [one.robustness for one in figures]
    return [
        (
            title,
            [percent(attack.accuracy_under_attack) for attack in attacks],
        ),
        ("  its 95 % interval", [interval(attack.accuracy_under_attack_interval) for attack in attacks]),
        ("  drop to dense, 95 % interval", [_drop(one.against_dense) for one in figures]),
        *(
            (
                f"  within {words(budget.max_words_changed)}",
                [percent(attack.word_budgets[place].accuracy_under_attack) for attack in attacks],
            )
            for place, budget in enumerate(attacks[0].word_budgets)
        ),
        *_mean_rows(figures),
        ("attack success rate", [percent(attack.attack_success_rate) for attack in attacks]),
        ("queries an example", [number(attack.queries_per_example, ".1f") for attack in attacks]),
    ]


def _mean_rows(figures: Sequence[AttackFigures]) -> list[tuple[str, list[str]]]:
    means = [one.robustness.mean_accuracy_under_attack for one in figures]
    if means[0] is None:
        return []
    againsts = [one.against_dense for one in figures]
    drops = [against.mean_accuracy_under_attack_drop if against else None for against in againsts]
    return [
        (
            f"  mean over 0 to {words(means[0].longest_budget)}",
            [NOTHING if mean is None else percent(mean.mean) for mean in means],
        ),
        (
            "  its drop to dense, 95 % interval",
            [NOTHING if drop is None else interval(drop.interval) for drop in drops],
        ),
    ]


def _score_drop(variant: VariantFigures) -> str:
    against = variant.answers_against_dense
    return NOTHING if against is None else number_interval(against.task_score_drop_interval)


def _drop(against: AgainstFigures | None) -> str:
    return NOTHING if against is None else interval(against.accuracy_under_attack_drop.interval)


def _answers_drop(variant: VariantFigures) -> str:
    against = variant.answers_against_dense
    drop = None if against is None else against.accuracy_drop
    return NOTHING if drop is None else interval(drop.interval)


def _agreement(variant: VariantFigures) -> str:
    against = variant.answers_against_dense
    return NOTHING if against is None else percent(against.label_agreement)


def _memory(variant: VariantFigures) -> str:
    footprint = variant.footprint
    return NOTHING if footprint is None else f"{footprint.model_memory_bytes / 1e6:.0f} MB"
