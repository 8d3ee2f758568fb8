"""Accuracy on unseen films after pruning, by method and sparsity, and the time of pruning.

    python benchmarks/algorithms.py DENSE DATA [--quick] [--methods NAME]... [--output FILE]

DENSE is a fine-tuned classifier and DATA a folder with train.tsv and test.tsv, such as `dense/` and
`data/` of the quickstart's output. Every method gets the same texts; randomized also trains on them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from compressor.classifier import encoder_weights, load_classifier, sparsity_of
from compressor.console import terminal_progress
from compressor.data import load_text_data
from compressor.environment import describe_environment, prepare
from compressor.patterns import parse_pattern
from compressor.predictors import TorchPredictor
from compressor.pruning import PruningJob, prune_classifier
from compressor.recipe import ColumnsConfig, PruneConfig, RunConfig
from compressor.validation.accuracy import measure_accuracy

METHODS = ["magnitude", "wanda", "sparsegpt", "randomized", "adaptive"]
SEEDS = [0]
SETTINGS = (("unstructured", 0.5), ("2:4", 0.5), ("unstructured", 0.75), ("unstructured", 0.875))
QUICK_SETTINGS = SETTINGS[:1]
MAX_LENGTH = 64


def benchmark(
    dense: str, data: Path, methods: Sequence[str], quick: bool, seeds: Sequence[int]
) -> dict[str, Any]:
    """Prune with each method at each setting and measure; with `quick` one setting and seed."""
    run, columns, progress = RunConfig(), ColumnsConfig(max_length=MAX_LENGTH), terminal_progress()
    prepare(run)
    names = load_classifier(dense).label_names
    train = load_text_data(str(data / "train.tsv"), columns, "train", label_names=names)
    test = load_text_data(str(data / "test.tsv"), columns, "test", label_names=names)
    reference = measure_accuracy(TorchPredictor(load_classifier(dense)), test, MAX_LENGTH, progress, "dense")
    rows = []
    for text, sparsity in QUICK_SETTINGS if quick else SETTINGS:
        for method in methods:
            for seed in seeds[:1] if quick or method == "magnitude" else seeds:
                classifier = load_classifier(dense)
                config = PruneConfig.model_validate(
                    {"algorithm": method, "pattern": text, "sparsity": sparsity}
                )
                job = PruningJob(parse_pattern(text, sparsity), config, MAX_LENGTH, seed)
                start = time.monotonic()
                prune_classifier(classifier, train, job, progress)
                seconds = time.monotonic() - start
                accuracy = measure_accuracy(TorchPredictor(classifier), test, MAX_LENGTH, progress, method)
                rows.append(
                    {
                        "pattern": text,
                        "sparsity": sparsity_of(encoder_weights(classifier.model)),
                        "method": method,
                        "seed": seed,
                        "accuracy": accuracy,
                        "seconds": round(seconds, 1),
                    }
                )
                progress.log(json.dumps(rows[-1]))
    return {
        "dense_accuracy": reference,
        "examples": len(test),
        "rows": rows,
        "environment": describe_environment(run),
    }


def table(result: dict[str, Any]) -> str:
    """The result as a Markdown table: mean accuracy (and spread over seeds), and seconds."""
    settings = list(dict.fromkeys((row["pattern"], round(row["sparsity"], 4)) for row in result["rows"]))
    methods = list(dict.fromkeys(row["method"] for row in result["rows"]))
    lines = [f"| pattern | dense | {' | '.join(methods)} |", "| --- " * (len(methods) + 2) + "|"]
    for pattern, sparsity in settings:
        cells = []
        for method in methods:
            rows = [
                row
                for row in result["rows"]
                if (row["pattern"], round(row["sparsity"], 4), row["method"]) == (pattern, sparsity, method)
            ]
            accuracies = [100 * row["accuracy"] for row in rows]
            spread = f" ± {np.std(accuracies, ddof=1):.1f}" if len(rows) > 1 else ""
            cells.append(f"{np.mean(accuracies):.1f}{spread} ({np.mean([r['seconds'] for r in rows]):.0f} s)")
        name = f"{pattern} {sparsity:.1%}"
        lines.append(f"| {name} | {100 * result['dense_accuracy']:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(
    dense: Annotated[str, typer.Argument(help="The fine-tuned classifier.")],
    data: Annotated[Path, typer.Argument(help="Folder with train.tsv and test.tsv.")],
    output: Annotated[Path, typer.Option(help="Result as JSON.")] = Path(
        "benchmarks/results/algorithms.json"
    ),
    methods: Annotated[list[str], typer.Option(help="Methods to compare.")] = METHODS,
    seeds: Annotated[
        list[int], typer.Option(help="Seeds; magnitude draws nothing and takes the first.")
    ] = SEEDS,
    quick: Annotated[bool, typer.Option("--quick", help="One setting, one seed.")] = False,
) -> None:
    """Compare the pruning methods on one classifier."""
    result = benchmark(dense, data, methods, quick, seeds)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    typer.run(main)
