"""Time of 2:4 weights in PyTorch's semi-structured form against dense ones, on sparse tensor cores.

    python -m benchmarks.semi_structured [--quick] [--output FILE]

The encoder of BERT-base's shape in fp16 with random weights, so this is about time alone; both sides hold the
same numbers, half of them zero by 2:4. Each forward pass is replayed as a CUDA graph, so that the time to
launch kernels, which is the same on both sides, hides nothing, and also called as it comes. Both sides take
turns in every round.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn
from torch.sparse import to_sparse_semi_structured

from benchmarks.results_file import RESULTS, markdown_table, write_result
from benchmarks.whole_model import SHAPES, Shape, random_classifier
from compressor.errors import UserError
from compressor.models.classifier import encoder_linears
from compressor.options import RunConfig
from compressor.pruning.patterns import NM
from compressor.system.environment import describe_environment, prepare

TOKENS = 128
BATCHES = (1, 32, 128)
ROUNDS, QUICK_ROUNDS = 30, 5
WARMUP_CALLS = 5
CALLS_A_ROUND = 10
DENSE, SPARSE = "dense", "2:4"


def encoders(device: torch.device) -> dict[str, nn.Module]:
    """The same weights in fp16, half of them zero by 2:4, in dense and in semi-structured form."""
    dense = random_classifier(Shape.BASE, None, device).model.half()
    for linear in encoder_linears(dense).values():
        linear.weight.masked_fill_(~NM(2, 4).mask(linear.weight.abs()), 0.0)
    sparse = copy.deepcopy(dense)
    for linear in encoder_linears(sparse).values():
        linear.weight = nn.Parameter(to_sparse_semi_structured(linear.weight), requires_grad=False)
    return {DENSE: dense.bert.encoder, SPARSE: sparse.bert.encoder}


def call_of(encoder: nn.Module, states: Tensor) -> Callable[[], Tensor]:
    """A forward pass without padding."""
    return lambda: encoder(states).last_hidden_state


def graph_of(call: Callable[[], Tensor]) -> Callable[[], None]:
    """The same as a CUDA graph that is replayed."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARMUP_CALLS):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def milliseconds(call: Callable[[], object]) -> float:
    """Mean time of a call on the device."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(CALLS_A_ROUND):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / CALLS_A_ROUND


def in_turns(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Any]:
    """Median times of both sides, and median, least and greatest of the rounds' ratios."""
    for call in calls.values():
        for _ in range(WARMUP_CALLS):
            call()
    times = {name: [0.0] * rounds for name in calls}
    for turn in range(rounds):
        for name, call in calls.items():
            times[name][turn] = milliseconds(call)
    ratios = [dense / sparse for dense, sparse in zip(times[DENSE], times[SPARSE], strict=True)]
    medians = {f"{name}_ms": statistics.median(values) for name, values in times.items()}
    return medians | {
        "times_faster": statistics.median(ratios),
        "least": min(ratios),
        "greatest": max(ratios),
    }


@torch.no_grad()
def measure(device: torch.device, rounds: int) -> list[dict[str, Any]]:
    """One row a batch size and way of calling."""
    sides = encoders(device)
    rows = []
    for batch in BATCHES:
        generator = torch.Generator(device).manual_seed(batch)
        shape = (batch, TOKENS, SHAPES[Shape.BASE]["hidden_size"])
        states = torch.randn(shape, generator=generator, device=device, dtype=torch.float16)
        calls = {name: call_of(encoder, states) for name, encoder in sides.items()}
        expected, found = (calls[name]().float() for name in (DENSE, SPARSE))
        error = float((found - expected).norm() / expected.norm())
        graphs = {name: graph_of(call) for name, call in calls.items()}
        for way, figures in (("graph", in_turns(graphs, rounds)), ("as it comes", in_turns(calls, rounds))):
            row = {"batch": batch, "tokens": TOKENS, "called": way, "relative_difference": error}
            rows.append(row | figures)
    return rows


def table(result: dict[str, Any]) -> str:
    """One line a batch size and way of calling."""
    header = ["batch", "called", "dense, ms", "2:4, ms", "times faster", "least to greatest"]
    return markdown_table(
        header,
        [
            [
                row["batch"],
                row["called"],
                f"{row['dense_ms']:.3f}",
                f"{row['2:4_ms']:.3f}",
                f"{row['times_faster']:.2f}",
                f"{row['least']:.2f} to {row['greatest']:.2f}",
            ]
            for row in result["rows"]
        ],
    )


def main(
    output: Annotated[Path, typer.Option(help="Result as JSON.")] = RESULTS / "semi_structured.json",
    quick: Annotated[bool, typer.Option("--quick", help="Five rounds.")] = False,
) -> None:
    """Measure what 2:4 gains on sparse tensor cores."""
    if not torch.cuda.is_available():
        raise UserError("semi_structured: PyTorch finds no CUDA device here, and the form has no CPU kernel")
    run = RunConfig(device="cuda")
    rows = measure(prepare(run), QUICK_ROUNDS if quick else ROUNDS)
    result = {"shape": Shape.BASE.value, "environment": describe_environment(run), "rows": rows}
    write_result(output, result)
    print(table(result))


if __name__ == "__main__":
    typer.run(main)
