"""A report's figures as rows of text, for whatever form shows them. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compressor.display.pages import NOTHING, number, percent
from compressor.models.metrics import RANKINGS
from compressor.validation.report.plots import latency_by_shape, latency_shapes
from compressor.validation.schema import (
    VARIANTS,
    AgainstFigures,
    AnswersAgainstFigures,
    DifferenceFigures,
    FootprintFigures,
    GateResult,
    IntervalFigures,
    InvarianceFigures,
    LatencyFigures,
    LayerRow,
    MeanDifferenceFigures,
    Report,
    RobustnessFigures,
    SliceFigures,
    VariantFigures,
)

INTERVAL = "Its 95 % interval"
DROP = "Drop to dense"
DROP_UNDER_ATTACK = "Drop under attack to dense"
TRANSFER = "Fooled by the attacks on dense"
TASK_SCORES = {
    "accuracy": "Accuracy",
    "f1": "F1",
    "matthews": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "ndcg": "NDCG@10",
    "mrr": "MRR@10",
}

# Name of a figure, then a cell a variant.
Row = list[str]


@dataclass(frozen=True)
class SliceCell:
    """A variant on a slice: accuracy, drop to the dense model's, and whether that is a regression."""

    accuracy: str
    drop: str
    regression: bool


def measured_variants(report: Report) -> dict[str, VariantFigures]:
    """Return the variants that were at hand, by name, the dense model first."""
    found = {name: getattr(report.variants, name) for name in VARIANTS}
    return {name: figures for name, figures in found.items() if figures is not None}


def interval(ends: IntervalFigures | None) -> str:
    """Return both ends of an interval of shares as percentages, None as a dash."""
    return NOTHING if ends is None else f"{ends.low:.1%} to {ends.high:.1%}"


def number_interval(ends: IntervalFigures) -> str:
    """Return both ends of an interval of scores."""
    return f"{ends.low:.3f} to {ends.high:.3f}"


def words(share: float) -> str:
    """Return a share of a text's words, such as `12.5% of words`."""
    return f"{100 * share:.3g}% of words"


def variant_groups(report: Report) -> list[tuple[str, list[Row]]]:
    """Return the table of variants in parts: a heading, and a row for each figure; none without rows."""
    variants = [getattr(report.variants, name) for name in VARIANTS]
    parts = {
        "Answers": [_answer_cells(figures, report.task_metric) if figures else {} for figures in variants],
        **_attack_parts(variants),
        "Weights and cost": [_cost_cells(figures) if figures else {} for figures in variants],
    }
    return [
        (heading, [[name, *(column.get(name, NOTHING) for column in columns)] for name in columns[0]])
        for heading, columns in parts.items()
        if columns[0]
    ]


def summary_rows(report: Report) -> list[Row]:
    """Return what a job's summary shows of each variant, shares with their intervals."""
    columns = [
        _summary_cells(figures, report.task_metric) if figures else {}
        for figures in (getattr(report.variants, name) for name in VARIANTS)
    ]
    return [[name, *(column.get(name, NOTHING) for column in columns)] for name in columns[0]]


def slice_rows(report: Report) -> list[tuple[str, str, str, list[SliceCell]]]:
    """Return for each slice what it is by, its name, its examples, and a cell a variant."""
    figures = measured_variants(report)
    return [
        (
            parts[0].by,
            parts[0].name,
            str(parts[0].examples),
            [_slice_cell(part) for part in parts],
        )
        for parts in zip(*(variant.slices for variant in figures.values()), strict=True)
    ]


def regressions(report: Report) -> list[str]:
    """Return one line for each slice on which the artifact is worse than the dense model."""
    return [
        f"{part.by} {part.name}: {percent(part.drop.difference)} worse than dense "
        f"({interval(part.drop.interval)}) on {part.examples} texts"
        for part in report.variants.artifact.slices
        if part.regression and part.drop is not None
    ]


def absent_line(report: Report) -> str | None:
    """Return which classes of the model the test data lack; None where they hold all."""
    names = report.absent_classes
    if not names:
        return None
    what = "class" if len(names) == 1 else f"{len(names)} classes"
    return f"No test text is of the model's {what} {', '.join(names)}: nothing here is about that."


def latency_groups(report: Report) -> list[tuple[str, list[tuple[Row, bool]]]]:
    """Return for each shape its name and a row a variant, and whether its times settled.

    A row has name, p50, p95, p99, throughput, and speed relative to dense.
    """
    figures = measured_variants(report)
    by_variant = {name: latency_by_shape(variant) for name, variant in figures.items()}
    return [
        (
            f"{shape[0]} × {shape[1]}",
            [
                _latency_row(name, entries.get(shape), by_variant["dense"].get(shape))
                for name, entries in by_variant.items()
            ],
        )
        for shape in latency_shapes(figures)
    ]


def latency_rounds(figures: Mapping[str, VariantFigures]) -> str:
    """Return how many timed runs are behind a figure."""
    counts = sorted({entry.rounds for variant in figures.values() for entry in variant.latency})
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def layer_rows(layers: Sequence[LayerRow]) -> list[Row]:
    """Return a row for each layer: name, sparsity, relative error."""
    return [[layer.name, percent(layer.sparsity), number(layer.relative_error, ".3g")] for layer in layers]


def gate_value(gate: GateResult) -> str:
    """Return the value in the bound's unit, with digits enough to tell it from the limit."""
    short = f"{gate.value:.4g}"
    return f"{gate.value:.9g}" if short == f"{gate.limit:.4g}" else short


def gate_limit(gate: GateResult) -> str:
    """Return the number that the bound came to, with the digits of the value."""
    return f"{gate.limit:.9g}" if f"{gate.value:.4g}" == f"{gate.limit:.4g}" else f"{gate.limit:.4g}"


def gate_interval(gate: GateResult) -> str:
    """Return the interval that was held against the limit, in the bound's unit."""
    ends = gate.interval
    return NOTHING if ends is None else f"{ends.low:.4g} to {ends.high:.4g}"


def gate_counts(gates: Sequence[GateResult]) -> str:
    """Return in words how many gates came to what, the worst first."""
    words = {"fail": "failed", "warn": "warned", "inconclusive": "inconclusive", "pass": "passed"}
    counts = {word: sum(gate.status == status for gate in gates) for status, word in words.items()}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def _answer_cells(figures: VariantFigures, metric: str) -> dict[str, str]:
    own: dict[str, str] = {}
    if figures.accuracy is not None:
        own = {
            "Accuracy": percent(figures.accuracy),
            INTERVAL: interval(figures.accuracy_interval),
            **_difference_cells(figures.answers_against_dense, DROP),
        }
    if metric != "accuracy":
        name, ends = TASK_SCORES[metric], figures.task_score_interval
        own |= {name: f"{figures.task_score:.3f}", f"{name}, 95 % interval": number_interval(ends)}
        own |= _score_cells(figures.answers_against_dense, name)
        if metric in RANKINGS:
            own |= _ranking_cells(figures.answers_against_dense)
    if figures.calibration_error is not None:
        own["Calibration error"] = percent(figures.calibration_error)
    return own | _invariance_cells(figures.invariance) | {"Test examples": str(figures.examples)}


def _invariance_cells(found: InvarianceFigures | None) -> dict[str, str]:
    """What sharing a batch changes; no rows in reports that did not measure it."""
    if found is None:
        return {}
    shift = {"Largest shift of a logit in a batch": f"{found.worst_batch_shift:.1e}"}
    if found.batch_disagreement is None:
        return shift
    return {"Labels changed in a batch": percent(found.batch_disagreement), **shift}


def _difference_cells(against: AnswersAgainstFigures | None, name: str) -> dict[str, str]:
    ends, test, same = f"{name}, 95 % interval", f"{name}, McNemar's p", "Same label as dense"
    drop = None if against is None else against.accuracy_drop
    if against is None or drop is None:
        return dict.fromkeys((name, ends, test, same, f"{same}, 95 % interval"), NOTHING)
    return {
        name: percent(drop.difference),
        ends: interval(drop.interval),
        test: f"{drop.p_value:.2g}",
        same: percent(against.label_agreement),
        f"{same}, 95 % interval": interval(against.label_agreement_interval),
    }


def _score_cells(against: AnswersAgainstFigures | None, name: str) -> dict[str, str]:
    drop, ends = f"Drop of {name} to dense", f"Drop of {name}, 95 % interval"
    if against is None:
        return {drop: NOTHING, ends: NOTHING}
    return {drop: f"{against.task_score_drop:.3f}", ends: number_interval(against.task_score_drop_interval)}


def _ranking_cells(against: AnswersAgainstFigures | None) -> dict[str, str]:
    """How alike the dense model and a variant order the candidates of a query."""
    same, ends = "Rank correlation with dense", "Rank correlation, 95 % interval"
    if against is None or against.rank_correlation is None or against.rank_correlation_interval is None:
        return {same: NOTHING, ends: NOTHING}
    return {
        same: f"{against.rank_correlation:.3f}",
        ends: number_interval(against.rank_correlation_interval),
    }


def _attack_parts(variants: Sequence[VariantFigures | None]) -> dict[str, list[dict[str, str]]]:
    """The cells under attack by their heading; of several attacks under all of them, then under each."""
    dense = variants[0]
    names = attack_names(dense) if dense else []
    whole = [_attack_cells(v.robustness, v.against_dense) if v else {} for v in variants]
    if len(names) < 2:
        return {"Under attack": whole}
    each = {
        f"Under {name}": [
            _attack_cells(v.attacks[place].robustness, v.attacks[place].against_dense) if v else {}
            for v in variants
        ]
        for place, name in enumerate(names)
    }
    return {"Under all attacks": whole, **each}


def attack_names(figures: VariantFigures) -> list[str]:
    """Return the names of the attacks on a variant."""
    return figures.robustness.attack.split(",") if figures.robustness else []


def _attack_cells(attack: RobustnessFigures | None, against: AgainstFigures | None) -> dict[str, str]:
    if attack is None:
        return {}
    return {
        "Accuracy under attack": percent(attack.accuracy_under_attack),
        INTERVAL: interval(attack.accuracy_under_attack_interval),
        **_against_cells(against),
        **_budget_cells(attack, against),
        "Accuracy before the attack": percent(attack.accuracy),
        "Attack success rate": percent(attack.attack_success_rate),
        "Queries per example": number(attack.queries_per_example, ".1f"),
        "Attacked examples": str(attack.examples),
    }


def _against_cells(against: AgainstFigures | None) -> dict[str, str]:
    """The comparison with the dense model; its own column has dashes."""
    ends = f"{DROP_UNDER_ATTACK}, 95 % interval"
    if against is None:
        return dict.fromkeys((DROP_UNDER_ATTACK, ends, TRANSFER), NOTHING)
    drop, transfer = against.accuracy_under_attack_drop, against.transfer
    return {
        DROP_UNDER_ATTACK: percent(drop.difference),
        ends: interval(drop.interval),
        TRANSFER: f"{percent(transfer.rate)} of {transfer.texts}",
    }


def _budget_cells(attack: RobustnessFigures, against: AgainstFigures | None) -> dict[str, str]:
    """What is left where the attack may change no more than a share of the words."""
    cells = {}
    drops = {drop.max_words_changed: drop for drop in against.word_budgets} if against else {}
    for budget in attack.word_budgets:
        name, drop = f"Within {words(budget.max_words_changed)}", drops.get(budget.max_words_changed)
        cells[name] = _with(percent(budget.accuracy_under_attack), budget.interval)
        cells[f"{name}, drop to dense"] = _difference(drop.accuracy_under_attack_drop if drop else None)
    mean = attack.mean_accuracy_under_attack
    if mean is not None:
        name = f"Mean over 0 to {words(mean.longest_budget)}"
        drop_of_mean = against.mean_accuracy_under_attack_drop if against else None
        cells[name] = _with(percent(mean.mean), mean.interval)
        cells[f"{name}, drop to dense"] = _difference(drop_of_mean)
    return cells


def _cost_cells(figures: VariantFigures) -> dict[str, str]:
    flops = figures.flops
    shape = f"{flops.batch_size} × {flops.sequence_length}"
    return {
        "Sparsity of the encoder": percent(figures.sparsity),
        "Size, MB": _size(figures),
        **_part_cells(figures),
        f"Encoder, GFLOP at {shape}": f"{flops.all_weights / 1e9:.3g}",
        "Without products by zero": f"{flops.nonzero_weights / 1e9:.3g}",
        **_footprint_cells(figures.footprint),
    }


def _part_cells(figures: VariantFigures) -> dict[str, str]:
    """The size relative to dense and by part; no rows in reports that did not measure it."""
    found = figures.size_by_part
    if found is None:
        return {}
    sizes = {
        "Embeddings, MB": found.embeddings,
        "Encoder, MB": found.encoder,
        "Head, MB": found.head,
        "Tokenizer files, MB": found.tokenizer,
    }
    cells = {name: number(None if size is None else size / 1e6, ".1f") for name, size in sizes.items()}
    return {"Size relative to dense": percent(figures.size_ratio), **cells}


def _footprint_cells(footprint: FootprintFigures | None) -> dict[str, str]:
    names = ("Load time, s", "Memory of the model, MB", "Peak of its process, MB")
    if footprint is None:
        return dict.fromkeys(names, NOTHING)
    memory = (footprint.model_memory_bytes, footprint.peak_memory_bytes)
    cells = (f"{footprint.load_seconds:.2f}", *(f"{size / 1e6:.0f}" for size in memory))
    return dict(zip(names, cells, strict=True))


def _summary_cells(figures: VariantFigures, metric: str) -> dict[str, str]:
    scores = {} if metric == "accuracy" else {TASK_SCORES[metric]: f"{figures.task_score:.3f}"}
    if figures.accuracy is None:
        scores = _score_summary(figures, TASK_SCORES[metric])
    if metric in RANKINGS:
        scores |= _ranking_cells(figures.answers_against_dense)
    times = {
        f"p50 of {entry.batch_size} × {entry.sequence_length}, ms": f"{entry.p50_ms:.2f}"
        for entry in figures.latency
    }
    return {
        **(scores if figures.accuracy is None else _class_cells(figures, scores)),
        "Sparsity of the encoder": percent(figures.sparsity),
        "Size, MB": _size(figures),
        **times,
    }


def _score_summary(figures: VariantFigures, name: str) -> dict[str, str]:
    """The score of a regression and its drop, each with its interval."""
    against = figures.answers_against_dense
    drop = NOTHING
    if against is not None:
        drop = f"{against.task_score_drop:.3f} ({number_interval(against.task_score_drop_interval)})"
    return {name: f"{figures.task_score:.3f} ({number_interval(figures.task_score_interval)})", DROP: drop}


def _class_cells(figures: VariantFigures, scores: Mapping[str, str]) -> dict[str, str]:
    """What a summary shows of answers that are classes; `scores` are the task's own."""
    answers = figures.answers_against_dense
    name = "all attacks" if figures.attacks else "attack"
    each: dict[str, str] = {}
    for one in figures.attacks:
        each |= _attack_summary(one.robustness.attack, one.robustness, one.against_dense)
    return {
        "Accuracy": _with(percent(figures.accuracy), figures.accuracy_interval),
        DROP: _difference(None if answers is None else answers.accuracy_drop),
        **scores,
        "Same label as dense": percent(None if answers is None else answers.label_agreement),
        "Calibration error": percent(figures.calibration_error),
        **_attack_summary(name, figures.robustness, figures.against_dense),
        **each,
    }


def _attack_summary(
    name: str, attack: RobustnessFigures | None, against: AgainstFigures | None
) -> dict[str, str]:
    """What a summary shows of an attack, or of several together."""
    share, ends = None, None
    if attack is not None:
        share, ends = attack.accuracy_under_attack, attack.accuracy_under_attack_interval
    return {
        f"Accuracy under {name}": _with(percent(share), ends),
        f"Drop under {name} to dense": _difference(against.accuracy_under_attack_drop if against else None),
    }


def _slice_cell(part: SliceFigures) -> SliceCell:
    return SliceCell(percent(part.accuracy), _difference(part.drop), part.regression)


def _difference(drop: DifferenceFigures | MeanDifferenceFigures | None) -> str:
    return NOTHING if drop is None else _with(percent(drop.difference), drop.interval)


def _with(text: str, ends: IntervalFigures | None) -> str:
    return f"{text} ({interval(ends)})"


def _size(figures: VariantFigures) -> str:
    # A model from the hub has no directory to measure.
    return number(figures.size_bytes / 1e6 if figures.size_bytes else None, ".1f")


def _latency_row(name: str, entry: LatencyFigures | None, dense: LatencyFigures | None) -> tuple[Row, bool]:
    if entry is None:
        return [name, *[NOTHING] * 5], True
    speed = dense.p50_ms / entry.p50_ms if dense else None
    times = [f"{value:.2f}" for value in (entry.p50_ms, entry.p95_ms, entry.p99_ms)]
    ratio = NOTHING if speed is None else f"{speed:.2f}×"
    return [name, *times, f"{entry.examples_per_second:.1f}", ratio], entry.stable
