"""Measure the latency table of a machine: the times of micro models in the runtime that will serve.

A micro model has one kind of block alone, of one width in all of its layers. What it takes more than the
model without any block, divided by the number of layers, is the cost of that width (as in ZipLM, Kurtic,
Frantar & Alistarh, NeurIPS 2023). All are timed in turn in every round, with the dense model beside them, so
that a drift of the machine's speed cancels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from compressor.models.latency_table import BlockTimes, LatencyTable, TableShape, Widths
from compressor.models.predictors import Predictor, TorchPredictor
from compressor.models.runtimes import runtime_named
from compressor.options import ExportConfig, LatencyTableConfig, RunConfig
from compressor.options.export import precision_of
from compressor.options.search import parse_shapes
from compressor.search.micro_models import (
    DenseShape,
    MicroArtifacts,
    check_lengths,
    micro_classifier,
    random_texts,
    read_shape,
)
from compressor.system.console import Progress
from compressor.system.environment import describe_environment, prepare, thread_count, torch_threads
from compressor.system.files import check_new_file, claim, json_text, scratch_directory, write_new_file
from compressor.validation.measure.latency import LatencyPlan, measure_latency
from compressor.validation.schema import LatencyFigures

REFERENCE = "PyTorch"
# Of attention heads; more levels are interpolated.
MOST_HEAD_LEVELS = 16
# Of the dense model's neurons: fine where an allocation leaves little.
NEURON_SHARES = (1 / 48, 1 / 24, 1 / 16, 1 / 12, 1 / 8, 1 / 6, 1 / 4, 1 / 3, 5 / 12, 1 / 2, 2 / 3, 5 / 6, 1)
# Kernels compute in blocks of so many.
NEURON_STEP = 32
# Random texts that fit the scales of int8-static and fill the batches; times do not depend on their number.
TEXTS, TEXT_LENGTH = 2, 32


def head_levels(heads: int) -> list[int]:
    """Return numbers of heads to measure, ascending from 1 to all: each, or 16 about evenly spread."""
    return sorted({int(n) for n in np.linspace(1, heads, min(heads, MOST_HEAD_LEVELS)).round()})


def neuron_levels(neurons: int) -> list[int]:
    """Return numbers of neurons to measure, ascending to all, finer where they are few.

    All but the last are multiples of 32, or of a smaller power of two where there are few neurons.
    """
    step = NEURON_STEP
    while step > 1 and step * 16 > neurons:
        step //= 2
    found = {min(neurons, max(step, round(share * neurons / step) * step)) for share in NEURON_SHARES}
    return sorted(found | {min(step, neurons), neurons})


def ascending(values: Sequence[float]) -> list[float]:
    """Return the numbers nearest to `values` by least squares that never fall and are 0 at least.

    They are those of isotonic regression by pooling adjacent violators (Barlow et al., 1972), and 0 in place
    of what is below: with a bound that is the optimum too.
    """
    pools: list[tuple[float, int]] = []
    for value in values:
        total, count = float(value), 1
        while pools and pools[-1][0] * count >= total * pools[-1][1]:
            before = pools.pop()
            total, count = total + before[0], count + before[1]
        pools.append((total, count))
    return [max(0.0, total / count) for total, count in pools for _ in range(count)]


def block_times(
    medians: Mapping[int, NDArray[np.float64]], rest: NDArray[np.float64], layers: int
) -> BlockTimes:
    """Return what each width of one layer's block costs, by the times of models of that width.

    Args:
        medians: of models with this block alone, by its width, `(shapes,)` milliseconds each.
        rest: of the model without any block.
        layers: of each model.
    """
    widths = sorted(medians)
    costs = np.array([(medians[width] - rest) / layers for width in widths])
    fitted = np.array([ascending(column) for column in costs.T]).T
    rows = [[0.0] * len(rest), *fitted.round(6).tolist()]
    return BlockTimes(widths=[0, *widths], ms=rows)


def latency_table(
    source: str, config: LatencyTableConfig, run: RunConfig, output: Path, *, force: bool, progress: Progress
) -> LatencyTable:
    """Measure the latency table for a model's shape on this machine, and write it as JSON.

    Args:
        source: directory or hub id of the model; only its `config.json` is read.
        output: file of the table; micro models are kept beside it while it is made.
        force: replace the file.

    Raises:
        UserError: no model of a known family, shapes that it does not take, a runtime that is not there or
            does not run the precision, or bad output.
    """
    check_new_file(output, force=force)
    with claim(output, reuses=True), scratch_directory(output) as folder:
        shape = read_shape(source)
        shapes = [TableShape(batch_size=b, length=n, weight=w) for b, n, w in parse_shapes(config.shapes)]
        check_lengths(source, shape, [own.length for own in shapes])
        device = prepare(run)
        longest = max(own.length for own in shapes)
        predictors = _predictors(shape, longest, config, run, folder, progress)
        predictors[REFERENCE] = _reference(shape, device, run.seed)
        figures = _timed(predictors, shapes, config, run, progress)
        table = _table(shape, shapes, config, run, figures)
        write_new_file(output, json_text(table.model_dump()), force=force)
    return table


def levels(shape: DenseShape) -> list[Widths]:
    """Return heads and neurons of each model that is timed: without both, with one of them, the dense one."""
    # The widest first: the graphs of the others are cut out of its graph.
    attention = [Widths(heads, 0) for heads in reversed(head_levels(shape.heads))]
    feed_forward = [Widths(0, neurons) for neurons in reversed(neuron_levels(shape.neurons))]
    return [Widths(0, 0), *attention, *feed_forward, Widths(shape.heads, shape.neurons)]


def _predictors(
    shape: DenseShape,
    longest: int,
    config: LatencyTableConfig,
    run: RunConfig,
    folder: Path,
    progress: Progress,
) -> dict[str, Predictor]:
    """Export each model and load it in the runtime; the keys are those of `_name`.

    Args:
        longest: length that the model takes, of the texts that int8 is fitted to.
    """
    export = ExportConfig(runtime=config.runtime, precision=config.precision)
    precision_of(export)
    runtime, device = runtime_named(config.runtime), prepare(run).type
    texts = random_texts(TEXTS, min(TEXT_LENGTH, longest), run.seed)
    found: dict[str, Predictor] = {}
    artifacts = MicroArtifacts(shape, export, texts, run.seed)
    for widths in progress.track(levels(shape), "Exporting models of each width"):
        directory = folder / _name(widths).replace(" ", "-")
        directory.mkdir()
        artifacts.write(widths, directory)
        found[_name(widths)] = runtime(directory, thread_count(run), device, spinning=True)
    return found


def _name(widths: Widths) -> str:
    return f"{widths.heads} heads {widths.neurons} neurons"


def _reference(shape: DenseShape, device: torch.device, seed: int) -> Predictor:
    dense = micro_classifier(shape, shape.heads, shape.neurons, seed=seed, attention="sdpa")
    dense.model.to(device)
    return TorchPredictor(dense)


def _timed(
    predictors: Mapping[str, Predictor],
    shapes: Sequence[TableShape],
    config: LatencyTableConfig,
    run: RunConfig,
    progress: Progress,
) -> dict[str, list[LatencyFigures]]:
    plan = LatencyPlan([(own.batch_size, own.length) for own in shapes], config.rounds, config.shape_seconds)
    texts = random_texts(TEXTS, TEXT_LENGTH, run.seed)
    with torch_threads(thread_count(run)):
        return measure_latency(predictors, dict.fromkeys(predictors, texts), plan, progress)


def _table(
    shape: DenseShape,
    shapes: Sequence[TableShape],
    config: LatencyTableConfig,
    run: RunConfig,
    figures: Mapping[str, Sequence[LatencyFigures]],
) -> LatencyTable:
    """Return the record of what was measured.

    Args:
        figures: of each model, by its name, at each shape.
    """
    medians = {name: np.array([one.p50_ms for one in own]) for name, own in figures.items()}
    rest = medians[_name(Widths(0, 0))]
    attention = {heads: medians[_name(Widths(heads, 0))] for heads in head_levels(shape.heads)}
    feed_forward = {neurons: medians[_name(Widths(0, neurons))] for neurons in neuron_levels(shape.neurons)}
    every = [one for own in figures.values() for one in own]
    return LatencyTable(
        runtime=config.runtime,
        precision=config.precision,
        threads=thread_count(run),
        layers=shape.layers,
        heads=shape.heads,
        neurons=shape.neurons,
        hidden_size=shape.hidden_size,
        head_size=shape.hidden_size // shape.heads,
        shapes=list(shapes),
        attention=block_times(attention, rest, shape.layers),
        feed_forward=block_times(feed_forward, rest, shape.layers),
        rest_ms=rest.tolist(),
        dense_ms=medians[_name(Widths(shape.heads, shape.neurons))].tolist(),
        reference_ms=medians[REFERENCE].tolist(),
        environment={
            **describe_environment(run),
            "rounds": [one.rounds for one in figures[REFERENCE]],
            "stable_share": round(sum(one.stable for one in every) / len(every), 3),
        },
    )
