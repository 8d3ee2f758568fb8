"""What each part of the adaptive walk is worth: accuracy with one of them changed at a time.

    python -m benchmarks.ablation DENSE CALIBRATION TEST [--quick] [--output FILE]

A run that was stopped goes on where it was; delete the output to start anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from benchmarks.experiment import (
    CALIBRATION_TEXTS,
    Calibration,
    Dense,
    Experiment,
    Output,
    Seeds,
    Test,
    accuracy_cell,
    run_table,
)
from benchmarks.results_file import RESULTS, markdown_table

SPARSITIES = (0.75, 0.875)
VARIANTS: dict[str, dict[str, Any]] = {
    "complete": {},
    "Hessian of the dense inputs": {"adaptive": {"adaptive_hessian": False}},
    "dense weights as targets": {"adaptive": {"resolve_weight": False}},
    "pooler and classifier as they were": {"adaptive": {"resolve_heads": False}},
    "rows ranked by themselves": {"scope": "row"},
    "greedy solver": {"adaptive": {"solver": "greedy"}},
    "allocation by error": {"adaptive": {"allocation": "error"}},
}


def plan(sparsities: Sequence[float], seeds: int) -> list[dict[str, Any]]:
    """The table's lines; the first seed of everything comes first."""
    return [
        {
            "variant": variant,
            "seed": seed,
            "config": {"calibration_examples": CALIBRATION_TEXTS, "sparsity": sparsity, **changes},
        }
        for seed in range(seeds)
        for sparsity in sparsities
        for variant, changes in VARIANTS.items()
    ]


def table(result: dict[str, Any]) -> str:
    """Accuracy in per cent with its spread over seeds; sparsities in columns."""
    sparsities = list(dict.fromkeys(row["config"]["sparsity"] for row in result["rows"]))
    rows = []
    for variant in VARIANTS:
        cells = [variant]
        for sparsity in sparsities:
            own = [
                row
                for row in result["rows"]
                if (row["variant"], row["config"]["sparsity"]) == (variant, sparsity)
            ]
            cells.append(accuracy_cell(own))
        rows.append(cells)
    header = [f"dense {100 * result['dense_accuracy']:.1f}", *(f"{s:.1%}" for s in sparsities)]
    return markdown_table(header, rows)


def main(
    dense: Dense,
    calibration: Calibration,
    test: Test,
    output: Output = RESULTS / "ablation.json",
    seeds: Seeds = 3,
    quick: Annotated[bool, typer.Option("--quick", help="One sparsity, one seed.")] = False,
) -> None:
    """Change one part of the adaptive walk at a time."""
    lines = plan(SPARSITIES[:1], 1) if quick else plan(SPARSITIES, seeds)
    print(table(run_table(Experiment(dense, calibration, test), lines, output)))


if __name__ == "__main__":
    typer.run(main)
