"""Options of the export."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from compressor.options.section import Section

GraphPrecision = Literal["fp32", "fp16", "bf16", "int8", "int8-static"]
Storage = Literal["dense", "sparse"]


class ExportConfig(Section):
    """Export to ONNX."""

    precision: GraphPrecision = Field(
        "fp32",
        description="Numbers of the graph: fp32; fp16 or bf16 throughout, for GPUs; int8, its inputs' scales "
        "found as they come, for ONNX Runtime on CPUs; int8-static, its scales fitted on texts, for TensorRT "
        "as well.",
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
        0.98, ge=0, le=1, description="Least share of texts with the same label as PyTorch's."
    )
