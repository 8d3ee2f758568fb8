"""One pruning of one classifier, measured: the unit of which the accuracy tables are made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.modelopt_rival import prune_with_modelopt
from benchmarks.results_file import find_row, known_rows, write_result
from compressor.data.texts import TextData, load_text_data
from compressor.models.accuracy import measure_accuracy
from compressor.models.classifier import encoder_weights, load_classifier, sparsity_of, weights_bytes
from compressor.models.predictors import TorchPredictor
from compressor.options import ColumnsConfig, PruneConfig, RunConfig
from compressor.pruning.interface import PruningJob, prune_classifier
from compressor.system.console import terminal_progress
from compressor.system.environment import describe_environment, prepare

MAX_LENGTH = 64
# Calibration texts of a pruning, unless a table varies them.
CALIBRATION_TEXTS = 256
# What every accuracy table is given on its command line.
Dense = Annotated[str, typer.Argument(help="The fine-tuned classifier.")]
Train = Annotated[str, typer.Argument(help="File of labelled texts that the classifier was fine-tuned on.")]
Calibration = Annotated[str, typer.Argument(help="File of texts to prune with.")]
Test = Annotated[str, typer.Argument(help="File of labelled texts to measure on.")]
Output = Annotated[Path, typer.Option(help="Result as JSON.")]
Seeds = Annotated[int, typer.Option(min=1, help="How many draws of calibration texts; more can be added.")]


@dataclass(frozen=True)
class Experiment:
    """A fine-tuned classifier, the texts to prune with and the texts to measure on."""

    dense: str
    calibration_file: str
    test_file: str
    max_length: int = MAX_LENGTH

    @cached_property
    def _label_names(self) -> list[str]:
        return load_classifier(self.dense).label_names

    def _load(self, file: str) -> TextData:
        columns = ColumnsConfig(max_length=self.max_length)
        return load_text_data(file, columns, "test", label_names=self._label_names)

    @cached_property
    def calibration(self) -> TextData:
        """All texts to prune with; a pruning draws its share."""
        return self._load(self.calibration_file)

    @cached_property
    def test(self) -> TextData:
        """The texts to measure on."""
        return self._load(self.test_file)

    def dense_accuracy(self) -> float:
        """Accuracy of the classifier as it is."""
        return self.accuracy(TorchPredictor(load_classifier(self.dense)))

    def accuracy(self, predictor: TorchPredictor) -> float:
        """Accuracy on the test texts."""
        return measure_accuracy(predictor, self.test, self.max_length, terminal_progress(), "accuracy")

    def run(self, config: PruneConfig, seed: int, *, modelopt: bool = False) -> dict[str, Any]:
        """Prune with `config` and measure: accuracy, seconds, sparsity and size.

        Args:
            modelopt: leave the pruning itself to NVIDIA Model Optimizer.
        """
        classifier = load_classifier(self.dense)
        start = time.perf_counter()
        job = PruningJob(config, self.max_length, seed)
        if modelopt:
            prune_with_modelopt(classifier, self.calibration, job)
        else:
            prune_classifier(classifier, self.calibration, job, terminal_progress())
        return {
            "seconds": round(time.perf_counter() - start, 1),
            "accuracy": self.accuracy(TorchPredictor(classifier)),
            "sparsity": sparsity_of(encoder_weights(classifier.model)),
            "megabytes": weights_bytes(classifier) / 1e6,
        }


def accuracy_cell(rows: Sequence[dict[str, Any]]) -> str:
    """Mean accuracy of a table's lines in per cent, with its spread where there are several."""
    return with_spread([100 * row["accuracy"] for row in rows])


def with_spread(values: Sequence[float]) -> str:
    """Mean of a cell's values, and their standard deviation where there are several."""
    if not values:
        return "-"
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"


def run_table(experiment: Experiment, plan: Sequence[dict[str, Any]], output: Path) -> dict[str, Any]:
    """Run every line of a plan and write the table after each; lines that `output` has already are kept.

    Args:
        plan: each line has `config` (the prune section, as a mapping), `seed`, what names it, and may
            have `modelopt`, as in `Experiment.run`.
        output: the result as JSON.
    """
    run = RunConfig()
    prepare(run)
    result: dict[str, Any] = {
        "dense_accuracy": experiment.dense_accuracy(),
        "test_examples": len(experiment.test),
        "max_length": experiment.max_length,
        "environment": describe_environment(run),
        "rows": [],
    }
    known = known_rows(output)
    for line in plan:
        row = find_row(known, line)
        if row is None:
            row = line | experiment.run(
                PruneConfig.model_validate(line["config"]), line["seed"], modelopt=line.get("modelopt", False)
            )
            terminal_progress().log(f"{line} -> {row['accuracy']:.4f} in {row['seconds']} s")
        result["rows"].append(row)
        write_result(output, result)
    return result
