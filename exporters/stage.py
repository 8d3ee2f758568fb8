"""The export stage: a classifier directory in, a proven artifact directory out."""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
from torch import Tensor

from compressor.data.texts import TextData, log_notes
from compressor.errors import UserError
from compressor.models.artifact_files import ARTIFACT_GRAPH, ARTIFACT_IR
from compressor.models.batching import encode
from compressor.models.classifier import (
    Classifier,
    check_pairs,
    complete_config,
    encoder_weights,
    load_classifier,
    sparsity_of,
    weights_bytes,
)
from compressor.models.invariance import measure_invariance
from compressor.models.manifest import write_manifest
from compressor.models.predictors import TorchPredictor
from compressor.models.preprocessing import prove_preprocessing, write_tokenizer
from compressor.models.runtimes import runtime_named
from compressor.options import ExportConfig
from compressor.options.export import GraphPrecision, precision_of
from compressor.system.context import Context
from compressor.system.environment import describe_environment, prepare, thread_count
from compressor.system.files import atomic_directory, claims_output
from compressor.version import __version__
from exporters.bfloat16 import widen
from exporters.bill_of_materials import write_bill_of_materials
from exporters.graph_forms import calibrate, write_graph
from exporters.lineage import model_lineage, stage_record
from exporters.mixed import Judged, quantize_within_bound
from exporters.normalization import with_normalized_text
from exporters.onnx import OPSET, computation_sha256, encoder_initializers, write_metadata
from exporters.openvino_ir import write_ir
from exporters.records import ExportRecord
from exporters.reference import write_reference
from exporters.reference_texts import ReferenceTexts, reference_texts
from exporters.shrink import layer_widths, shrink
from exporters.sizes import classifier_size, graph_size, parts_of
from exporters.tensorrt.profile import Profile
from exporters.tensorrt.script import prepare as prepare_engine
from exporters.texts import ExportTexts, other_texts, texts_of, texts_to_fit
from exporters.verify import check_invariance, check_parity, check_zeros, input_limits, measure_parity
from exporters.vocabulary import with_smaller_vocabulary

# Largest differences of a logit; int8 and bf16 are held to their labels or their variance alone.
TOLERANCES = {"fp32": 1e-4, "fp16": 2e-2}
# Largest differences of a logit between a text alone and the same in a batch.
BATCH_TOLERANCE, BATCH_TOLERANCES = 1e-3, {"fp16": 2e-2}
INVARIANCE_EXAMPLES = 128


@claims_output
def export_directory(
    model: str,
    data_source: str | None,
    config: ExportConfig,
    context: Context,
    sources: ExportTexts | None = None,
) -> ExportRecord:
    """Export a classifier to ONNX and prove that it is the same.

    Writes `model.onnx`, for OpenVINO also `model.xml` and `model.bin`, tokenizer, `config.json`,
    `reference.json`, `bom.cdx.json` and `manifest.json`, whose content is returned.

    The manifest's `sparsity` counts what was cut out of the graph as zeros: it is the share of the model's
    weights that the graph does not compute with.

    Args:
        data_source: real texts for the proof; None takes those that the model was pruned or
            trained with, as its record says.
        sources: other texts; None takes the default of each.

    Raises:
        UserError: bad model or data, or parity that does not hold.
    """
    sources = sources or ExportTexts()
    columns, run, progress = context.columns, context.run, context.progress
    precision = precision_of(config)
    prepare(run)
    # On the CPU whatever the device: the graph is the same, and parity is proven there.
    whole = load_classifier(model, "cpu", attention="eager", lengths={"max_length": columns.max_length})
    positions = whole.layout.longest_input(whole.model.config.to_dict())
    profile = _profile(config, positions)
    data = texts_of(whole, data_source, columns, config.parity_examples, run.seed)
    log_notes(data, progress)
    check_pairs(model, whole.model.config, whole.tokenizer, data.pairs is not None)
    whole, normalization = with_normalized_text(whole, data, config, context)
    classifier, vocabulary = with_smaller_vocabulary(whole, sources.vocabulary, data, config, context)
    texts_of_reference = reference_texts(classifier, sources.reference, columns)
    exported = shrink(classifier) if config.shrink and not _keeps_groups(model) else classifier
    others = other_texts(classifier, data, data_source, context) if precision == "int8" else data
    fitted_to = texts_to_fit(classifier, others, data_source, sources.calibration, config, context)
    encoded = encode(classifier.tokenizer, fitted_to, columns.max_length)
    calibration = calibrate(exported, encoded, config, run.seed, progress)
    needed = weights_bytes(whole) * (3 if config.runtime == "openvino" else 2)
    with atomic_directory(context.output, force=context.force, needed_bytes=needed) as working:
        progress.log(f"Exporting {model} to ONNX, {precision}")
        write_config(classifier, working)
        preprocessing = _write_preprocessing(
            classifier, working, data, texts_of_reference, columns.max_length
        )
        by_rows = partial(quantize_within_bound, classifier, data, others, config, context)
        stored_sparsely, quantized = write_graph(
            exported, working / ARTIFACT_GRAPH, config, calibration, by_rows
        )
        facts = _graph_facts(classifier, exported, working / ARTIFACT_GRAPH, precision)
        facts["lineage"]["model"] = _place(model, context.output)
        write_metadata(working / ARTIFACT_GRAPH, _metadata(classifier, facts))
        if config.runtime == "openvino":
            write_ir(working)
        facts |= {
            "runtime": config.runtime,
            "max_length": columns.max_length,
            "preprocessing": preprocessing,
            "normalization": normalization and asdict(normalization),
            "vocabulary": vocabulary and asdict(vocabulary),
            "kept_in_float32": quantized.kept,
            "stored_sparsely": stored_sparsely,
            **_prove(classifier, working, data, config, context, quantized.judged),
            "seed": run.seed,
            "environment": describe_environment(run),
        }
        facts["reference"] = write_reference(classifier, working, texts_of_reference, facts)
        facts["size"] = _sizes(whole, classifier, working / ARTIFACT_GRAPH)
        if profile is not None:
            half = precision == "fp16"
            facts["tensorrt"] = _prepare_engine(working / ARTIFACT_GRAPH, profile, positions, half=half)
        write_bill_of_materials(working, facts, classifier.layout)
        manifest = write_manifest(working, facts)
    return ExportRecord(**manifest, path=context.output)


def _graph_facts(
    classifier: Classifier, exported: Classifier, graph: Path, precision: GraphPrecision
) -> dict[str, Any]:
    """Return what the manifest says of a graph, once its zeros are those of the model.

    Raises:
        UserError: they are not.
    """
    whole, weights = encoder_weights(classifier.model), encoder_initializers(graph, classifier.layout)
    check_zeros(encoder_weights(exported.model), weights, exact=precision == "fp32")
    counts = {"model": _count(whole), "graph": _count(weights)}
    return {
        "format": "onnx",
        "opset": OPSET,
        "precision": precision,
        "labels": classifier.label_names,
        "sparsity": 1 - _nonzero(weights) / counts["model"],
        "layers": {name: sparsity_of({name: weight}) for name, weight in weights.items()},
        "encoder_weights": counts,
        "widths": [asdict(widths) for widths in layer_widths(exported.model)],
        "lineage": model_lineage(classifier.source, whole),
    }


def _sizes(whole: Classifier, classifier: Classifier, graph: Path) -> dict[str, Any]:
    """Bytes of the artifact by part, and the ratio of its graph to the weights that it was made of.

    Args:
        whole: the classifier as it was loaded; the other one may have a smaller vocabulary.
    """
    model = classifier_size(whole)
    found = graph_size(graph, parts_of(classifier), classifier.tokenizer)
    return asdict(found) | {"size_ratio": found.weights / model.weights}


def _write_preprocessing(
    classifier: Classifier, directory: Path, data: TextData, reference: ReferenceTexts, max_length: int
) -> dict[str, Any]:
    """Write the tokenizer, and return how texts become inputs, proven on real ones and those recorded."""
    found = write_tokenizer(classifier.tokenizer, directory, max_length, classifier.layout.inputs)
    recorded = [*reference.texts, *(text for pair in reference.pairs for text in pair)]
    texts = [*data.texts, *recorded]
    pairs = None if data.pairs is None else [*data.pairs, *recorded[::-1]]
    return prove_preprocessing(classifier.tokenizer, directory, found, texts, pairs)


def _profile(config: ExportConfig, positions: int) -> Profile | None:
    """The shapes of an engine, where there is to be one.

    Raises:
        UserError: they do not rise, or the model has too few positions for them.
    """
    if config.target == "onnx":
        return None
    profile = Profile(*config.engine_batch_sizes, *config.engine_lengths)
    problem = profile.problem(positions)
    if problem:
        raise UserError(f"engine_lengths: {problem}")
    return profile


def _prepare_engine(graph: Path, profile: Profile, positions: int, *, half: bool) -> dict[str, Any]:
    """Check a graph for TensorRT and write the script that builds its engine.

    Raises:
        UserError: a check that fails.
    """
    facts = prepare_engine(graph.parent, onnx.load(graph), profile, positions, half=half)
    for check in facts["checks"]:
        if check["findings"]:
            first = check["findings"][0]
            raise UserError(
                f"export failed: TensorRT check {check['name']!r}: {first['where']}: {first['reason']} "
                f"({len(check['findings'])} in all)"
            )
    return facts


def _prove(
    classifier: Classifier,
    artifact: Path,
    data: TextData,
    config: ExportConfig,
    context: Context,
    judged: Judged | None,
) -> dict[str, Any]:
    """Compare the artifact with PyTorch, and with itself in other batches; return what was found.

    Args:
        judged: what was found of a graph on the same texts; taken if the artifact's computes the same.

    Raises:
        UserError: they differ by more than the options allow.
    """
    precision = precision_of(config)
    tolerance = config.parity_tolerance or TOLERANCES.get(precision)
    few = data.select(range(min(INVARIANCE_EXAMPLES, len(data))))
    encoded = encode(classifier.tokenizer, few, context.columns.max_length)
    with _runnable(artifact, precision) as directory:
        load = runtime_named(config.runtime)
        exported = load(directory, thread_count(context.run))
        if judged is not None and judged.computation == computation_sha256(artifact / ARTIFACT_GRAPH):
            parity = judged.parity
        else:
            limits = input_limits(classifier)
            parity = measure_parity(TorchPredictor(classifier), exported, data, context, limits)
        check_parity(parity, tolerance, config.parity_agreement)
        invariance = measure_invariance(load(directory, 1), exported, encoded, context.run.seed)
    if precision != "int8-dynamic":
        check_invariance(invariance, BATCH_TOLERANCES.get(precision, BATCH_TOLERANCE))
    record = {key: value for key, value in asdict(parity).items() if key != "worst_text"}
    record |= {"data_fingerprint": data.fingerprint, "data_labels": data.mapping and data.mapping.record()}
    arithmetic = "fp32" if precision == "bf16" else precision
    record |= {
        "tolerance": tolerance,
        "least_agreement": config.parity_agreement,
        "arithmetic": arithmetic,
    }
    return {"parity": record, "invariance": asdict(invariance)}


@contextmanager
def _runnable(artifact: Path, precision: GraphPrecision) -> Iterator[Path]:
    """The artifact, or where no CPU can run it a copy that computes the same in float32."""
    if precision != "bf16":
        yield artifact
        return
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(artifact, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(ARTIFACT_IR))
        graph = Path(folder) / ARTIFACT_GRAPH
        graph.write_bytes(widen(onnx.load(graph)).SerializeToString())
        yield Path(folder)


def write_config(classifier: Classifier, directory: Path) -> None:
    """Write `config.json`; its problem type is what pipelines make scores of logits by."""
    config = copy.deepcopy(classifier.model.config)
    is_regression = classifier.task == "regression"
    config.problem_type = "regression" if is_regression else "single_label_classification"
    config.save_pretrained(directory)
    complete_config(classifier.layout, directory)


def _metadata(classifier: Classifier, manifest: dict[str, Any]) -> dict[str, str]:
    """What the graph tells of itself to who has nothing but its file."""
    lineage = manifest["lineage"]
    pruning = lineage.get("pruning") or {}
    facts = {
        "task": f"text-{classifier.task}",
        "labels": json.dumps(classifier.label_names, ensure_ascii=False),
        "precision": manifest["precision"],
        "pattern": pruning.get("pattern"),
        "sparsity": f"{manifest['sparsity']:.6f}",
        "weights_sha256": lineage["weights_sha256"],
        "dense_sha256": lineage.get("dense_sha256"),
    }
    facts |= {name: version(name) for name in ("torch", "transformers", "onnx")}
    facts["compress"] = __version__
    return {key: str(value) for key, value in facts.items() if value is not None}


def _keeps_groups(model: str) -> bool:
    """Whether a model was pruned to groups of weights, which another width would split."""
    record = stage_record(model) or {}
    return ":" in str(record.get("pattern", ""))


def _count(weights: dict[str, Tensor]) -> int:
    return sum(weight.numel() for weight in weights.values())


def _nonzero(weights: dict[str, Tensor]) -> int:
    return sum(int(weight.count_nonzero()) for weight in weights.values())


def _place(model: str, output: Path) -> str:
    """Where the model is: its directory relative to the artifact's, or its hub id.

    A relative path still holds when a run's folder is moved, and tells nothing of the machine.
    """
    directory = Path(model)
    if not directory.is_dir():
        return model
    return Path(os.path.relpath(directory.resolve(), output.absolute())).as_posix()
