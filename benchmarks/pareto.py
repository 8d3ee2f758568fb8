"""Accuracy against measured speed: widths chosen for a latency, beside uniform structure and dense int8.

    python -m benchmarks.pareto DENSE CALIBRATION TEST FOLDER [--seeds 3] [--quick] [--output FILE]

For each target speed-up over dense PyTorch and each draw of calibration texts, the model is pruned by the
latency table, and by the smallest uniform share of heads and neurons that the table predicts to be as fast.
Both are distilled alike and exported to int8. At the end all artifacts are timed in the same rounds, beside
the dense model in PyTorch and in ONNX Runtime. Models are kept in FOLDER, from which a stopped run goes on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.experiment import MAX_LENGTH, Dense, with_spread
from benchmarks.results_file import RESULTS, markdown_table, write_result
from compressor.data.texts import TextData, load_text_data
from compressor.models.accuracy import measure_accuracy
from compressor.models.batching import encode
from compressor.models.classifier import load_classifier
from compressor.models.latency_table import LatencyTable, Widths, read_latency_table
from compressor.models.predictors import OnnxPredictor, Predictor, TorchPredictor
from compressor.options import ColumnsConfig, ExportConfig, LatencyTableConfig, PruneConfig, RunConfig
from compressor.pruning.interface import PRUNING_RECORD, SharedWork, prune_directory
from compressor.pruning.patterns import pruned_count
from compressor.search.latency import latency_table
from compressor.system.console import terminal_progress
from compressor.system.context import Context
from compressor.system.environment import describe_environment, prepare, thread_count
from compressor.system.files import read_json
from compressor.validation.measure.latency import LatencyPlan, measure_latency
from exporters.stage import export_directory

TARGETS = (4.0, 6.0, 10.0, 14.0, 20.0)
DENSE_TORCH, DENSE_ORT, DENSE_INT8 = "dense, PyTorch", "dense, ONNX Runtime", "dense, int8"
RECOVERY = {
    "distillation_steps": 1500,
    "distillation_examples": 8192,
    "distillation_rates": [1e-4, 2e-4, 4e-4],
}
CALIBRATION_EXAMPLES = 1024
SECONDS_A_SHAPE = 300.0
SHARE_STEP = 1 / 96


@dataclass(frozen=True)
class Bench:
    """What all variants are made of, and where they are kept."""

    dense: str
    calibration: str
    test: TextData
    table_file: Path
    table: LatencyTable
    folder: Path
    max_length: int
    recovery: Mapping[str, Any]
    run: RunConfig
    shared: SharedWork
    unstructured: bool

    def context(self, name: str, seed: int = 0) -> Context:
        """Of a stage that writes into a directory of the folder."""
        return Context(
            output=self.folder / name,
            columns=ColumnsConfig(max_length=self.max_length),
            run=self.run.model_copy(update={"seed": seed}),
            progress=terminal_progress(),
        )

    def artifact(self, name: str, model: str, precision: str) -> Path:
        """The exported graph of a model, made if it is not there."""
        context = self.context(f"{name}-{precision}")
        if not context.output.exists():
            export_directory(
                model, self.calibration, ExportConfig.model_validate({"precision": precision}), context
            )
        return context.output

    def pruned(self, name: str, options: Mapping[str, Any], seed: int) -> Path:
        """The model pruned with options, made if it is not there."""
        context = self.context(f"{name}-{seed}", seed)
        if not context.output.exists():
            config = PruneConfig.model_validate({"calibration_examples": CALIBRATION_EXAMPLES, **options})
            prune_directory(self.dense, self.calibration, config, context, self.shared)
        return context.output

    def accuracy(self, predictor: Predictor, name: str) -> float:
        """Share of right answers on the test texts."""
        return measure_accuracy(predictor, self.test, self.max_length, terminal_progress(), name)


def uniform_share(table: LatencyTable, target: float) -> float | None:
    """Smallest share of heads and neurons whose removal from every layer is predicted to be fast enough."""
    for step in range(1, round(1 / SHARE_STEP)):
        share = step * SHARE_STEP
        heads = table.heads - pruned_count(table.heads, share)
        neurons = table.neurons - pruned_count(table.neurons, share)
        if (
            heads
            and neurons
            and table.speedup(table.predicted_ms([Widths(heads, neurons)] * table.layers)) >= target
        ):
            return share
    return None


def plan(
    bench: Bench, targets: Sequence[float], seeds: int
) -> Iterator[tuple[str, float | None, int, dict[str, Any]]]:
    """Method, target, seed and prune options of each model, those that decide first."""
    zeroed = {"pattern": "unstructured", "sparsity": 0.75, "adaptive": dict(bench.recovery)}
    for seed in range(seeds):
        for target in targets:
            goal = {"speedup": target, "latency_table": str(bench.table_file)}
            yield "allocated", target, seed, {"adaptive": {**goal, **bench.recovery}}
            share = uniform_share(bench.table, target)
            if share is not None:
                uniform = {"pattern": "structured", "sparsity": share, "adaptive": dict(bench.recovery)}
                yield "uniform", target, seed, uniform
        if bench.unstructured:
            yield "unstructured 75 %", None, seed, zeroed


def figures(
    bench: Bench, targets: Sequence[float], seeds: int
) -> tuple[list[dict[str, Any]], dict[str, Predictor]]:
    """A row for each artifact with its accuracy, and what is to be timed, by name."""
    threads = thread_count(bench.run)
    predictors: dict[str, Predictor] = {
        DENSE_TORCH: TorchPredictor(load_classifier(bench.dense, "cpu")),
        DENSE_ORT: OnnxPredictor(bench.artifact("dense", bench.dense, "fp32"), threads, spinning=True),
        DENSE_INT8: OnnxPredictor(bench.artifact("dense", bench.dense, "int8"), threads, spinning=True),
    }
    rows: list[dict[str, Any]] = [
        {"variant": name, "method": name, "accuracy": bench.accuracy(own, name)}
        for name, own in predictors.items()
    ]
    for method, target, seed, options in plan(bench, targets, seeds):
        name = method.split()[0] if target is None else f"{method}-{target:g}"
        pruned = bench.pruned(name, options, seed)
        directory = bench.artifact(pruned.name, str(pruned), "int8")
        predictor = OnnxPredictor(directory, threads, spinning=True)
        details = read_json(pruned / PRUNING_RECORD)["details"]
        row = {
            "variant": pruned.name,
            "method": method,
            "target": target,
            "seed": seed,
            "accuracy": bench.accuracy(predictor, pruned.name),
            "megabytes": (directory / "model.onnx").stat().st_size / 1e6,
            "distillation": details.get("distillation"),
            **{
                key: details[key]
                for key in ("widths", "predicted_speedup", "predicted_ms", "allocation")
                if key in details
            },
        }
        terminal_progress().log(f"{pruned.name}: accuracy {row['accuracy']:.4f}")
        rows.append(row)
        # Widths are the same for each seed up to noise: one draw is timed.
        if seed == 0:
            predictors[pruned.name] = predictor
    return rows, predictors


def timed(bench: Bench, predictors: Mapping[str, Predictor], rounds: int) -> dict[str, list[float]]:
    """Median milliseconds of each variant at each shape of the table, all in the same rounds."""
    texts = encode(next(iter(predictors.values())).tokenizer, bench.test.select(range(64)), bench.max_length)
    shapes = [(shape.batch_size, shape.length) for shape in bench.table.shapes]
    found = measure_latency(
        predictors,
        dict.fromkeys(predictors, texts),
        LatencyPlan(shapes, rounds, SECONDS_A_SHAPE),
        terminal_progress(),
    )
    return {name: [entry.p50_ms for entry in own] for name, own in found.items()}


def times_faster(rival: Sequence[float], own: Sequence[float]) -> float:
    """Geometric mean over the shapes."""
    return math.exp(float(np.mean([math.log(a / b) for a, b in zip(rival, own, strict=True)])))


def lines_of(rows: Sequence[dict[str, Any]], ms: Mapping[str, Sequence[float]]) -> list[list[str]]:
    """A line for each method and target: speeds, accuracy over the seeds, drop from dense."""
    dense = next(row["accuracy"] for row in rows if row["method"] == DENSE_TORCH)
    lines = []
    for method, target in dict.fromkeys((row["method"], row.get("target")) for row in rows):
        own = [row for row in rows if (row["method"], row.get("target")) == (method, target)]
        times = ms[own[0]["variant"]]
        lines.append(
            [
                method if target is None else f"{method}, for {target:g}x",
                f"{times_faster(ms[DENSE_TORCH], times):.1f}x",
                f"{times_faster(ms[DENSE_ORT], times):.1f}x",
                with_spread([100 * row["accuracy"] for row in own]),
                with_spread([100 * (dense - row["accuracy"]) for row in own]),
            ]
        )
    return lines


def main(
    dense: Dense,
    calibration: Annotated[str, typer.Argument(help="File of texts to prune with; never the test texts.")],
    test: Annotated[str, typer.Argument(help="File of labelled texts to measure on.")],
    folder: Annotated[Path, typer.Argument(help="Folder for the models.")],
    table: Annotated[Path | None, typer.Option(help="Latency table; by default one is measured.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Draws of calibration texts; more can be added.")] = 3,
    targets: Annotated[
        list[float] | None,
        typer.Option("--target", help=f"Speed-up over dense PyTorch; repeat it. By default {TARGETS}."),
    ] = None,
    max_length: Annotated[int, typer.Option(help="Longest input in tokens.")] = MAX_LENGTH,
    threads: Annotated[int, typer.Option(help="Threads of every variant; 0 takes all cores.")] = 0,
    rounds: Annotated[int, typer.Option(help="Timed runs of each variant and shape, at least.")] = 15,
    output: Annotated[Path, typer.Option(help="Result as JSON.")] = RESULTS / "pareto.json",
    unstructured: Annotated[
        bool, typer.Option(help="Zero 75 % of the weights as well, which is no faster.")
    ] = True,
    quick: Annotated[
        bool, typer.Option("--quick", help="One target and seed, 20 steps of recovery.")
    ] = False,
) -> None:
    """Measure accuracy and speed of artifacts for several speed-ups."""
    run = RunConfig(device="cpu", threads=threads)
    prepare(run)
    folder.mkdir(parents=True, exist_ok=True)
    file = table or folder / "latency-table.json"
    if not file.is_file():
        latency_table(dense, LatencyTableConfig(), run, file, force=False, progress=terminal_progress())
    wanted = targets or TARGETS
    recovery = {**RECOVERY, "distillation_steps": 20} if quick else RECOVERY
    names = load_classifier(dense).label_names
    texts = load_text_data(test, ColumnsConfig(max_length=max_length), "test", label_names=names)
    bench = Bench(
        dense=dense,
        calibration=calibration,
        test=texts,
        table_file=file,
        table=read_latency_table(file),
        folder=folder,
        max_length=max_length,
        recovery=recovery,
        run=run,
        shared=SharedWork(),
        unstructured=unstructured,
    )
    rows, predictors = figures(bench, wanted[:1] if quick else wanted, 1 if quick else seeds)
    ms = timed(bench, predictors, 3 if quick else rounds)
    result = {
        "environment": describe_environment(run),
        "table": bench.table.model_dump(),
        "test_examples": len(texts),
        "recovery": dict(recovery),
        "rows": rows,
        "ms": ms,
    }
    write_result(output, result)
    header = ("variant", "times dense PyTorch", "times dense ONNX Runtime", "accuracy", "drop from dense")
    print(markdown_table(header, lines_of(rows, ms)))


if __name__ == "__main__":
    typer.run(main)
