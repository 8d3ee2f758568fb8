"""How long a latency table and the choice of widths take on a model of a published shape.

    python -m benchmarks.allocation TEXTS FOLDER [--shape base] [--speedups 2,4,8] [--threads 2]

Random weights: this is about time and memory alone, and about what speeds a table offers. The table is kept
in FOLDER; a second run reads it.
"""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.results_file import RESULTS, markdown_table, write_result
from benchmarks.whole_model import Shape, random_classifier
from compressor.data.texts import load_text_data
from compressor.models.classifier import Classifier, save_classifier
from compressor.models.latency_table import read_latency_table
from compressor.options import ColumnsConfig, LatencyTableConfig, PruneConfig, RunConfig
from compressor.pruning.adaptive.prune import hold_out
from compressor.pruning.adaptive.widths import allocate_widths
from compressor.pruning.interface import PruningJob, SharedWork
from compressor.search.latency import latency_table
from compressor.system.console import LineProgress
from compressor.system.environment import describe_environment, prepare, thread_count
from compressor.system.processes import peak_memory_bytes

MAX_LENGTH = 128


def table_of(classifier: Classifier, folder: Path, run: RunConfig) -> tuple[Path, float | None]:
    """The file of the shape's latency table, and the seconds that it took; None if it was there."""
    model, file = folder / "model", folder / "table.json"
    if not model.exists():
        save_classifier(classifier, model)
    if file.is_file():
        return file, None
    began = time.monotonic()
    latency_table(str(model), LatencyTableConfig(), run, file, force=False, progress=LineProgress())
    return file, time.monotonic() - began


def main(
    texts: Annotated[Path, typer.Argument(help="Calibration texts, a TSV file.")],
    folder: Annotated[Path, typer.Argument(help="Folder for the model and its table.")],
    shape: Annotated[Shape, typer.Option(help="Shape of the model.")] = Shape.BASE,
    speedups: Annotated[str, typer.Option(help="Times dense PyTorch, separated by commas.")] = "2,4,8",
    threads: Annotated[int, typer.Option(help="Threads of both.")] = 2,
    output: Annotated[Path | None, typer.Option(help="File of the result.")] = None,
) -> None:
    """Measure a table, and choose widths for several speeds from one measurement of the blocks."""
    run = RunConfig(threads=threads)
    prepare(run)
    classifier = random_classifier(shape, None, torch.device("cpu"))
    names = classifier.label_names
    data = load_text_data(str(texts), ColumnsConfig(), "calibration", label_names=names, needs_labels=False)
    file, table_seconds = table_of(classifier, folder, run)
    table, shared = read_latency_table(file), SharedWork()
    rows = []
    for speedup in [float(one) for one in speedups.split(",")]:
        adaptive = {"speedup": speedup, "latency_table": str(file)}
        job = PruningJob(PruneConfig.model_validate({"adaptive": adaptive}), MAX_LENGTH, 0, shared=shared)
        own = replace(classifier, model=copy.deepcopy(classifier.model))
        began = time.monotonic()
        solving, judging = hold_out(data, job)
        found = allocate_widths(own, solving, judging, job, table, LineProgress())
        seconds = time.monotonic() - began
        rows.append({"speedup": speedup, "seconds": seconds, "predicted": found.speedup, **found.details()})
    result = {
        "environment": describe_environment(run),
        "shape": shape,
        "threads": thread_count(run),
        "texts": PruneConfig().calibration_examples,
        "table_seconds": table_seconds,
        "peak_memory_mb": peak_memory_bytes() / 1e6,
        "rows": rows,
    }
    write_result(output or RESULTS / f"allocation_{shape}.json", result)
    print(f"table: {table_seconds or 0:.0f} s")
    cells = [
        [
            f"{row['speedup']:g}",
            f"{row['predicted']:.2f}",
            f"{row['seconds']:.0f}",
            ", ".join(f"{own['heads']}-{own['neurons']}" for own in row["widths"]),
        ]
        for row in rows
    ]
    print(markdown_table(["asked", "predicted", "seconds", "heads-neurons by layer"], cells))


if __name__ == "__main__":
    typer.run(main)
