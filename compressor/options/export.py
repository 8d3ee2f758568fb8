"""Options of the export."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from compressor.errors import UserError
from compressor.options.registry import Registry
from compressor.options.section import Section

GraphPrecision = Literal["fp32", "fp16", "bf16", "int8", "int8-static"]
Storage = Literal["dense", "sparse"]
Target = Literal["onnx", "tensorrt"]
BackendName = Literal["onnxruntime", "tensorrt"]

RUNTIME_REGISTRY = Registry("runtime", "compress.runtimes", ("onnxruntime",))

RuntimeName = Annotated[str, RUNTIME_REGISTRY]


class ExportConfig(Section):
    """Export to ONNX."""

    target: Target = Field(
        "onnx",
        description="onnx: a graph for ONNX Runtime; tensorrt: also checked for TensorRT node by node, with "
        "the script that builds an engine of it.",
    )
    runtime: RuntimeName = Field(
        "onnxruntime",
        description="What runs the artifact: in the proof of its parity, in attacks and in validation.",
    )
    precision: GraphPrecision | None = Field(
        None,
        description="Numbers of the graph; fp32 if not given, or fp16 for tensorrt. fp16 and bf16 are for "
        "GPUs; int8, whose inputs' scales are found as they come, for ONNX Runtime on CPUs; int8-static, "
        "whose scales are fitted on texts, for TensorRT as well.",
    )
    quantization_examples: int = Field(
        256, ge=1, description="Texts that the scales of int8-static are fitted on."
    )
    shrink: bool = Field(
        True,
        description="Cut out neurons and dimensions of heads that have no effect since all their weights are "
        "zero; not done for N:M patterns, which it would break.",
    )
    storage: Storage = Field(
        "dense",
        description="sparse: matrices whose zeros make it worth while as sparse_initializer; a smaller file, "
        "for ONNX Runtime only, and no faster.",
    )
    parity_examples: int = Field(256, ge=1, description="Real texts on which parity with PyTorch is proven.")
    parity_tolerance: float | None = Field(
        None,
        gt=0,
        description="Largest difference of a logit; if not given, 1e-4 for fp32, 2e-2 for fp16, and none "
        "for bf16 and int8.",
    )
    parity_agreement: float = Field(
        0.98,
        ge=0,
        le=1,
        description="Least share of texts with PyTorch's label; of a regression, least share of its answers' "
        "variance that the graph keeps.",
    )
    engine_batch_sizes: list[PositiveInt] = Field(
        [1, 8, 32],
        min_length=3,
        max_length=3,
        description="tensorrt: smallest, best and largest batch size of the engine.",
    )
    engine_lengths: list[PositiveInt] = Field(
        [1, 128, 512],
        min_length=3,
        max_length=3,
        description="tensorrt: shortest, best and longest input of the engine, in tokens.",
    )


def precision_of(config: ExportConfig) -> GraphPrecision:
    """The numbers of the graph, given or implied by the target.

    Raises:
        UserError: options that contradict each other.
    """
    if config.target == "onnx":
        return config.precision or "fp32"
    if config.precision == "int8":
        raise UserError(
            "precision int8: TensorRT cannot parse scales that are found at run time; take int8-static"
        )
    if config.storage == "sparse":
        raise UserError("storage sparse: TensorRT wants dense initializers; take storage dense")
    return config.precision or "fp16"


class TritonConfig(Section):
    """Model repository for Triton Inference Server."""

    model_name: str = Field("classifier", description="Name of the model: letters, digits, _ and -.")
    model_version: int = Field(1, ge=1, description="Version under which the graph is filed.")
    served_versions: int = Field(1, ge=1, description="Latest versions that are served at the same time.")
    backends: list[BackendName] = Field(
        ["onnxruntime"],
        min_length=1,
        description="onnxruntime serves the graph as it is; tensorrt, as a model of its own with _tensorrt "
        "after its name, an engine that you build on the serving machine.",
    )
    max_batch_size: int = Field(32, ge=1, le=4096, description="Most texts that run at once.")
    preferred_batch_sizes: list[PositiveInt] = Field(
        [],
        description="Batch sizes that run at once when they are full; if not given, whatever waits runs as "
        "soon as an instance is free.",
    )
    queue_delay: int = Field(
        500, ge=0, description="Most microseconds that a text waits for others to share its batch."
    )
    max_length: int | None = Field(
        None,
        ge=4,
        le=512,
        description="Longest input in tokens, longer ones are cut; no more than the max_length that the "
        "artifact was exported with, which is taken if not given.",
    )
    padding_multiple: int = Field(
        16,
        ge=1,
        description="Clients pad to a multiple of so many tokens: only inputs of equal length share a batch.",
    )
    instance_kind: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="Where onnxruntime runs; auto takes GPUs if there are any. tensorrt needs a GPU."
    )
    instances: int = Field(1, ge=1, description="Copies of the model that run side by side, on each GPU.")
    operator_threads: int = Field(
        0, ge=0, le=1024, description="onnxruntime: threads of one instance; 0 takes all cores."
    )
