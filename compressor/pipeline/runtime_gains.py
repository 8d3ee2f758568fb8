"""What a sparsity pattern buys on a runtime: measured facts, in one place, and told before a run."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.options import PruneConfig
from compressor.pruning.patterns import NM, Structured, parse_pattern

ON_CPU = "measured on 2 cores of an AMD EPYC with ONNX Runtime 1.32"
ELSEWHERE = "reported by users of TensorRT; not measured without a GPU"


@dataclass(frozen=True)
class Gain:
    """One fact, and where it is from."""

    text: str
    source: str


ZEROS_IN_ORT = Gain(
    "ONNX Runtime multiplies with zeros as with any number: 90 % zeros ran at 0.91 to 0.99 times the speed "
    "of none",
    ON_CPU,
)
PACKED_ZEROS = Gain(
    "Packed (compress pack), pruned matrices take 53 % of their size at 50 % zeros, 28 % at 75 %, 13 % at "
    "90 %",
    "counted: a bitmask and the values that are left",
)
STRUCTURE_IN_ORT = Gain(
    "What is taken out is not computed: half of heads and neurons ran 1.8 to 2.1 times as fast, with three "
    "quarters 2.8 to 3.8 times, and the file shrinks with them",
    ON_CPU,
)
TWO_OF_FOUR = Gain(
    "2:4 is what TensorRT's sparse kernels take, on GPUs from Ampere on: 1.2 to 1.3 times as fast at best, "
    "and nothing where it picks dense kernels",
    ELSEWHERE,
)
OTHER_NM = Gain(
    "Of the N:M patterns 2:4 alone has kernels in TensorRT, so this one buys no time there either",
    "TensorRT's documentation",
)
INT8 = Gain(
    "Quantised to int8 (dynamic, per channel), with or without zeros, a graph ran 2.1 to 2.3 times as fast "
    "in a quarter of the size",
    ON_CPU,
)
NO_GPU_FIGURES = Gain(
    "For ONNX Runtime on CUDA there are no figures yet; those of a CPU follow", "no measurement"
)


def gains_of(config: PruneConfig, device: str) -> list[Gain]:
    """What is known of the options' pattern on ONNX Runtime, where the run measures, and on TensorRT.

    Args:
        device: "cpu" or "cuda", where the artifact runs.

    Raises:
        UserError: a pattern that there is not.
    """
    pattern = parse_pattern(config.pattern, config.sparsity, config.scope)
    if isinstance(pattern, Structured):
        found = [STRUCTURE_IN_ORT]
    elif isinstance(pattern, NM):
        found = [ZEROS_IN_ORT, TWO_OF_FOUR if (pattern.n, pattern.m) == (2, 4) else OTHER_NM, PACKED_ZEROS]
    else:
        found = [ZEROS_IN_ORT, PACKED_ZEROS]
    return [*([NO_GPU_FIGURES] if device == "cuda" else []), *found, INT8]
