"""The export stage: a classifier directory in, a proven artifact directory out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from compressor.classifier import (
    Classifier,
    encoder_weights,
    load_classifier,
    sparsity_of,
    weights_bytes,
    weights_fingerprint,
)
from compressor.console import Progress
from compressor.data import TextData, load_text_data
from compressor.environment import describe_environment, prepare, thread_count
from compressor.errors import UserError
from compressor.options import ColumnsConfig, ExportConfig, RunConfig
from compressor.output import atomic_directory, check_replaceable
from compressor.predictors import ARTIFACT_GRAPH, OnnxPredictor, TorchPredictor
from exporters.bill_of_materials import write_bill_of_materials
from exporters.lineage import masks_sha256, recorded_lineage, stage_record
from exporters.manifest import write_manifest
from exporters.onnx import OPSET, encoder_initializers, export_graph
from exporters.verify import check_parity, check_zeros, input_limits, measure_parity


def export_directory(
    model: str,
    data_source: str | None,
    columns: ColumnsConfig,
    config: ExportConfig,
    run: RunConfig,
    output: Path,
    *,
    force: bool,
    progress: Progress,
) -> dict[str, Any]:
    """Export a classifier to ONNX and prove that it is the same.

    Writes `model.onnx`, tokenizer, `config.json`, `bom.cdx.json` and `manifest.json`, whose content is
    returned.

    Args:
        data_source: real texts for the proof; None takes those that the model was pruned or
            trained with, as its record says.

    Raises:
        UserError: bad model or data, or parity that does not hold.
    """
    check_replaceable(output, force)
    prepare(run)
    # On the CPU whatever the device: the graph is the same, and parity is proven there.
    classifier = load_classifier(model, "cpu", attention="eager")
    data = _parity_data(classifier, data_source, columns, config, run.seed)
    weights = encoder_weights(classifier.model)
    with atomic_directory(output, force=force, needed_bytes=2 * weights_bytes(classifier)) as working:
        progress.log(f"Exporting {model} to ONNX")
        export_graph(classifier, working / ARTIFACT_GRAPH)
        classifier.model.config.save_pretrained(working)
        classifier.tokenizer.save_pretrained(working)
        exported = encoder_initializers(working / ARTIFACT_GRAPH)
        check_zeros(weights, exported)
        predictor = OnnxPredictor(working, thread_count(run))
        parity = measure_parity(
            TorchPredictor(classifier),
            predictor,
            data,
            columns.max_length,
            progress,
            limits=input_limits(classifier),
            seed=run.seed,
        )
        check_parity(parity, config.parity_tolerance)
        facts = {
            "format": "onnx",
            "opset": OPSET,
            "labels": classifier.label_names,
            "sparsity": sparsity_of(exported),
            "layers": {name: sparsity_of({name: weight}) for name, weight in exported.items()},
            "parity": {key: value for key, value in asdict(parity).items() if key != "worst_text"}
            | {"tolerance": config.parity_tolerance, "data_fingerprint": data.fingerprint},
            "lineage": _lineage(model, output, weights),
            "seed": run.seed,
            "environment": describe_environment(run),
        }
        write_bill_of_materials(working, facts)
        manifest = write_manifest(working, facts)
    return {**manifest, "path": str(output)}


def _parity_data(
    classifier: Classifier, source: str | None, columns: ColumnsConfig, config: ExportConfig, seed: int
) -> TextData:
    if source is None:
        record = stage_record(classifier.source)
        if record is None:
            raise UserError(
                f"{classifier.source}: no record of the data it was made with; give real texts for the "
                f"proof of parity with --data"
            )
        source = str(record["data"]["source"])
        columns = ColumnsConfig(**record["data"]["columns"])
        if Path(source).is_absolute() and not Path(source).is_file():
            raise UserError(
                f"{source}: no such file, though {classifier.source} was made with it; give real texts "
                f"for the proof of parity with --data"
            )
    data = load_text_data(
        source, columns, "calibration", label_names=classifier.label_names, needs_labels=False
    )
    return data.sample(config.parity_examples, seed)


def _lineage(model: str, output: Path, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Where the artifact is from: hashes, and the model directory relative to the artifact's.

    A relative path still holds when a run's folder is moved, and tells nothing of the machine.

    Args:
        weights: the encoder's matrices.
    """
    directory = Path(model)
    lineage: dict[str, Any] = {
        "weights_sha256": weights_fingerprint(model),
        "masks_sha256": masks_sha256(weights),
    }
    if directory.is_dir():
        lineage["model"] = Path(os.path.relpath(directory.resolve(), output.absolute())).as_posix()
    else:
        lineage["model"] = model
    record = stage_record(model)
    return lineage if record is None else lineage | recorded_lineage(record)
