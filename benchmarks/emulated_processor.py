"""Does an artifact answer on another processor as on this one? Checked under emulation.

    python -m benchmarks.emulated_processor MODEL TEXTS [--cpu Haswell] [--quick] [--output FILE]

Each form of a graph is exported and answers the texts here. `check_host.py` then compares these answers with
those of the same files under `qemu-x86_64` (Debian's package qemu-user), which emulates a processor with AVX2
and without VNNI.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.results_file import RESULTS, markdown_table, write_result
from compressor.data.texts import TextData, load_text_data
from compressor.models.classifier import Classifier, load_classifier
from compressor.models.portable import check_host
from compressor.options import ColumnsConfig, ExportConfig, RunConfig
from compressor.system.console import terminal_progress
from compressor.system.context import Context
from compressor.system.environment import describe_environment
from exporters.reference import write_reference
from exporters.reference_texts import ReferenceTexts
from exporters.stage import export_directory
from exporters.texts import ExportTexts

EMULATOR = "qemu-x86_64"
# Nothing stops an export here: how far its answers are from PyTorch's is not the question.
ANY = {"mixed": False, "parity_agreement": 0.0}
FORMS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "int8, --target-isa avx512_vnni": {"precision": "int8", **ANY},
    "int8, --target-isa any": {"precision": "int8", "target_isa": "any", **ANY},
    "int8-static": {"precision": "int8-static", **ANY},
}
TEXTS, QUICK_TEXTS = 200, 16


def exported(
    classifier: Classifier, texts: str, data: TextData, options: dict[str, Any], context: Context
) -> Path:
    """Export a form of the classifier with the answers to the texts; its directory."""
    record = export_directory(
        classifier.source, texts, ExportConfig(**options), context, ExportTexts(calibration=texts)
    )
    write_reference(classifier, record.path, ReferenceTexts("given", data.texts, []), record.model_dump())
    return record.path


def differences(artifact: Path, *emulator: str) -> dict[str, Any]:
    """What `check_host.py` finds, in a process of its own on one core.

    Raises:
        RuntimeError: it does not end with an answer.
    """
    command = [*emulator, sys.executable, check_host.__file__, str(artifact), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
    found = json.loads(done.stdout)
    return {
        "worst_difference": found["worst_difference"],
        "mean_difference": found["mean_difference"],
        "changed_labels": found["changed_labels"],
        "passes": not found["problems"],
        "seconds": round(found["seconds"], 1),
    }


def main(
    model: Annotated[str, typer.Argument(help="A fine-tuned classifier, dense or pruned.")],
    texts: Annotated[str, typer.Argument(help="File of texts.")],
    cpu: Annotated[str, typer.Option(help="Processor, as qemu names it.")] = "Haswell",
    max_length: Annotated[int, typer.Option(help="Longest input in tokens.")] = 128,
    output: Annotated[Path, typer.Option(help="Result as JSON.")] = RESULTS / "emulated_processor.json",
    quick: Annotated[bool, typer.Option("--quick", help=f"{QUICK_TEXTS} texts, one form.")] = False,
) -> None:
    """Compare the answers of artifacts under an emulated processor with those of this one."""
    run, columns = RunConfig(device="cpu"), ColumnsConfig(max_length=max_length)
    classifier = load_classifier(model, "cpu", attention="eager")
    names = classifier.label_names
    data = load_text_data(texts, columns, "calibration", label_names=names, needs_labels=False)
    data = data.select(range(min(QUICK_TEXTS if quick else TEXTS, len(data))))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for form, options in list(FORMS.items())[: 1 if quick else None]:
            context = Context(
                output=Path(folder) / form.replace(" ", "-"), columns=columns, run=run,
                progress=terminal_progress(),
            )  # fmt: skip
            artifact = exported(classifier, texts, data, options, context)
            here, there = differences(artifact), differences(artifact, EMULATOR, "-cpu", cpu)
            rows.append({"form": form, "here": here, "emulated": there})
    result = {"environment": describe_environment(run), "cpu": cpu, "texts": len(data), "rows": rows}
    write_result(output, result)
    header = ("form", "labels changed", "largest difference of a logit", "mean", "check_host.py")
    print(
        markdown_table(
            header,
            [
                (
                    row["form"],
                    f"{row['emulated']['changed_labels']} of {len(data)}",
                    f"{row['emulated']['worst_difference']:.2g}",
                    f"{row['emulated']['mean_difference']:.2g}",
                    "passes" if row["emulated"]["passes"] else "fails",
                )
                for row in rows
            ],
        )
    )


if __name__ == "__main__":
    typer.run(main)
