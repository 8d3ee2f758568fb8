"""Options of the export."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from compressor.errors import UserError
from compressor.options.normalization import NormalizationConfig
from compressor.options.registry import Registry
from compressor.options.section import Common, Section

GraphPrecision = Literal["fp32", "fp16", "bf16", "int8", "int8-dynamic", "int8-static"]
TargetIsa = Literal["avx512_vnni", "avx2", "any"]
Rounding = Literal["fitted", "nearest"]
Storage = Literal["dense", "sparse"]
Target = Literal["onnx", "tensorrt"]
BackendName = Literal["onnxruntime", "openvino", "tensorrt"]

RUNTIME_REGISTRY = Registry("runtime", "compress.runtimes", ("onnxruntime", "openvino"))

RuntimeName = Annotated[str, RUNTIME_REGISTRY]


class VocabularyConfig(Section):
    """Smaller vocabulary."""

    vocabulary_coverage: float = Field(
        0.999,
        gt=0,
        le=1,
        description="With vocabulary texts: fraction of their pieces, by occurrence, that the smaller "
        "vocabulary keeps; the most frequent ones, beside characters and special tokens. 1 keeps all that "
        "occur.",
    )
    vocabulary_pieces: int = Field(
        0,
        ge=0,
        description="With vocabulary texts: minimum number of pieces. If fewer are kept, those that are most "
        "frequent in general follow, for words that the texts lack.",
    )
    vocabulary_agreement: float = Field(
        0.98,
        ge=0,
        le=1,
        description="With vocabulary texts: minimum fraction of the compared texts (of an export, those of "
        "the parity check) with the same label as with the whole vocabulary. For regression, the minimum "
        "fraction of the variance of the predictions that is preserved. 0 does not check it.",
    )


class ExportConfig(VocabularyConfig, NormalizationConfig):
    """Export to ONNX."""

    target: Annotated[Target, Common()] = Field(
        "onnx",
        description="Runtime of the artifact. onnx: a graph for ONNX Runtime. tensorrt: every node is also "
        "checked against TensorRT, and a script that builds the engine is written.",
    )
    runtime: RuntimeName = Field(
        "onnxruntime",
        description="What runs the artifact: in the proof of its parity, in attacks and in validation. "
        "openvino is for CPUs and comes with the extra openvino.",
    )
    precision: Annotated[GraphPrecision | None, Common()] = Field(
        None,
        description="Precision of the graph; by default fp32, or fp16 with --target tensorrt. fp16 and "
        "bf16 are for GPUs. int8 (a scale for each token, computed at run time) is for ONNX Runtime on "
        "CPUs. int8-static (scales calibrated on texts) also works in TensorRT. int8-dynamic (one scale "
        "for a whole batch) is not recommended: its answer to a text depends on the rest of the batch.",
    )
    target_isa: TargetIsa = Field(
        "avx512_vnni",
        description="Processors that an int8 artifact is for, by their instructions. avx512_vnni: those with "
        "8-bit dot products (also AVX-VNNI, and ARM's). avx2: those without, where sums of 8-bit weights "
        "overflow, so weights have 7 bits. any: both, with the same answers, 7 bits and a slower softmax.",
    )
    weight_bits: Literal[7, 8] | None = Field(
        None, description="Bits of int8's weights; by default what target_isa needs."
    )
    mixed: bool = Field(
        True,
        description="Leave those weights of an int8 graph in float32 whose quantization changes the answers "
        "most, as few as the parity check needs. Without it an export whose labels differ too often fails.",
    )
    rounding: Rounding = Field(
        "fitted",
        description="How weights of int8 and int8-static become integers. fitted: for the outputs of each "
        "layer on texts of --calibration. nearest: each for itself.",
    )
    quantization_examples: int = Field(
        256, ge=1, description="Number of texts of --calibration that int8 is fitted to."
    )
    shrink: bool = Field(
        True,
        description="Remove neurons and head dimensions that have no effect because all their weights are "
        "zero. Not applied to N:M patterns, which it would break.",
    )
    storage: Storage = Field(
        "dense",
        description="sparse: store a matrix as sparse_initializer where that makes the file smaller; ONNX "
        "Runtime only, and no faster.",
    )
    parity_examples: int = Field(
        256, ge=1, description="Number of real texts on which parity with PyTorch is checked."
    )
    parity_tolerance: float | None = Field(
        None,
        gt=0,
        description="Maximum absolute difference of a logit from PyTorch; by default 1e-4 for fp32, 2e-2 "
        "for fp16, and no limit for bf16 and int8.",
    )
    parity_agreement: float = Field(
        0.98,
        ge=0,
        le=1,
        description="Minimum fraction of texts with the same label as in PyTorch. For regression, the "
        "minimum fraction of the variance of the predictions that is preserved.",
    )
    engine_batch_sizes: list[PositiveInt] = Field(
        [1, 8, 32],
        min_length=3,
        max_length=3,
        description="tensorrt: minimum, optimum and maximum batch size of the engine.",
    )
    engine_lengths: list[PositiveInt] = Field(
        [1, 128, 512],
        min_length=3,
        max_length=3,
        description="tensorrt: minimum, optimum and maximum input length of the engine, in tokens.",
    )


def precision_of(config: ExportConfig) -> GraphPrecision:
    """Return the precision of the graph, given or implied by the target.

    Raises:
        UserError: options that contradict each other.
    """
    for name in ("weight_bits", "target_isa"):
        if config.precision != "int8" and getattr(config, name) != type(config).model_fields[name].default:
            raise UserError(f"{name} {getattr(config, name)}: is an option of --precision int8 alone")
    if config.runtime == "openvino" and (config.weight_bits or config.target_isa != "avx512_vnni"):
        raise UserError("weight_bits, target_isa: are options of runtime onnxruntime alone")
    weight_bits_of(config)
    if config.target == "onnx":
        return config.precision or "fp32"
    if config.precision in ("int8", "int8-dynamic"):
        raise UserError(
            f"precision {config.precision}: TensorRT cannot parse scales that are computed at run time; use "
            f"int8-static"
        )
    if config.storage == "sparse":
        raise UserError("storage sparse: TensorRT requires dense initializers; use storage dense")
    return config.precision or "fp16"


def weight_bits_of(config: ExportConfig) -> int:
    """Return the number of bits of int8's weights, given or implied by the processors.

    Raises:
        UserError: so many overflow on these processors.
    """
    most = 8 if config.target_isa == "avx512_vnni" else 7
    if config.weight_bits is not None and config.weight_bits > most:
        raise UserError(
            f"weight_bits {config.weight_bits}: sums overflow on processors without VNNI; give weight_bits "
            f"{most}, or target_isa avx512_vnni"
        )
    return config.weight_bits or most


class TritonConfig(Section):
    """Model repository for Triton Inference Server."""

    model_name: Annotated[str, Common()] = Field(
        "classifier", description="Name of the model: letters, digits, _ and -."
    )
    model_version: int = Field(1, ge=1, description="Version number of the model in the repository.")
    served_versions: int = Field(1, ge=1, description="Number of latest versions to serve at the same time.")
    backends: Annotated[list[BackendName] | None, Common()] = Field(
        None,
        min_length=1,
        description="Backends with a model each; by default the runtime that the artifact was exported for. "
        "onnxruntime serves model.onnx, openvino model.xml of an artifact for OpenVINO, tensorrt an engine "
        "that you build on the serving machine. A backend that is not the artifact's runtime is a suffix of "
        "its model's name.",
    )
    max_batch_size: Annotated[int, Common()] = Field(
        32,
        ge=1,
        le=4096,
        description="Maximum batch size. openvino batches no requests and takes as many texts as one has.",
    )
    preferred_batch_sizes: list[PositiveInt] = Field(
        [],
        description="Batch sizes to run as soon as they are full; by default any waiting texts run as soon "
        "as an instance is free.",
    )
    queue_delay: int = Field(
        500, ge=0, description="Maximum time in microseconds that a text waits for a batch to fill."
    )
    max_length: Annotated[int | None, Common()] = Field(
        None,
        ge=4,
        le=512,
        description="Maximum input length in tokens; longer inputs are truncated. At most, and by default, "
        "the max_length of the artifact.",
    )
    padding_multiple: int = Field(
        16,
        ge=1,
        description="Clients pad to a multiple of this number of tokens: only inputs of equal length share "
        "a batch.",
    )
    instance_kind: Literal["auto", "cpu", "gpu"] = Field(
        "auto",
        description="Device of the onnxruntime backend; auto uses GPUs if there are any. tensorrt needs a "
        "GPU, openvino runs on CPUs.",
    )
    instances: int = Field(
        1, ge=1, description="Number of copies of the model that run in parallel, on each GPU."
    )
    operator_threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="onnxruntime and openvino: number of threads of one instance; 0 uses all cores.",
    )
