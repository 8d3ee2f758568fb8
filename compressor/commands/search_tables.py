"""Latency tables and the candidates of a search, for terminals."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from compressor.models.latency_table import BlockTimes, LatencyTable
from compressor.search.record import SearchRecord
from compressor.search.rows import outcome_rows


def latency_tables(table: LatencyTable) -> Group:
    """Costs of both blocks by width, and the whole models with what the table predicts of the dense one."""
    return Group(
        _block_table("Attention of one layer", "heads", table.attention, table),
        _block_table("Feed-forward part of one layer", "neurons", table.feed_forward, table),
        _model_table(table),
        Text(_stability(table)),
    )


def _block_table(title: str, width: str, block: BlockTimes, table: LatencyTable) -> Table:
    found = _empty(f"{title}, {table.runtime}, {table.precision}, threads: {table.threads}", width, table)
    for number, row in zip(block.widths, block.ms, strict=True):
        found.add_row(str(number), *_milliseconds(row))
    return found


def _model_table(table: LatencyTable) -> Table:
    found = _empty(f"Whole models of {table.layers} layers", "model", table)
    predicted = table.predicted_ms(table.dense_widths)
    found.add_row("without blocks", *_milliseconds(table.rest_ms))
    found.add_row("dense", *_milliseconds(table.dense_ms))
    found.add_row("dense, predicted", *_milliseconds(predicted.tolist()))
    found.add_row("prediction off by", *(f"{error:+.1%}" for error in table.dense_errors()))
    found.add_row("dense, PyTorch", *_milliseconds(table.reference_ms))
    return found


def _empty(title: str, first: str, table: LatencyTable) -> Table:
    """A table with a column for each shape, without rows."""
    made = Table(title=Text(title), title_justify="left")
    made.add_column(first, justify="right")
    for shape in table.shapes:
        made.add_column(f"{shape.batch_size} x {shape.length}, ms", justify="right")
    return made


def _milliseconds(row: Sequence[float]) -> list[str]:
    return [f"{value:.3f}" for value in row]


def _stability(table: LatencyTable) -> str:
    """One line on how steady the times were."""
    return (
        f"Times of {table.environment['stable_share']:.0%} of the models and shapes were stable (medians of "
        f"three windows within 5 %); where few are, measure again on an idle machine, or with more --rounds "
        f"and --shape-seconds"
    )


def outcome_table(record: SearchRecord) -> Table:
    """Return the chosen candidate beside the dense model, on the test texts."""
    found = Table(title=Text("Chosen artifact, on the test texts"), title_justify="left")
    for heading in ("", "dense, PyTorch", "artifact", "difference"):
        found.add_column(heading, justify="right" if heading else "left")
    for row in outcome_rows(record):
        found.add_row(*row)
    return found


def candidates_table(record: SearchRecord) -> Group:
    """Return all candidates of a search, those on the front marked, and the reason for its end."""
    found = Table(
        title=Text(f"Candidates, on the selection texts; best by {record.objective}"), title_justify="left"
    )
    for heading in ("", "for", "runtime", "faster", "MB", "accuracy", "under attack", "gates"):
        found.add_column(heading, justify="left" if heading in ("", "runtime", "gates") else "right")
    for one in record.candidates:
        mark = "chosen" if one.number == record.chosen else "front" if one.number in record.front else ""
        found.add_row(
            f"{one.number} {mark}".strip(),
            "dense" if one.target is None else f"{one.target:.3g}x",
            f"{one.runtime} {one.precision}",
            f"{one.speedup:.1f}x",
            f"{one.size_bytes / 1e6:.1f}",
            _share(one.accuracy, one.task_score),
            "-" if one.accuracy_under_attack is None else f"{one.accuracy_under_attack:.2%}",
            "hold" if one.holds else f"fail: {one.problems}",
        )
    return Group(found, Text(record.reason))


def _share(accuracy: float | None, score: float) -> str:
    return f"{score:.4f}" if accuracy is None else f"{accuracy:.2%}"
