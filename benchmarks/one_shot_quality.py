"""Accuracy after pruning without retraining, by method and pattern.

    python -m benchmarks.one_shot_quality DENSE CALIBRATION TEST [--quick] [--output FILE]

DENSE is a fine-tuned classifier, CALIBRATION and TEST are files of texts. With `nvidia-modelopt`
installed, its SparseGPT has a column.
A run that was stopped goes on where it was; delete the output to start anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
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
from benchmarks.modelopt_rival import is_installed
from benchmarks.results_file import RESULTS, markdown_table

TUNED = {"reconstruction_passes": 20, "reconstruction_rate": 1e-3}
FILLED = {"calibration_tokens": 65_536}
DISTILLED = FILLED | {"distillation_steps": 1000}
MODELOPT = "modelopt SparseGPT"
METHODS: dict[str, dict[str, Any]] = {
    "magnitude": {"algorithm": "magnitude"},
    "Wanda": {"algorithm": "wanda"},
    "SparseGPT": {"algorithm": "sparsegpt"},
    MODELOPT: {"algorithm": "sparsegpt"},
    "adaptive": {"algorithm": "adaptive"},
    "adaptive, tuned": {"algorithm": "adaptive", "adaptive": TUNED},
    "adaptive, filled up": {"algorithm": "adaptive", "adaptive": FILLED},
    "adaptive, distilled": {"algorithm": "adaptive", "adaptive": DISTILLED},
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
UNSTRUCTURED_ONLY = ("adaptive, tuned", "adaptive, filled up", "adaptive, distilled")
SEVERAL_SEEDS = ("SparseGPT", MODELOPT, "adaptive", *UNSTRUCTURED_ONLY)


def plan(settings: Sequence[str], methods: Sequence[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The table's lines; the first seed of everything comes first."""
    return [
        {
            "setting": setting,
            "method": method,
            "seed": seed,
            "config": {"calibration_examples": CALIBRATION_TEXTS, **METHODS[method], **SETTINGS[setting]},
            "modelopt": method == MODELOPT,
        }
        for seed in seeds
        for setting in settings
        for method in methods
        if applies(method, setting) and (seed == seeds[0] or method in SEVERAL_SEEDS)
    ]


def applies(method: str, setting: str) -> bool:
    """Whether a method can do what a setting asks for."""
    if method == MODELOPT:
        return setting == "2:4"
    if method in UNSTRUCTURED_ONLY:
        return "sparsity" in SETTINGS[setting] and not setting.startswith("structured")
    return not setting.startswith("structured") or method not in ("Wanda", "SparseGPT")


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
    setting: Annotated[list[str] | None, typer.Option(help="A line of the table; repeatable.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="A column of the table; repeatable.")] = None,
    seeds: Seeds = 3,
    quick: Annotated[bool, typer.Option("--quick", help="Two settings, one seed.")] = False,
) -> None:
    """Compare the pruning methods on one classifier."""
    methods = method or [name for name in METHODS if name != MODELOPT or is_installed()]
    settings = setting or (QUICK_SETTINGS if quick else list(SETTINGS))
    lines = plan(settings, methods, range(1 if quick else seeds))
    print(table(run_table(Experiment(dense, calibration, test), lines, output)))


if __name__ == "__main__":
    typer.run(main)
