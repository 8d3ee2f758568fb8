"""Reconstruction error and time of the layer-wise solvers, on every encoder layer of a real model.

    python -m benchmarks.solver_quality DENSE TEXTS [--quick] [--output FILE]

DENSE is a fine-tuned classifier, TEXTS a file of calibration texts. All solvers get the same
problems: the dense model's weights and the second moments of their inputs, ranked row by row as in
the paper. The exact elimination works on a random sample of output rows (rows are independent) and
its time is extrapolated to all of them; the others work on whole layers and are compared on the
same rows. A second table has time and memory on BERT-base's shapes with random weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import torch
import typer
from torch import Tensor

from benchmarks.alone import measured_alone, peak_mb
from benchmarks.results_file import RESULTS, markdown_table, write_result
from compressor.data.texts import load_text_data
from compressor.models.classifier import load_classifier
from compressor.options import ColumnsConfig, PruneConfig, RunConfig
from compressor.pruning.interface import PruningJob
from compressor.pruning.layerwise import LinearGroup, group_steps, start_walk
from compressor.pruning.patterns import NM, MaskPattern, Unstructured
from compressor.pruning.solvers.solvers import column_sweep, damped, exact, fast, greedy
from compressor.system.console import terminal_progress
from compressor.system.environment import describe_environment, prepare

Solver: TypeAlias = Callable[[Tensor, Tensor, MaskPattern], tuple[Tensor, Tensor]]

PATTERNS: dict[str, MaskPattern] = {
    "50 %": Unstructured(0.5, "row"),
    "75 %": Unstructured(0.75, "row"),
    "87.5 %": Unstructured(0.875, "row"),
    "2:4": NM(2, 4),
    "32:64": NM(32, 64),
}
RIVALS: dict[str, Solver] = {"fast": fast, "greedy": greedy, "SparseGPT": column_sweep}
ROWS = 16
CALIBRATION = 256
MAX_LENGTH = 64
DAMPING = 0.01
SHAPES = ((768, 768), (3072, 768), (768, 3072))
WIDTHS = (384, 768, 1536, 3072)
SCALING_ROWS = 384


def layer_problems(dense: str, texts: str) -> list[tuple[str, Tensor, Tensor]]:
    """Name, weight `(out, in)` and damped Hessian `(in, in)` float64 of every encoder layer."""
    classifier = load_classifier(dense)
    columns = ColumnsConfig(max_length=MAX_LENGTH)
    data = load_text_data(texts, columns, "calibration", needs_labels=False)
    job = PruningJob(PruneConfig(calibration_examples=CALIBRATION), MAX_LENGTH, seed=0)
    walk, _ = start_walk(classifier, data, job, dense=None)
    problems = []
    for index, names in terminal_progress().track(group_steps(classifier), "Second moments"):
        group = LinearGroup.of(classifier, index, names)
        hessian, _ = damped(walk.moments(group.first).hessian, DAMPING)
        weights = [linear.weight.detach().double() for linear in group.linears]
        problems += [(name, w, hessian) for name, w in zip(group.names, weights, strict=True)]
        if group.is_last:
            walk.advance()
    return problems


def error_of(weight: Tensor, target: Tensor, hessian: Tensor, rows: Tensor, energy: float) -> float:
    """Reconstruction error on `rows`, relative to the whole layer's energy on them."""
    difference = (weight - target)[rows]
    return float(((difference @ hessian) * difference).sum()) / energy


def compare(problems: list[tuple[str, Tensor, Tensor]], name: str) -> list[dict[str, Any]]:
    """One row a layer: error of each solver on the sampled rows, and seconds for the whole layer."""
    pattern, found = PATTERNS[name], []
    generator = torch.Generator().manual_seed(0)
    for layer, weight, hessian in terminal_progress().track(problems, name):
        rows = torch.randperm(len(weight), generator=generator)[:ROWS]
        energy = float(((weight[rows] @ hessian) * weight[rows]).sum())
        start = time.perf_counter()
        sample, _ = exact(weight[rows], hessian, pattern)
        seconds = (time.perf_counter() - start) * len(weight) / len(rows)
        whole = weight.clone()
        whole[rows] = sample
        errors = {"exact": error_of(whole, weight, hessian, rows, energy)}
        times = {"exact": seconds}
        for rival, solver in RIVALS.items():
            start = time.perf_counter()
            solved, mask = solver(weight, hessian, pattern)
            times[rival] = time.perf_counter() - start
            if not pattern.is_met_by(mask) or solved[~mask].count_nonzero():
                raise RuntimeError(f"{rival} broke {pattern} in {layer}")
            errors[rival] = error_of(solved, weight, hessian, rows, energy)
        found.append({"setting": name, "layer": layer, "errors": errors, "seconds": times})
    return found


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per setting and solver: summed error and time relative to exact, and the mean of layers' ratios."""
    lines = []
    for setting in dict.fromkeys(row["setting"] for row in rows):
        own = [row for row in rows if row["setting"] == setting]
        for solver in own[0]["errors"]:
            errors, base = ([row["errors"][s] for row in own] for s in (solver, "exact"))
            seconds, exact_seconds = (sum(row["seconds"][s] for row in own) for s in (solver, "exact"))
            lines.append(
                {
                    "setting": setting,
                    "solver": solver,
                    "error_ratio": sum(errors) / sum(base),
                    "mean_layer_ratio": sum(e / b for e, b in zip(errors, base, strict=True)) / len(own),
                    "worst_layer_ratio": max(e / b for e, b in zip(errors, base, strict=True)),
                    "seconds": seconds,
                    "times_faster": exact_seconds / seconds,
                }
            )
    return lines


def random_problem(out_features: int, in_features: int) -> tuple[Tensor, Tensor]:
    """A random weight and a Hessian with a decaying spectrum: for time and memory alone."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2 * in_features, in_features, generator=generator, dtype=torch.float64)
    inputs *= torch.linspace(1.0, 0.05, in_features, dtype=torch.float64)
    inputs = inputs @ torch.randn(in_features, in_features, generator=generator, dtype=torch.float64)
    hessian, _ = damped(inputs.T @ inputs, DAMPING)
    weight = torch.randn(out_features, in_features, generator=generator, dtype=torch.float64)
    return weight, hessian


def measure_shape(out_features: int, in_features: int, solver: str, threads: int) -> dict[str, Any]:
    """Time of one solver on one shape at 50 %, and the memory it takes above that of the problem."""
    torch.set_num_threads(threads)
    weight, hessian = random_problem(out_features, in_features)
    before = peak_mb()
    rows = min(2, out_features) if solver == "exact" else out_features
    start = time.perf_counter()
    {"exact": exact, **RIVALS}[solver](weight[:rows], hessian, PATTERNS["50 %"])
    seconds = (time.perf_counter() - start) * out_features / rows
    shape = {"out": out_features, "in": in_features, "solver": solver}
    return shape | {"seconds": seconds, "rise_mb": peak_mb() - before}


def print_tables(result: dict[str, Any]) -> None:
    """Both tables, as Markdown."""
    header = ["setting", "solver", "summed error", "mean of layers", "worst layer", "seconds", "times faster"]
    rows = [
        [
            line["setting"],
            line["solver"],
            f"{line['error_ratio']:.3f}",
            f"{line['mean_layer_ratio']:.3f}",
            f"{line['worst_layer_ratio']:.3f}",
            f"{line['seconds']:.1f}",
            f"{line['times_faster']:.0f}",
        ]
        for line in result["summary"]
    ]
    print(markdown_table(header, rows), end="\n\n")
    header = ["out x in", "solver", "seconds", "peak MB", "of it for the solver"]
    rows = [
        [
            f"{s['out']} x {s['in']}",
            s["solver"],
            f"{s['seconds']:.1f}",
            f"{s['peak_mb']:.0f}",
            f"{s['rise_mb']:.0f}",
        ]
        for s in result["shapes"]
    ]
    print(markdown_table(header, rows))


def main(
    dense: Annotated[str, typer.Argument(help="The fine-tuned classifier.")],
    texts: Annotated[str, typer.Argument(help="File of calibration texts.")],
    output: Annotated[Path, typer.Option(help="Result as JSON.")] = RESULTS / "solver_quality.json",
    quick: Annotated[
        bool, typer.Option("--quick", help="Two encoder layers, two settings, no shapes.")
    ] = False,
) -> None:
    """Compare the layer-wise solvers."""
    run = RunConfig()
    prepare(run)
    problems = layer_problems(dense, texts)
    settings = ["75 %", "2:4"] if quick else list(PATTERNS)
    result: dict[str, Any] = {"environment": describe_environment(run), "rows_a_layer": ROWS, "layers": []}
    result["calibration"] = {"texts": CALIBRATION, "max_length": MAX_LENGTH, "damping": DAMPING}
    for name in settings:
        result["layers"] += compare(problems[:12] if quick else problems, name)
        result["summary"] = summary(result["layers"])
        result["shapes"] = []
        write_result(output, result)
    threads = result["environment"]["threads"]
    if not quick:
        shapes = [(*shape, solver) for shape in SHAPES for solver in ("fast", "greedy", "exact")]
        shapes += [(SCALING_ROWS, width, "fast") for width in WIDTHS]
        names = ("out_features", "in_features", "solver")
        result["shapes"] = [
            measured_alone(measure_shape, dict(zip(names, shape, strict=True)) | {"threads": threads})
            for shape in shapes
        ]
        write_result(output, result)
    print_tables(result)


if __name__ == "__main__":
    typer.run(main)
