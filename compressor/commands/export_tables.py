"""What is known of a graph for TensorRT, and of the engine it became, as tables for terminals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from compressor.validation.report.engine import MISSING, engine_rows, engine_title
from exporters.tensorrt.engine_log import EngineBuild


def tensorrt_tables(facts: Mapping[str, Any]) -> Group:
    """Each check with what it found, and each GEMM with whether sparse tensor cores can take it."""
    checks = Table(title=Text(f"Checks against {facts['operator_table']}"), title_justify="left")
    for column in ("check", "status", "node", "reason"):
        checks.add_column(column)
    for check in facts["checks"]:
        findings = check["findings"] or [{"where": "", "reason": check["note"]}]
        for number, finding in enumerate(findings):
            first = (check["name"], check["status"]) if number == 0 else ("", "")
            checks.add_row(*first, Text(finding["where"]), Text(finding["reason"]))
    title = f"Matrix multiplications: {facts['eligible_gemms']} of {len(facts['gemms'])} are 2:4 eligible"
    gemms = Table(title=Text(title), title_justify="left")
    for column in ("weight", "K", "N", "numbers", "zeros", "2:4 eligible"):
        gemms.add_column(column, justify="right" if column in ("K", "N", "zeros") else "left")
    for row in facts["gemms"]:
        gemms.add_row(
            Text(row["weight"] or row["node"]),
            *(MISSING if row[key] is None else str(row[key]) for key in ("k", "n", "dtype")),
            MISSING if row["sparsity"] is None else f"{row['sparsity']:.1%}",
            Text("yes" if row["eligible"] else f"no: {'; '.join(row['reasons'])}"),
        )
    return Group(checks, gemms)


def engine_table(build: EngineBuild) -> Table:
    """Figures of an engine's build and run."""
    table = Table(title=Text(engine_title(build)), title_justify="left")
    for column in ("figure", "value"):
        table.add_column(column)
    table.add_row("built", "yes" if build.passed else "no")
    for name, value in [*engine_rows(build), *(("error", error) for error in build.errors)]:
        table.add_row(Text(name), Text(value))
    return table
