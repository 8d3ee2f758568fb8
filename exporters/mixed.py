"""int8 graphs in which the weights that cost most stay float32: as few as a bound on the answers needs.

As in accuracy-aware quantization of Intel's NNCF, weights are ranked by what their quantization alone does to
the answers, and the first of them are left as they are until the bound holds.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from compressor.data.texts import TextData
from compressor.errors import UserError
from compressor.models.batching import encode
from compressor.models.classifier import Classifier
from compressor.models.predictors import Predictor, TorchPredictor, predict_encoded
from compressor.models.runtimes import runtime_named
from compressor.options import ExportConfig
from compressor.options.export import weight_bits_of
from compressor.system.console import Progress, SilentProgress
from compressor.system.context import Context
from compressor.system.environment import thread_count
from exporters.onnx import computation_sha256
from exporters.quantize_rows import quantizable, quantize_rows
from exporters.rounding import FittedWeight
from exporters.verify import Parity, check_parity, input_limits, measure_parity

# Texts that are answered at a time.
BATCH_SIZE = 64


@dataclass(frozen=True)
class Judged:
    """What the parity check found of a graph.

    Attributes:
        parity: on the texts of the proof.
        computation: `computation_sha256` of the graph.
    """

    parity: Parity
    computation: str


@dataclass(frozen=True)
class Quantized:
    """A graph that was quantized.

    Attributes:
        kept: names of the weights that stay float32.
        judged: what the parity check found of it; None where it did not run.
    """

    kept: list[str] = field(default_factory=list)
    judged: Judged | None = None


def quantize_all(config: ExportConfig, graph: Path, fitted: Mapping[str, FittedWeight]) -> Quantized:
    """Quantize a graph by rows, all its weights, whatever that does to the answers."""
    quantize_rows(graph, weight_bits_of(config), fitted=fitted)
    return Quantized()


def quantize_within_bound(
    classifier: Classifier,
    proof: TextData,
    others: TextData,
    config: ExportConfig,
    context: Context,
    graph: Path,
    fitted: Mapping[str, FittedWeight],
) -> Quantized:
    """Quantize the graph of an artifact's directory by rows, but for weights without which the proof fails.

    Args:
        proof: texts of the parity check.
        others: texts that rank the weights; parity must hold on them too where weights are chosen.
        graph: beside the artifact's configuration and tokenizer.
        fitted: weights that were fitted to texts, by name.
    """
    if not config.mixed:
        return quantize_all(config, graph, fitted)
    reference, limits = TorchPredictor(classifier), input_limits(classifier)
    encoded = encode(classifier.tokenizer, others, context.columns.max_length)
    silent = replace(context, progress=SilentProgress())
    found: dict[str, Parity] = {}

    @cache
    def expected() -> NDArray[np.float32]:
        return predict_encoded(reference, encoded, BATCH_SIZE)

    def load() -> Predictor:
        return runtime_named(config.runtime)(graph.parent, thread_count(context.run))

    def passes(texts: TextData) -> bool:
        parity = measure_parity(reference, load(), texts, silent, limits)
        if texts is proof:
            found[computation_sha256(graph)] = parity
        try:
            check_parity(parity, config.parity_tolerance, config.parity_agreement)
        except UserError:
            return False
        return True

    kept = keep_costliest(
        graph,
        lambda kept: quantize_rows(graph, weight_bits_of(config), kept, fitted),
        lambda kept: passes(proof) and (not kept or passes(others)),
        lambda: divergence(expected(), predict_encoded(load(), encoded, BATCH_SIZE)),
        context.progress,
    )
    if kept:
        context.progress.log(f"Stay float32, since too many labels would differ otherwise: {', '.join(kept)}")
    computation = computation_sha256(graph)
    parity = found.get(computation)
    return Quantized(kept, None if parity is None else Judged(parity, computation))


def divergence(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Return how far answers are from the expected ones: the mean Kullback-Leibler divergence of the classes.

    Of a regression it is the mean squared difference.

    Args:
        expected, found: logits `(texts, labels)`.
    """
    wide, other = expected.astype(np.float64), found.astype(np.float64)
    if wide.shape[1] == 1:
        return float(np.square(wide - other).mean())
    logs, others = log_softmax(wide, axis=1), log_softmax(other, axis=1)
    return float((np.exp(logs) * (logs - others)).sum(axis=1).mean())


def keep_costliest(
    graph: Path,
    quantize_but: Callable[[Sequence[str]], None],
    holds: Callable[[Sequence[str]], bool],
    distance: Callable[[], float],
    progress: Progress,
) -> list[str]:
    """Quantize a float32 graph in place but for as few weights as a bound on its answers needs.

    Args:
        quantize_but: quantizes the float32 graph in place but for some of its weights.
        holds: whether the bound holds for the graph in its place, in which these weights are float32.
        distance: how far its answers are from the float32 ones.

    Returns:
        The names of the weights that stay float32, those first that cost most; empty if the bound holds
        without.
    """
    names = quantizable(graph)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(shutil.copy(graph, folder))

        def quantize(kept: Sequence[str]) -> None:
            shutil.copy(source, graph)
            quantize_but(kept)

        def holds_with(kept: Sequence[str]) -> bool:
            quantize(kept)
            return holds(kept)

        if holds_with([]):
            return []
        costs = {}
        for name in progress.track(names, "Ranking weights by what int8 does to the answers"):
            quantize([other for other in names if other != name])
            costs[name] = distance()
        kept = fewest_kept(sorted(names, key=lambda name: -costs[name]), holds_with)
        quantize(kept)
    return kept


def fewest_kept(ranked: Sequence[str], holds: Callable[[Sequence[str]], bool]) -> list[str]:
    """Return the shortest beginning of a ranking with which a bound holds; without any it does not.

    Where a longer beginning can break the bound again, it is one with which the bound holds and without whose
    last weight it does not. All weights are taken without a question.

    Args:
        holds: whether the bound holds with these weights in float32.
    """
    failing, holding = 0, len(ranked)
    while 2 * failing + 1 < holding:
        tried = 2 * failing + 1
        if holds(ranked[:tried]):
            holding = tried
        else:
            failing = tried
    while holding - failing > 1:
        middle = (failing + holding) // 2
        if holds(ranked[:middle]):
            holding = middle
        else:
            failing = middle
    return list(ranked[:holding])
