"""Passes with linear layers by oneDNN against PyTorch's own way, on models with random weights.

    python -m benchmarks.linear_layers [--threads N] [--quick] [--output FILE]

32 texts a batch; the two take turns, and medians over rounds are compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from transformers import BertForSequenceClassification

from benchmarks.results_file import RESULTS, markdown_table, write_result
from benchmarks.whole_model import Shape, random_classifier
from compressor.models.onednn import is_faster, onednn_linears
from compressor.options import RunConfig
from compressor.system.environment import describe_environment, prepare

TEXTS = 32
LENGTHS = (16, 64, 128)
Pass = Callable[[], None]


def forward_pass(model: BertForSequenceClassification, ids: torch.Tensor) -> Pass:
    """Logits of a batch."""

    @torch.inference_mode()
    def run() -> None:
        model(input_ids=ids)

    return run


def both_passes(model: BertForSequenceClassification, ids: torch.Tensor) -> Pass:
    """Gradients of the loss of a batch."""
    labels = torch.zeros(len(ids), dtype=torch.int64)

    def run() -> None:
        model.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()

    return run


PASSES = {"forward": forward_pass, "forward and backward": both_passes}


def measure(model: BertForSequenceClassification, run: Pass, rounds: int) -> dict[str, float]:
    """Median seconds of a pass each way."""
    ways: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "pytorch": nullcontext,
        "onednn": lambda: onednn_linears(model),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(1 + rounds):
        for name, way in ways.items():
            with way():
                start = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - start)
    # The first round warms up.
    return {name: median(values[1:]) for name, values in seconds.items()}


def table(result: dict[str, Any]) -> str:
    """One line a shape and length: milliseconds both ways, and how many times faster oneDNN is."""
    lines: dict[tuple[str, int], list[str]] = {}
    for row in result["rows"]:
        pytorch, onednn = 1000 * row["pytorch"], 1000 * row["onednn"]
        cell = f"{pytorch:.0f} to {onednn:.0f} ms ({pytorch / onednn:.2f}x)"
        lines.setdefault((row["shape"], row["tokens"]), []).append(cell)
    return markdown_table(["shape", "tokens", *PASSES], [[*key, *cells] for key, cells in lines.items()])


def main(
    threads: Annotated[int | None, typer.Option(help="Threads; one a core if not given.")] = None,
    rounds: Annotated[int, typer.Option(help="Rounds of each measurement.")] = 15,
    output: Annotated[Path, typer.Option(help="Result as JSON.")] = RESULTS / "linear_layers.json",
    quick: Annotated[bool, typer.Option("--quick", help="MiniLM's shape alone, three rounds.")] = False,
) -> None:
    """Measure linear layers by oneDNN."""
    if not is_faster():
        raise SystemExit("linear layers are left to PyTorch on this processor: there is nothing to compare")
    run = RunConfig(threads=threads)
    prepare(run)
    result: dict[str, Any] = {"environment": describe_environment(run), "texts": TEXTS, "rows": []}
    for shape in [Shape.MINI] if quick else [Shape.MINI, Shape.BASE]:
        model = random_classifier(shape, None, torch.device("cpu")).model
        for length in LENGTHS:
            ids = torch.randint(1000, 20_000, (TEXTS, length), generator=torch.Generator().manual_seed(0))
            for name, make in PASSES.items():
                figures = measure(model, make(model, ids), 3 if quick else rounds)
                line = {"shape": shape.value, "tokens": length, "pass": name}
                result["rows"].append(line | figures)
                write_result(output, result)
    print(table(result))


if __name__ == "__main__":
    typer.run(main)
