"""Accuracy after pruning without retraining, by method and pattern.

    python -m benchmarks.one_shot_quality DENSE CALIBRATION TEST [--quick] [--output FILE]

DENSE is a fine-tuned classifier, CALIBRATION and TEST are files of texts; nothing was chosen on TEST.
A run that was stopped goes on where it was; delete the output to start anew.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.experiment import Calibration, Dense, Experiment, Output, Test, accuracy_cell, run_table
from benchmarks.results_file import RESULTS, markdown_table

CALIBRATION = 256
TUNED = {"reconstruction_passes": 20, "reconstruction_rate": 1e-3}
METHODS: dict[str, dict[str, Any]] = {
    "magnitude": {"algorithm": "magnitude"},
    "Wanda": {"algorithm": "wanda"},
    "SparseGPT": {"algorithm": "sparsegpt"},
    "adaptive": {"algorithm": "adaptive"},
    "adaptive, tuned": {"algorithm": "adaptive", "adaptive": TUNED},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "50 %": {"pattern": "unstructured", "sparsity": 0.5},
    "75 %": {"pattern": "unstructured", "sparsity": 0.75},
    "87.5 %": {"pattern": "unstructured", "sparsity": 0.875},
    "2:4": {"pattern": "2:4"},
    "32:64": {"pattern": "32:64"},
    "structured 25 %": {"pattern": "structured", "sparsity": 0.25},
    "structured 50 %": {"pattern": "structured", "sparsity": 0.5},
}
QUICK_SETTINGS = ("75 %", "structured 25 %")
SEVERAL_SEEDS = ("SparseGPT", "adaptive", "adaptive, tuned")
SEEDS = (0, 1, 2)


def plan(quick: bool) -> list[dict[str, Any]]:
    """The table's lines; the first seed of everything comes first."""
    lines = []
    for seed in SEEDS[:1] if quick else SEEDS:
        for setting in QUICK_SETTINGS if quick else SETTINGS:
            for method, config in METHODS.items():
                if seed and method not in SEVERAL_SEEDS:
                    continue
                if setting.startswith("structured") and method in ("Wanda", "SparseGPT"):
                    continue
                whole = {"calibration_examples": CALIBRATION, **config, **SETTINGS[setting]}
                lines.append({"setting": setting, "method": method, "seed": seed, "config": whole})
    return lines


def table(result: dict[str, Any]) -> str:
    """Accuracy in per cent, with its spread over seeds, and seconds of pruning; methods in columns."""
    rows = []
    for setting in dict.fromkeys(row["setting"] for row in result["rows"]):
        cells = [setting]
        for method in METHODS:
            own = [r for r in result["rows"] if (r["setting"], r["method"]) == (setting, method)]
            seconds = f" ({np.mean([row['seconds'] for row in own]):.0f} s)" if own else ""
            cells.append(accuracy_cell(own) + seconds)
        rows.append(cells)
    return markdown_table([f"dense {100 * result['dense_accuracy']:.1f}", *METHODS], rows)


def main(
    dense: Dense,
    calibration: Calibration,
    test: Test,
    output: Output = RESULTS / "one_shot_quality.json",
    quick: Annotated[bool, typer.Option("--quick", help="Two settings, one seed.")] = False,
) -> None:
    """Compare the pruning methods on one classifier."""
    print(table(run_table(Experiment(dense, calibration, test), plan(quick), output)))


if __name__ == "__main__":
    typer.run(main)
