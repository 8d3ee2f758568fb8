"""The validate stage: dense model against artifact, side by side, held against the gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.batching import encode
from compressor.classifier import (
    WEIGHTS,
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
from compressor.options import AttackConfig, ColumnsConfig, RunConfig, ValidateConfig
from compressor.output import atomic_directory, check_replaceable, read_json
from compressor.predictors import ARTIFACT_GRAPH, OnnxPredictor, Predictor, TorchPredictor
from compressor.pruning import PRUNING_RECORD
from compressor.robustness.attack_stage import attack_directory
from compressor.robustness.records import ROBUSTNESS_RECORD, Robustness, read_examples
from compressor.validation.accuracy import measure_accuracy
from compressor.validation.gates import Measured, parse_gates
from compressor.validation.latency import measure_latency
from compressor.validation.render import render_html, render_markdown
from compressor.validation.report import (
    AgainstFigures,
    Appendix,
    AttackRow,
    LatencyFigures,
    LayerRow,
    Report,
    RobustnessFigures,
    VariantFigures,
    Variants,
)
from exporters.manifest import read_manifest
from exporters.onnx import encoder_initializers

REPORT = "report.json"
ATTACK_FOLDER = "attack"
SHOWN_ATTACKS = 5
LATENCY_TEXTS = 256
REPORT_BYTES = 5 * 10**6


@dataclass(frozen=True)
class ValidationJob:
    """What is compared, on which data, and how.

    Attributes:
        dense: directory or hub id of the dense classifier.
        artifact: directory of the exported artifact.
        pruned: directory of the pruned classifier; None looks where the artifact's manifest says.
        data: labelled test texts.
        processes: among which attacked examples are shared out.
        keep_attacks: variants whose attack's output is there already, under `attack/` of the directory.
    """

    dense: str
    artifact: Path
    pruned: Path | None
    data: str
    columns: ColumnsConfig
    config: ValidateConfig
    attack: AttackConfig
    run: RunConfig
    processes: int = 1
    keep_attacks: frozenset[str] = frozenset()


def validate_directories(job: ValidationJob, output: Path, *, force: bool, progress: Progress) -> Report:
    """The validate stage, into a directory of its own.

    Writes `report.json`, `report.md`, `report.html` and the attacks' own records under `attack/`.

    Raises:
        UserError: bad input. A broken gate is no error here: the report's verdict tells.
    """
    check_replaceable(output, force)
    parse_gates(job.config.gates)
    with atomic_directory(output, force=force, needed_bytes=REPORT_BYTES) as working:
        return validate_into(working, job, progress)


def validate_into(directory: Path, job: ValidationJob, progress: Progress) -> Report:
    """Measure all variants on the same data and write the report into an existing directory."""
    gates = parse_gates(job.config.gates)
    manifest = read_manifest(job.artifact)
    pruned = job.pruned or _pruned_directory(job.artifact, manifest)
    directories = {"dense": job.dense, "pruned": str(pruned), "artifact": str(job.artifact)}
    if pruned is None:
        del directories["pruned"]
    predictors, contents = _load(directories, job.run)
    _check_labels(predictors, directories)
    label_names = predictors["dense"].label_names
    data = load_text_data(job.data, job.columns, "test", label_names=label_names)
    accuracies = {
        name: measure_accuracy(predictor, data, job.columns.max_length, progress, name)
        for name, predictor in predictors.items()
    }
    latency = _latency(predictors, data, job, progress)
    folder = directory / ATTACK_FOLDER
    robustness = {
        name: read_json(folder / name / ROBUSTNESS_RECORD)
        if name in job.keep_attacks
        else attack_directory(
            path,
            job.data,
            job.columns,
            job.attack,
            job.run,
            folder / name,
            # The dense model comes first.
            against=None if name == "dense" else folder / "dense",
            processes=job.processes,
            force=True,
            progress=progress,
        )
        for name, path in directories.items()
    }
    figures = {
        name: VariantFigures(
            path=path,
            accuracy=accuracies[name],
            examples=len(data),
            robustness=_figures(robustness[name]),
            against_dense=_against(robustness[name]),
            latency=latency[name],
            size_bytes=contents[name].size_bytes,
            sparsity=contents[name].sparsity,
        )
        for name, path in directories.items()
    }
    variants = Variants(dense=figures["dense"], pruned=figures.get("pruned"), artifact=figures["artifact"])
    measured = Measured(variants, data.majority_share())
    results = [gate.judge(measured) for gate in gates]
    report = Report(
        verdict="fail" if any(result.status == "fail" for result in results) else "pass",
        variants=variants,
        gates=results,
        environment=describe_environment(job.run)
        | {"data": data.record(job.columns), "attack_resources": robustness["artifact"]["resources"]},
        seed=job.run.seed,
    )
    write_report(directory, report, _appendix(directory, directories, manifest, data))
    return report


def _latency(
    predictors: Mapping[str, Predictor], data: TextData, job: ValidationJob, progress: Progress
) -> dict[str, list[LatencyFigures]]:
    sample = data.sample(LATENCY_TEXTS, job.run.seed)
    encoded = encode(predictors["dense"].tokenizer, sample, job.columns.max_length)
    config = job.config
    return measure_latency(
        predictors, encoded, config.batch_sizes, config.sequence_lengths, config.latency_rounds, progress
    )


def write_report(directory: Path, report: Report, appendix: Appendix) -> None:
    """Write the report in its three forms."""
    (directory / REPORT).write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (directory / "report.md").write_text(render_markdown(report, appendix), encoding="utf-8")
    (directory / "report.html").write_text(render_html(report, appendix), encoding="utf-8")


def _pruned_directory(artifact: Path, manifest: Mapping[str, Any]) -> Path | None:
    """The classifier that the artifact was exported from, if it is still where it was."""
    lineage = manifest.get("lineage", {})
    directory = (artifact / str(lineage.get("model", ""))).resolve()
    fingerprint = weights_fingerprint(str(directory))
    return directory if fingerprint and fingerprint == lineage.get("weights_sha256") else None


@dataclass(frozen=True)
class Contents:
    """Size of the weights (and graph) as stored, and the share of zeros in the encoder's matrices."""

    size_bytes: int
    sparsity: float


def _load(directories: Mapping[str, str], run: RunConfig) -> tuple[dict[str, Predictor], dict[str, Contents]]:
    """Predictor and contents of each variant."""
    device = prepare(run)
    predictors: dict[str, Predictor] = {}
    contents = {}
    for name, directory in directories.items():
        if name == "artifact":
            graph = Path(directory) / ARTIFACT_GRAPH
            predictors[name] = OnnxPredictor(Path(directory), thread_count(run), device.type)
            contents[name] = Contents(graph.stat().st_size, sparsity_of(encoder_initializers(graph)))
        else:
            classifier = load_classifier(directory, device)
            stored = Path(directory) / WEIGHTS
            # A hub id has no directory of ours; its weights are stored as they are in memory.
            size = stored.stat().st_size if stored.is_file() else weights_bytes(classifier)
            predictors[name] = TorchPredictor(classifier)
            contents[name] = Contents(size, sparsity_of(encoder_weights(classifier.model)))
    return predictors, contents


def _check_labels(predictors: Mapping[str, Predictor], directories: Mapping[str, str]) -> None:
    expected = predictors["dense"].label_names
    for name, predictor in predictors.items():
        if predictor.label_names != expected:
            raise UserError(
                f"{directories[name]}: its labels are {', '.join(predictor.label_names)}, those of "
                f"{directories['dense']} are {', '.join(expected)}; they are not of one model"
            )


def _figures(record: Mapping[str, Any]) -> RobustnessFigures:
    return RobustnessFigures(**{name: record[name] for name in Robustness.__dataclass_fields__})


def _against(record: Mapping[str, Any]) -> AgainstFigures | None:
    if "against" not in record:
        return None
    return AgainstFigures(**{name: record["against"][name] for name in AgainstFigures.model_fields})


def _appendix(
    working: Path, directories: Mapping[str, str], manifest: Mapping[str, Any], data: TextData
) -> Appendix:
    """What the readable reports tell besides: from the records of the stages, nothing is computed."""
    facts = {
        "Test data": f"{data.source}, {len(data)} examples, sha256 {data.fingerprint[:12]}",
        "Parity with PyTorch": f"logits within {manifest['parity']['max_difference']:.1e} on "
        f"{manifest['parity']['examples']} texts",
        "Exported weights": f"sha256 {str(manifest['lineage']['weights_sha256'])[:12]}",
    }
    layers: list[LayerRow] = []
    pruning_record = Path(directories.get("pruned", "")) / PRUNING_RECORD
    if "pruned" in directories and pruning_record.is_file():
        record = read_json(pruning_record)
        layers = [LayerRow(r["name"], r["sparsity"], r["relative_error"]) for r in record["layers"]]
        facts = {
            "Algorithm": f"{record['algorithm']}, {record['pattern']}, seed {record['seed']}",
            "Pruning time": f"{record['seconds']:.0f} s",
            **facts,
        }
    resources = read_json(working / ATTACK_FOLDER / "artifact" / ROBUSTNESS_RECORD)["resources"]
    facts |= {f"Attack resource: {name}": value for name, value in resources.items()}
    attacks = _attack_rows(working / ATTACK_FOLDER / "artifact", data.label_names)
    return Appendix(layers, attacks, facts)


def _attack_rows(directory: Path, label_names: list[str]) -> list[AttackRow]:
    rows: list[AttackRow] = []
    for example in read_examples(directory):
        if example.outcome == "succeeded" and len(rows) < SHOWN_ATTACKS:
            rows.append(
                AttackRow(
                    variant="artifact",
                    label=label_names[example.label],
                    original=" | ".join(filter(None, (example.text, example.text_pair))),
                    perturbed=" | ".join(filter(None, (example.perturbed, example.perturbed_pair))),
                    queries=example.queries,
                )
            )
    return rows
