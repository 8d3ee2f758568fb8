"""An exported graph, made ready for TensorRT: checks, shapes, and the script that builds the engine."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnx import ModelProto

from compressor.artifact_files import ARTIFACT_GRAPH
from compressor.errors import UserError
from compressor.pages import page_templates
from exporters.engine_log import BUILD_LOG, ENGINE, GRAPH_DIGEST, LAYER_INFO
from exporters.onnx_graph import inputs
from exporters.sparse_gemms import sparse_gemms
from exporters.tensorrt_checks import Check, static_checks
from exporters.tensorrt_operators import TABLE_VERSION

BUILD_SCRIPT = "build_engine.sh"


@dataclass(frozen=True)
class Profile:
    """The shapes that one engine takes, and those that its kernels are chosen for (`opt`).

    Batches are numbers of texts, sequences numbers of tokens.

    Raises:
        UserError: not 1 <= min <= opt <= max.
    """

    min_batch: int
    opt_batch: int
    max_batch: int
    min_sequence: int
    opt_sequence: int
    max_sequence: int

    def __post_init__(self) -> None:
        for axis in ("batch", "sequence"):
            low, best, high = (getattr(self, f"{bound}_{axis}") for bound in ("min", "opt", "max"))
            if not 1 <= low <= best <= high:
                raise UserError(
                    f"profile: {axis} has min {low}, opt {best}, max {high}; they must rise from 1 or more"
                )

    def problem(self, max_position_embeddings: int) -> str | None:
        """Return why a model of so many positions cannot take these shapes, or None."""
        if self.max_sequence <= max_position_embeddings:
            return None
        return (
            f"max_sequence {self.max_sequence} is more than the {max_position_embeddings} positions of the "
            f"model; lower it"
        )

    def arguments(self, names: Sequence[str]) -> list[str]:
        """Return trtexec's options for these shapes, for inputs `(batch, sequence)` of these names."""
        shapes = {bound: (getattr(self, f"{bound}_batch"), getattr(self, f"{bound}_sequence"))
                  for bound in ("min", "opt", "max")}  # fmt: skip
        return [
            f"--{bound}Shapes={','.join(f'{name}:{batch}x{sequence}' for name in names)}"
            for bound, (batch, sequence) in shapes.items()
        ]


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
