"""An exported graph, made ready for TensorRT: checks, shapes, and the script that builds the engine."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from onnx import ModelProto

from compressor.display.pages import page_templates
from compressor.errors import UserError
from compressor.models.artifact_files import ARTIFACT_GRAPH
from exporters.onnx_graph import inputs
from exporters.tensorrt.checks import Check, static_checks
from exporters.tensorrt.engine_log import BUILD_LOG, ENGINE, GRAPH_DIGEST, LAYER_INFO
from exporters.tensorrt.operators import TABLE_VERSION
from exporters.tensorrt.profile import Profile
from exporters.tensorrt.sparse_gemms import sparse_gemms

BUILD_SCRIPT = "build_engine.sh"


def build_script(graph: str, profile: Profile, names: Sequence[str]) -> str:
    """Return the bash script that builds an engine of the file `graph` beside it and measures it.

    Args:
        names: the graph's inputs, each `(batch, sequence)`.
    """
    templates = page_templates(Path(__file__).parent / "templates")
    templates.filters["quoted"] = shlex.quote
    return templates.get_template(f"{BUILD_SCRIPT}.j2").render(
        graph=graph,
        profile=profile,
        shapes=profile.arguments(names),
        engine=ENGINE,
        log=BUILD_LOG,
        layers=LAYER_INFO,
        digest=GRAPH_DIGEST,
    )


def prepare(
    directory: Path,
    model: ModelProto,
    profile: Profile,
    max_position_embeddings: int,
    graph: str = ARTIFACT_GRAPH,
    *,
    half: bool = True,
) -> dict[str, Any]:
    """Write `build_engine.sh` into the directory of a graph; return what the manifest should know.

    Failed checks are returned, not raised: the graph may still be wanted, and all of them at once.

    Args:
        model: the content of the file `graph`, with its weights.
        half: whether it is to be in float16 throughout.

    Returns:
        JSON: `passed`, `checks` (name, status, findings, note), `gemms` (see `GemmRow`),
        `eligible_gemms`, `profile`, `operator_table`, `script`.

    Raises:
        UserError: the profile is too long for the model.
    """
    problem = profile.problem(max_position_embeddings)
    if problem:
        raise UserError(f"profile: {problem}")
    checks = static_checks(model, profile, max_position_embeddings, half=half)
    # What is no valid ONNX cannot be read further; its checks have failed.
    gemms = sparse_gemms(model) if checks[0].status == "pass" else []
    script = directory / BUILD_SCRIPT
    names = [entry.name for entry in inputs(model.graph)]
    script.write_text(build_script(graph, profile, names), encoding="utf-8")
    script.chmod(0o755)
    return {
        "passed": all(check.status == "pass" for check in checks),
        "checks": [_check_facts(check) for check in checks],
        "gemms": [asdict(row) for row in gemms],
        "eligible_gemms": sum(row.eligible for row in gemms),
        "profile": asdict(profile),
        "operator_table": f"TensorRT {TABLE_VERSION}",
        "script": BUILD_SCRIPT,
    }


def _check_facts(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "status": check.status,
        "findings": [asdict(finding) for finding in check.findings],
        "note": check.note,
    }
