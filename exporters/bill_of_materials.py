"""The manifest of an artifact as a CycloneDX bill of materials, the form that other tools read."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from compressor.data.labels import task_of
from compressor.errors import UserError
from compressor.models.artifact_files import ARTIFACT_GRAPH, OUTPUT
from compressor.models.encoders.layout import EncoderLayout
from compressor.models.manifest import list_files
from compressor.system.files import write_json

BILL_OF_MATERIALS = "bom.cdx.json"
SPEC_VERSION = "1.6"
SOURCE_DATE = "SOURCE_DATE_EPOCH"
_MODEL = "model"


def write_bill_of_materials(directory: Path, facts: Mapping[str, Any], layout: EncoderLayout) -> None:
    """Write `bom.cdx.json` of the files in `directory`, before the manifest, which lists it.

    The same files and facts give the same bytes: it has no time of its own, but that of the
    environment variable SOURCE_DATE_EPOCH, if it is set.

    Args:
        facts: of the manifest, without `files`.

    Raises:
        UserError: SOURCE_DATE_EPOCH is no time.
    """
    manifest = {**facts, "files": list_files(directory)}
    epoch = os.environ.get(SOURCE_DATE)
    timestamp = None if epoch is None else _timestamp(epoch)
    write_json(directory / BILL_OF_MATERIALS, bill_of_materials(manifest, layout, timestamp))


def _timestamp(epoch: str) -> str:
    try:
        return datetime.fromtimestamp(int(epoch), UTC).isoformat()
    except (ValueError, OverflowError, OSError) as error:
        raise UserError(
            f"{SOURCE_DATE}={epoch}: is not a time in seconds since 1970; unset it, "
            f"or set it to a whole number"
        ) from error


def bill_of_materials(
    manifest: Mapping[str, Any], layout: EncoderLayout, timestamp: str | None = None
) -> dict[str, Any]:
    """An artifact's manifest as CycloneDX 1.6 (ML-BOM), ready for JSON.

    The subject is a machine-learning-model with a model card and the models it was made from; its
    files are components with their SHA-256. The serial number is made from the content.

    Args:
        manifest: as the export writes it.
        layout: of the family of the model that was exported.
        timestamp: when it was made, in ISO 8601.
    """
    files = [_file(name, entry) for name, entry in sorted(manifest["files"].items()) if _is_listed(name)]
    bom: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {
            "tools": {"components": _tools(manifest["environment"]["packages"])},
            "component": _model(manifest, layout),
        },
        "components": files,
        "dependencies": [{"ref": _MODEL, "dependsOn": [file["bom-ref"] for file in files]}],
    }
    if timestamp is not None:
        bom["metadata"]["timestamp"] = timestamp
    serial = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(bom, sort_keys=True))
    return {**bom, "serialNumber": serial.urn}


def _is_listed(name: str) -> bool:
    """A manifest that was read back lists the bill of materials, which cannot hold its own checksum."""
    return name != BILL_OF_MATERIALS


def _model(manifest: Mapping[str, Any], layout: EncoderLayout) -> dict[str, Any]:
    lineage = manifest["lineage"]
    digest = manifest["files"][ARTIFACT_GRAPH]["sha256"]
    return {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "name": _model_name(lineage),
        "version": digest[:12],
        "description": f"{layout.title} {_kind(manifest['labels'])}, exported to ONNX",
        "hashes": _hashes(digest),
        "pedigree": {"ancestors": _ancestors(lineage)},
        "modelCard": {
            "modelParameters": _parameters(manifest, layout),
            "quantitativeAnalysis": {"performanceMetrics": _metrics(manifest)},
            "considerations": _considerations(manifest),
        },
        "properties": _properties(manifest),
    }


def _model_name(lineage: Mapping[str, Any]) -> str:
    """The last part of a directory or hub id; a directory above the artifact's has no name here."""
    name = PurePosixPath(lineage["model"]).name
    return "classifier" if name in ("", "..") else name


def _kind(labels: Sequence[str]) -> str:
    if task_of(labels) == "regression":
        return "text regression with one output"
    return f"text classifier with {len(labels)} labels"


def _ancestors(lineage: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The classifier that was exported, and the dense one that it was pruned from."""
    models = [(_model_name(lineage), "The classifier that was exported", lineage["weights_sha256"])]
    if lineage.get("dense_sha256"):
        models.append(("dense", "The dense classifier that was pruned", lineage["dense_sha256"]))
    return [
        {
            "type": "machine-learning-model",
            "name": name,
            "description": f"{description}; the hash is of its safetensors weights",
            **({"version": sha256[:12], "hashes": _hashes(sha256)} if sha256 else {}),
        }
        for name, description, sha256 in models
    ]


def _parameters(manifest: Mapping[str, Any], layout: EncoderLayout) -> dict[str, Any]:
    lineage, labels = manifest["lineage"], manifest["labels"]
    made_with = "pruned with" if lineage.get("pruning") else "trained on"
    datasets = [(f"Texts that it was {made_with}", lineage.get("data_fingerprint"))]
    datasets.append(("Texts of the proof of parity", manifest["parity"]["data_fingerprint"]))
    vocabulary = manifest.get("vocabulary") or {}
    datasets.append(("Texts whose pieces its vocabulary has", vocabulary.get("data_fingerprint")))
    return {
        "approach": {"type": "supervised"},
        "task": f"text-{task_of(labels)}",
        "architectureFamily": "transformer",
        "modelArchitecture": layout.classifier_name,
        "datasets": [
            {
                "type": "dataset",
                "name": name,
                "contents": {"properties": [_property("data_fingerprint", fingerprint)]},
            }
            for name, fingerprint in datasets
            if fingerprint
        ],
        "inputs": [{"format": f"{name}: int64 (batch, sequence)"} for name in layout.inputs],
        "outputs": [{"format": f"{OUTPUT}: float32 (batch, {len(labels)})"}],
    }


def _metrics(manifest: Mapping[str, Any]) -> list[dict[str, str]]:
    """What the export measured; the accuracy where the texts had labels."""
    parity = manifest["parity"]
    texts = f"{parity['examples']} texts of the proof of parity"
    metrics = [
        ("sparsity", manifest["sparsity"], "encoder matrices"),
        ("label_agreement_with_pytorch", parity["label_agreement"], texts),
        ("variance_kept_of_pytorch", parity.get("variance_kept"), texts),
        ("largest_logit_difference_from_pytorch", parity["max_difference"], texts),
        ("accuracy", parity.get("accuracy"), texts),
        ("accuracy_in_pytorch", parity.get("reference_accuracy"), texts),
    ]
    for shape, difference in parity["edge_differences"].items():
        metrics.append(
            ("largest_logit_difference_from_pytorch", difference, f"random tokens of shape {shape}")
        )
    return [
        {"type": kind, "value": str(value), "slice": part}
        for kind, value, part in metrics
        if value is not None
    ]


def _considerations(manifest: Mapping[str, Any]) -> dict[str, list[str]]:
    tolerance = manifest["parity"]["tolerance"]
    labels = manifest["labels"]
    is_regression = task_of(labels) == "regression"
    alone = "the variance of PyTorch's" if is_regression else "PyTorch's labels"
    bound = f"held to {alone} alone" if tolerance is None else f"within {tolerance:g} of PyTorch's"
    use = f"Gives texts a number: {labels[0]}" if is_regression else None
    return {
        "useCases": [use or f"Classifies texts as one of: {', '.join(labels)}"],
        "technicalLimitations": [
            f"Logits are {bound} on the texts of the proof and at edge shapes; robustness is not measured by "
            f"the export",
            *_lost_pieces(manifest),
            *_normalized_texts(manifest),
        ],
        "performanceTradeoffs": [
            f"{manifest['sparsity']:.2%} of the encoder's weights are zero; a runtime that does not use "
            f"zeros gets no faster by them"
        ],
    }


def _lost_pieces(manifest: Mapping[str, Any]) -> list[str]:
    """What a vocabulary that was made smaller limits."""
    vocabulary = manifest.get("vocabulary")
    if vocabulary is None:
        return []
    pieces = vocabulary["pieces"]
    return [
        f"The vocabulary has {pieces['after']} of the model's {pieces['before']} pieces, those that "
        f"{vocabulary['texts']} texts need; other words are spelled with shorter pieces, as in "
        f"{vocabulary['other_tokens']:.1%} of {vocabulary['examples']} texts that were not counted"
    ]


def _normalized_texts(manifest: Mapping[str, Any]) -> list[str]:
    """What text normalization limits."""
    normalization = manifest.get("normalization")
    if normalization is None:
        return []
    return [
        f"Texts are normalized (homoglyphs of Unicode {normalization['unicode']}): invisible characters are "
        f"removed, and letters of other scripts in words with Latin letters are read as what they look like"
    ]


def _properties(manifest: Mapping[str, Any]) -> list[dict[str, str]]:
    lineage = manifest["lineage"]
    pruning = lineage.get("pruning") or {}
    vocabulary = manifest.get("vocabulary") or {}
    pieces = vocabulary.get("pieces") or {}
    values = {
        "format": manifest["format"],
        "opset": manifest["opset"],
        "precision": manifest.get("precision"),
        "sparsity": manifest["sparsity"],
        "algorithm": pruning.get("algorithm"),
        "pattern": pruning.get("pattern"),
        "seed": lineage.get("seed"),
        "export_seed": manifest["seed"],
        "masks_sha256": lineage["masks_sha256"],
        "options_sha256": lineage.get("options_sha256"),
        "vocabulary_pieces": pieces.get("after"),
        "vocabulary_pieces_of_the_model": pieces.get("before"),
        "vocabulary_coverage": vocabulary.get("coverage"),
        "vocabulary_other_tokens": vocabulary.get("other_tokens"),
    }
    return [_property(name, value) for name, value in values.items() if value is not None]


def _property(name: str, value: object) -> dict[str, str]:
    return {"name": f"compress:{name}", "value": str(value)}


def _file(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "file",
        "bom-ref": f"file:{name}",
        "name": name,
        "hashes": _hashes(entry["sha256"]),
        "properties": [_property("bytes", entry["bytes"])],
    }


def _tools(packages: Mapping[str, str]) -> list[dict[str, str]]:
    """This tool, and the libraries that the artifact was made with."""
    own = {"type": "application", "name": "compress", "version": packages["compress"]}
    libraries = [
        {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{quote(version, safe='')}",
        }
        for name, version in sorted(packages.items())
        if name != "compress"
    ]
    return [own, *libraries]


def _hashes(sha256: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": sha256}]
