"""What is known of a TensorRT engine, as rows of names and values."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exporters.tensorrt.engine_log import EngineBuild

MISSING = "-"


def engine_title(build: EngineBuild) -> str:
    """What built the engine."""
    return f"TensorRT {build.version or 'of unknown version'}"


def engine_rows(build: EngineBuild) -> list[tuple[str, str]]:
    """Name and value of each figure of a build; sparse layers follow their number, indented."""
    rows = [("GPU", build.gpu or MISSING)]
    for name, layers in (("eligible", build.eligible), ("chosen", build.chosen)):
        rows.append((f"layers {name} for sparse kernels", MISSING if layers is None else str(layers.count)))
    sparse = build.sparse_layers
    rows.append(
        ("layers of the engine with a sparse kernel", MISSING if sparse is None else str(len(sparse)))
    )
    rows += [(f"  {layer.name}", layer.kernel) for layer in sparse or ()]
    if build.skipped_tactics:
        rows.append(("kernels not tried for want of memory", str(build.skipped_tactics)))
    for name, latency in (("GPU time", build.gpu_latency), ("with transfers", build.latency)):
        if latency is not None:
            tails = "".join(f", p{p} {ms:g} ms" for p, ms in latency.percentiles.items())
            rows.append((f"latency, {name}", f"median {latency.median_ms:g} ms{tails}"))
    return rows
