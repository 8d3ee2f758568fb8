"""What a model directory or an artifact holds: layers, zeros, patterns, records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from compressor.data.labels import task_of
from compressor.errors import UserError, first_line
from compressor.inspection.comparison import compare_directories
from compressor.inspection.record import InspectRecord
from compressor.inspection.texts import KnowledgeOptions
from compressor.models.artifact_files import ARTIFACT_GRAPH
from compressor.models.classifier import encoder_weights, load_classifier, sparsity_of
from compressor.models.loading import layout_of_source
from compressor.models.manifest import is_artifact, read_artifact_manifest
from compressor.models.weight_files import weight_files
from compressor.options import ColumnsConfig, RunConfig
from compressor.pruning.interface import PRUNING_RECORD
from compressor.pruning.patterns import NM
from compressor.system.console import Progress
from compressor.system.context import Context
from compressor.system.environment import prepare
from compressor.system.files import atomic_directory, claims_output, read_json, write_json
from exporters.onnx import encoder_initializers

INSPECTION_RECORD = "inspection.json"
KNOWN_GROUPS = (NM(1, 4), NM(2, 4), NM(4, 8), NM(32, 64))


def inspect_model(
    model: str, knowledge: KnowledgeOptions | None, columns: ColumnsConfig, run: RunConfig, progress: Progress
) -> InspectRecord:
    """Return the facts on a classifier or artifact; with options, also what it keeps of a dense model.

    The latter is under `knowledge`, the record of `compare_directories`.

    Raises:
        UserError: bad models or texts.
    """
    device = prepare(run)
    facts = inspect_directory(model)
    if knowledge is not None:
        facts["knowledge"] = compare_directories(model, knowledge, columns, run, device, progress)
    return InspectRecord(**facts)


@claims_output
def inspect_stage(model: str, knowledge: KnowledgeOptions | None, context: Context) -> InspectRecord:
    """Run the inspect stage: as `inspect_model`, written to `inspection.json`, with plots.

    Raises:
        UserError: bad models, texts or output.
    """
    record = inspect_model(model, knowledge, context.columns, context.run, context.progress)
    facts = record.model_dump()
    with atomic_directory(context.output, force=context.force) as working:
        write_json(working / INSPECTION_RECORD, facts)
        for name, svg in _plots(facts).items():
            (working / name).write_text(svg, encoding="utf-8")
    return record


def _plots(facts: dict[str, Any]) -> dict[str, str]:
    if "knowledge" not in facts:
        return {}
    # Matplotlib takes a second to import, which only plots are worth.
    from compressor.inspection.plots import knowledge_plots

    return knowledge_plots(facts["knowledge"])


def inspect_directory(directory: str) -> dict[str, Any]:
    """Facts on a classifier (directory or hub id) or an exported artifact, ready for JSON.

    An artifact's files are checked against its manifest first.

    Raises:
        UserError: neither of the two, or broken.
    """
    path = Path(directory)
    facts: dict[str, Any] = {"path": directory}
    if is_artifact(path):
        manifest = read_artifact_manifest(path)
        task = task_of(manifest["labels"])
        facts |= {"kind": "artifact", "task": task, "labels": manifest["labels"]}
        facts["parity"] = manifest["parity"]
        facts["lineage"] = manifest["lineage"]
        weights = encoder_initializers(path / ARTIFACT_GRAPH, layout_of_source(directory))
        size = (path / ARTIFACT_GRAPH).stat().st_size
    else:
        classifier = load_classifier(directory)
        facts |= {"kind": "classifier", "task": classifier.task, "labels": classifier.label_names}
        weights = encoder_weights(classifier.model)
        size = sum(file.stat().st_size for file in weight_files(path))
        if (path / PRUNING_RECORD).is_file():
            record = read_json(path / PRUNING_RECORD)
            try:
                facts["pruning"] = {key: record[key] for key in ("algorithm", "pattern", "seconds", "seed")}
            except (KeyError, TypeError) as error:
                raise UserError(
                    f"{path / PRUNING_RECORD}: is no record of compress prune: {first_line(error)}; restore "
                    f"it, or remove it"
                ) from error
    facts |= {"size_bytes": size, "sparsity": sparsity_of(weights)}
    facts["layers"] = [_layer(name, weight) for name, weight in weights.items()]
    return facts


def _layer(name: str, weight: Tensor) -> dict[str, Any]:
    zeros = int((weight == 0).sum())
    return {
        "name": name,
        "shape": list(weight.shape),
        "zeros": zeros,
        "sparsity": zeros / weight.numel(),
        "patterns": [str(pattern) for pattern in KNOWN_GROUPS if _keeps_to(weight, pattern)],
    }


def _keeps_to(weight: Tensor, pattern: NM) -> bool:
    """Whether no group of `m` has more than `n` weights that are not zero."""
    if weight.shape[1] % pattern.m:
        return False
    groups = (weight != 0).reshape(weight.shape[0], -1, pattern.m)
    return bool((groups.sum(dim=2) <= pattern.n).all())
