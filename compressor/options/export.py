"""Options of the export."""

from __future__ import annotations

from pydantic import Field

from compressor.options.section import Section


class ExportConfig(Section):
    """Export to ONNX."""

    parity_examples: int = Field(256, ge=1, description="Real texts on which parity with PyTorch is proven.")
    parity_tolerance: float = Field(1e-4, gt=0, le=1, description="Largest difference of a logit.")
