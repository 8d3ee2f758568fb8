"""Run the validate stage: compare dense model, pruned model and artifact, and judge the gates."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.attacks.records import ROBUSTNESS_RECORD, read_examples
from compressor.attacks.stage import attack_decides, attack_directory
from compressor.data.labels import task_of
from compressor.data.overlap import check_made_with
from compressor.data.texts import TextData, load_text_data, log_notes
from compressor.errors import UserError
from compressor.models.artifact_files import ARTIFACT_GRAPH
from compressor.models.batching import Encoded, encode
from compressor.models.manifest import check_labels, read_artifact_manifest
from compressor.models.predictors import Predictor, check_finite, predict_encoded
from compressor.models.preprocessing import check_measured_as_proven
from compressor.models.ranking import candidates_by_query, check_ranking
from compressor.models.runtimes import Runtime, runtime_of
from compressor.options import AttackConfig, MetricName, RunConfig, ValidateConfig
from compressor.pruning.interface import PRUNING_RECORD
from compressor.system.checkpoint import STAGES, Checkpoint, open_checkpoint, remove_checkpoint
from compressor.system.context import Context
from compressor.system.environment import describe_environment, resolve_device, thread_count, torch_threads
from compressor.system.files import atomic_directory, claims_output, read_json
from compressor.system.jobs import Job, describe_machine
from compressor.validation.gates.baseline import (
    check_baseline,
    check_task,
    doubts,
    prepare_gates,
    reads_attack,
)
from compressor.validation.gates.gates import Gate
from compressor.validation.gates.metric import Measured
from compressor.validation.measure.answers import (
    Examples,
    NumberedExamples,
    RankedExamples,
    answer_figures,
    number_figures,
    ranking_figures,
)
from compressor.validation.measure.footprint import measure_footprint
from compressor.validation.measure.invariance import invariance_figures
from compressor.validation.measure.latency import LatencyPlan, batch_of_length, measure_latency
from compressor.validation.measure.slices import label_slices, length_slices
from compressor.validation.measure.variants import (
    Contents,
    check_same_labels,
    load_variants,
    pruned_directory,
)
from compressor.validation.report.junit import render_junit
from compressor.validation.report.render import render_html, render_markdown
from compressor.validation.schema import (
    REPORT,
    AgainstFigures,
    Appendix,
    AttackFigures,
    AttackRow,
    FootprintFigures,
    InvarianceFigures,
    LatencyFigures,
    LayerRow,
    Report,
    RobustnessFigures,
    SizeFigures,
    VariantFigures,
    Variants,
)
from exporters.tensorrt.engine_log import EngineBuild, read_build_of

ATTACK_FOLDER = "attack"
SHOWN_ATTACKS = 5
SPEED_TEXTS = 256
ANSWER_BATCH = 64
REPORT_BYTES = 5 * 10**6


@dataclass(frozen=True)
class ValidationJob:
    """Input of a validation: models, data and options.

    Attributes:
        dense: directory or hub id of the dense classifier.
        artifact: directory of the exported artifact.
        pruned: directory of the pruned classifier; None looks where the artifact's manifest says.
        with_pruned: whether the pruned classifier is measured at all.
        data: labelled test texts.
        attack: how each variant is attacked; None attacks none.
        attack_last: whether variants are attacked only if the gates that no attack decides hold; otherwise
            the report is about these alone.
        made_attacks: what the attack stage wrote for variants, by their name; the others are attacked.
        allow_test_texts: whether models may be made with test texts.
        shared: number of test texts among those that models were made with, as far as it was counted.
        engine: directory that the artifact's build_engine.sh filled, if there is one.
    """

    dense: str
    artifact: Path
    pruned: Path | None
    data: str
    config: ValidateConfig
    attack: AttackConfig | None
    attack_last: bool = False
    made_attacks: Mapping[str, Path] = field(default_factory=dict)
    with_pruned: bool = True
    allow_test_texts: bool = False
    shared: Mapping[str, int] = field(default_factory=dict)
    engine: Path | None = None


def report_directory(artifact: Path) -> Path:
    """Return the directory of an artifact's report where none is given: `ARTIFACT-validation` beside it."""
    # The name that `.` and `..` stand for.
    named = artifact if artifact.name not in ("", "..") else artifact.resolve()
    return named.with_name(f"{named.name}-validation")


class KeptAttacks:
    """Place of finished attacks until the report is complete, beside the output of the stage's context."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._checkpoint: Checkpoint | None = None

    def open(
        self, job: ValidationJob, attack: AttackConfig, directories: Mapping[str, str], data: TextData
    ) -> Checkpoint:
        """Open the checkpoint of the attacks of a job.

        Raises:
            UserError: it holds another job's.
        """
        context = self._context
        length = context.columns.max_length
        decisive = attack_decides(attack, context.run, data.fingerprint, length, **directories)
        asked = Job(decisive, {**directories, "data.test": job.data}, describe_machine(context.run))
        self._checkpoint = open_checkpoint(
            context.output, asked, resume=context.resume, force=context.force, log=context.progress.log
        )
        return self._checkpoint

    def remove(self) -> None:
        """Remove the kept attacks, if there are any."""
        if self._checkpoint is not None:
            remove_checkpoint(self._checkpoint)


@claims_output
def validate_directories(job: ValidationJob, context: Context) -> Report:
    """Run the validate stage and write the report into a new directory.

    Writes `report.json`, `report.md`, `report.html`, `junit.xml`, and the attacks' own records under
    `attack/`. Attacks are kept beside the output until it is whole: a run that was stopped goes on after its
    last attacked example if it is started again.

    Raises:
        UserError: bad input. A broken gate is no error here: the report's verdict tells.
    """
    prepare_gates(job.config, job.attack)
    kept = KeptAttacks(context)
    with atomic_directory(context.output, force=context.force, needed_bytes=REPORT_BYTES) as working:
        report = validate_into(job, replace(context, output=working), kept)
    kept.remove()
    return report


def validate_into(job: ValidationJob, context: Context, kept: KeptAttacks | None = None) -> Report:
    """Measure all variants on the same data and write the report into an existing directory.

    Args:
        context: whose output is that directory.
        kept: where attacks are kept meanwhile; None makes them in the directory.
    """
    inputs = _load(job, context)
    environment = _environment(job, inputs, context)
    if inputs.baseline is not None:
        check_baseline(inputs.gates, inputs.baseline, environment, job.config.shapes)
    attack = job.attack if inputs.has_classes else None
    checkpoint = None
    if kept is not None and attack is not None:
        checkpoint = kept.open(job, attack, inputs.directories, inputs.data)
        environment |= checkpoint.began_on
    measured = _measure(inputs, job, context)
    attacks: dict[str, dict[str, Any]] = {}
    if attack is not None and job.attack_last:
        without = replace(inputs, gates=[gate for gate in inputs.gates if not reads_attack(gate)])
        variants = _variants(inputs, measured, attacks)
        if _judge(job, without, variants, environment, context.run.seed).verdict == "fail":
            inputs, attack = without, None
            del environment["attack"]
    if attack is not None:
        attacks = _attack(inputs, job, attack, context, checkpoint)
        environment["attack_resources"] = attacks["artifact"]["resources"]
    report = _judge(job, inputs, _variants(inputs, measured, attacks), environment, context.run.seed)
    write_report(context.output, report, _appendix(context.output, inputs, attacks))
    return report


@dataclass(frozen=True)
class _Inputs:
    """What is compared, loaded and checked.

    Attributes:
        manifest: of the artifact.
        engine: what TensorRT made of the artifact's graph, if that is known.
        directories: directory or hub id of each variant, the dense model's first; without the pruned model
            where nobody knows it.
        predictors, contents: of each variant, in the same order.
        shared: number of test texts by what they were to a model.
    """

    gates: list[Gate]
    baseline: Report | None
    manifest: dict[str, Any]
    engine: EngineBuild | None
    directories: dict[str, str]
    predictors: dict[str, Predictor]
    contents: dict[str, Contents]
    data: TextData
    shared: dict[str, int]

    @property
    def has_classes(self) -> bool:
        """Whether the models answer with classes; an attack turns one into another, numbers have none."""
        return self.data.task == "classification"


@dataclass(frozen=True)
class _Measurements:
    """What was measured of each variant, by its name."""

    answers: dict[str, dict[str, Any]]
    latency: dict[str, list[LatencyFigures]]
    footprints: dict[str, FootprintFigures]
    invariance: dict[str, InvarianceFigures]


def _load(job: ValidationJob, context: Context) -> _Inputs:
    """Load variants and data, and find what does not fit together before anything is measured.

    Raises:
        UserError: bad gates, models, data or engine.
    """
    gates, baseline = prepare_gates(job.config, job.attack)
    manifest = read_artifact_manifest(job.artifact)
    graph_sha256 = manifest["files"][ARTIFACT_GRAPH]["sha256"]
    engine = None if job.engine is None else read_build_of(graph_sha256, job.engine)
    pruned = (job.pruned or pruned_directory(job.artifact, manifest)) if job.with_pruned else None
    classifiers = {"dense": job.dense} | ({} if pruned is None else {"pruned": str(pruned)})
    directories = {**classifiers, "artifact": str(job.artifact)}
    longest = max(job.config.sequence_lengths)
    columns = context.columns
    lengths = {"max_length": columns.max_length, "sequence_lengths": longest}
    predictors, contents = load_variants(classifiers, job.artifact, manifest, context.run, longest, lengths)
    check_labels(job.artifact, manifest, predictors["artifact"].label_names)
    check_measured_as_proven(job.artifact, manifest, columns.max_length)
    check_same_labels(predictors, directories)
    label_names = predictors["dense"].label_names
    check_task(gates, job.config, task_of(label_names))
    data = load_text_data(job.data, columns, "test", label_names=label_names)
    check_ranking(job.config.task_metric, data)
    log_notes(data, context.progress)
    for predictor in predictors.values():
        predictor.check_pairs(data.pairs is not None)
    shared = check_made_with(directories, data, allowed=job.allow_test_texts) | dict(job.shared)
    return _Inputs(gates, baseline, manifest, engine, directories, predictors, contents, data, shared)


def _environment(job: ValidationJob, inputs: _Inputs, context: Context) -> dict[str, Any]:
    """Return what the figures rest on besides the models, as far as it is known before the attack."""
    environment = describe_environment(context.run) | {"data": inputs.data.record(context.columns)}
    environment["latency"] = {
        "threads": latency_threads(job.config, context.run),
        "spinning": job.config.latency_spinning,
    }
    if inputs.has_classes and job.attack is not None:
        environment["attack"] = job.attack.model_dump()
    if inputs.shared:
        environment["test_texts_in"] = inputs.shared
    return environment


def _measure(inputs: _Inputs, job: ValidationJob, context: Context) -> _Measurements:
    """Measure answers, alone and in batches, latency and footprint of each variant."""
    data = inputs.data
    answers = _answers(inputs.predictors, data, job, context)
    invariance = _invariance(inputs, job, context)
    texts = data.sample(SPEED_TEXTS, context.run.seed)
    # An artifact may have fewer pieces in its vocabulary, under other ids.
    encoded = {
        name: encode(predictor.tokenizer, texts, context.columns.max_length)
        for name, predictor in inputs.predictors.items()
    }
    runtime = runtime_of(job.artifact, inputs.manifest)
    latency = _latency(inputs.predictors, encoded, job, runtime, context)
    footprints = _footprints(inputs, encoded, job, context)
    return _Measurements(answers, latency, footprints, invariance)


def _attack(
    inputs: _Inputs,
    job: ValidationJob,
    attack: AttackConfig,
    context: Context,
    checkpoint: Checkpoint | None,
) -> dict[str, dict[str, Any]]:
    """Attack each variant, the dense model first; the results are in the output's folder of attacks.

    Args:
        checkpoint: where they are kept meanwhile; None makes them there.

    Returns:
        The record of each variant's attack.
    """
    final = context.output / ATTACK_FOLDER
    folder = final
    if checkpoint is not None:
        checkpoint.open()
        folder = checkpoint.folder / f"{ATTACK_FOLDER}{STAGES}"
    records = {}
    for name, made in job.made_attacks.items():
        if made != folder / name:
            shutil.copytree(made, folder / name, dirs_exist_ok=True)
    for name, path in inputs.directories.items():
        own = replace(context, output=folder / name, resume=False, force=True)
        records[name] = _attacked(path, job, attack, own, is_kept=checkpoint is not None)
    if checkpoint is not None:
        # By name: what a stopped attack left beside its result is no part of the report.
        for name in records:
            shutil.copytree(folder / name, final / name)
    return records


def _variants(inputs: _Inputs, measured: _Measurements, attacks: Mapping[str, Mapping[str, Any]]) -> Variants:
    """Bring together what is known of each variant.

    Args:
        attacks: the record of each variant's attack; empty of a regression.
    """
    figures = {
        name: VariantFigures(
            path=path,
            **measured.answers[name],
            robustness=_figures(attacks[name]) if attacks else None,
            against_dense=_against(attacks[name]) if attacks else None,
            attacks=_each_attack(attacks[name]) if attacks else [],
            latency=measured.latency[name],
            size_bytes=inputs.contents[name].size.weights,
            size_ratio=_size_ratio(inputs, name),
            size_by_part=SizeFigures(**asdict(inputs.contents[name].size)),
            sparsity=inputs.contents[name].sparsity,
            flops=inputs.contents[name].flops,
            footprint=measured.footprints.get(name),
            invariance=measured.invariance.get(name),
        )
        for name, path in inputs.directories.items()
    }
    return Variants(dense=figures["dense"], pruned=figures.get("pruned"), artifact=figures["artifact"])


def _size_ratio(inputs: _Inputs, name: str) -> float:
    return inputs.contents[name].size.weights / inputs.contents["dense"].size.weights


def _judge(
    job: ValidationJob, inputs: _Inputs, variants: Variants, environment: dict[str, Any], seed: int
) -> Report:
    """Hold what was measured against the gates."""
    data, baseline = inputs.data, inputs.baseline
    absent = data.absent_classes() if inputs.has_classes else []
    measured = Measured(
        variants,
        data.majority_share() if inputs.has_classes else None,
        1 - len(absent) / len(data.label_names) if inputs.has_classes else None,
    )
    compared = None if baseline is None else (Measured.of(baseline), doubts(baseline, environment))
    results = [gate.judge(measured, *(compared or ())) for gate in inputs.gates]
    return Report(
        verdict="fail" if any(result.status == "fail" for result in results) else "pass",
        task_metric=job.config.task_metric,
        majority_share=measured.majority_share,
        class_coverage=measured.class_coverage,
        absent_classes=absent,
        variants=variants,
        gates=results,
        engine=inputs.engine,
        environment=environment,
        seed=seed,
    )


def _attacked(
    path: str, job: ValidationJob, attack: AttackConfig, context: Context, *, is_kept: bool
) -> dict[str, Any]:
    """Attack a variant and return the record; the dense model's comes first.

    Args:
        path: of the variant.
        context: whose output is named like the variant, in the folder of all attacks.
        is_kept: whether the folder may hold what a stopped run of the same job finished.
    """
    name, record = context.output.name, context.output / ROBUSTNESS_RECORD
    if name in job.made_attacks:
        return dict(read_json(record))
    if is_kept and record.is_file():
        try:
            return dict(read_json(record))
        except UserError as error:
            context.progress.log(f"{error}; attacked again")
    against = None if name == "dense" else context.output.with_name("dense")
    return attack_directory(path, job.data, attack, context, against).model_dump()


def _answers(
    predictors: Mapping[str, Predictor], data: TextData, job: ValidationJob, context: Context
) -> dict[str, dict[str, Any]]:
    """What one pass over the test data tells of each variant, the dense model first."""
    encoded = {
        name: encode(predictor.tokenizer, data, context.columns.max_length)
        for name, predictor in predictors.items()
    }
    logits = {
        name: predict_encoded(predictor, encoded[name], ANSWER_BATCH, context.progress, f"Answers of {name}")
        for name, predictor in predictors.items()
    }
    for name, predictor in predictors.items():
        check_finite(logits[name], predictor.source)
    figures = _figures_of_answers(job.config.task_metric, data, encoded["dense"], context.run.seed)
    return {
        name: figures(found, None if name == "dense" else logits["dense"]) for name, found in logits.items()
    }


def _figures_of_answers(
    metric: MetricName, data: TextData, encoded: Sequence[Encoded], seed: int
) -> Callable[[NDArray[np.float32], NDArray[np.float32] | None], dict[str, Any]]:
    """Return what makes figures of a variant's logits and the dense model's.

    Args:
        encoded: of the dense model, whose lengths make slices.
    """
    match metric:
        case "pearson" | "spearman":
            numbered = NumberedExamples(data.numbers or [], metric, seed)
            return partial(number_figures, examples=numbered)
        case "ndcg" | "mrr":
            groups = candidates_by_query(f"task_metric {metric}", data)
            return partial(ranking_figures, examples=RankedExamples(data.numbers or [], groups, metric, seed))
    lengths = [len(ids) for ids, _ in encoded]
    slices = label_slices(data.class_labels, data.label_names) + length_slices(lengths)
    return partial(answer_figures, examples=Examples(data.class_labels, slices, metric, seed))


def _invariance(inputs: _Inputs, job: ValidationJob, context: Context) -> dict[str, InvarianceFigures]:
    """How far each variant's answers to texts alone and in batches differ; none if it is not to be measured.

    The artifact is loaded once more for that, with one thread.
    """
    if not job.config.invariance_examples:
        return {}
    run = context.run
    few = inputs.data.sample(job.config.invariance_examples, run.seed)
    runtime = runtime_of(job.artifact, inputs.manifest)
    one_thread = runtime(job.artifact, 1, resolve_device(run.device).type)
    alone = {**inputs.predictors, "artifact": one_thread}
    found = {}
    for name, together in context.progress.track(inputs.predictors.items(), "Answers alone and in batches"):
        encoded = encode(together.tokenizer, few, context.columns.max_length)
        found[name] = invariance_figures(alone[name], together, encoded, run.seed)
    return found


def _latency(
    predictors: Mapping[str, Predictor],
    encoded: Mapping[str, Sequence[Encoded]],
    job: ValidationJob,
    runtime: Runtime,
    context: Context,
) -> dict[str, list[LatencyFigures]]:
    """Latency of each variant, with the threads of the served artifact; it is loaded once more for that."""
    config, threads = job.config, latency_threads(job.config, context.run)
    plan = LatencyPlan(config.shapes, config.latency_rounds, config.latency_seconds)
    device = resolve_device(context.run.device).type
    served = runtime(job.artifact, threads, device, spinning=config.latency_spinning)
    with torch_threads(threads):
        return measure_latency({**predictors, "artifact": served}, encoded, plan, context.progress)


def latency_threads(config: ValidateConfig, run: RunConfig) -> int:
    """Return the number of threads on which variants are timed."""
    return config.latency_threads or thread_count(run)


def _footprints(
    inputs: _Inputs,
    encoded: Mapping[str, Sequence[Encoded]],
    job: ValidationJob,
    context: Context,
) -> dict[str, FootprintFigures]:
    """Load time and memory of each variant at the largest shape; none if they are not to be measured."""
    if not job.config.footprint:
        return {}
    shape = max(job.config.batch_sizes), max(job.config.sequence_lengths)
    batches = {
        name: batch_of_length(encoded[name], *shape, int(predictor.tokenizer.pad_token_id))
        for name, predictor in inputs.predictors.items()
    }
    return {
        name: measure_footprint(path, context.run, batches[name])
        for name, path in context.progress.track(inputs.directories.items(), "Load time and memory")
    }


def write_report(directory: Path, report: Report, appendix: Appendix) -> None:
    """Write the report as JSON, HTML, Markdown and JUnit XML."""
    (directory / REPORT).write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (directory / "report.md").write_text(render_markdown(report, appendix), encoding="utf-8")
    (directory / "junit.xml").write_text(render_junit(report), encoding="utf-8")
    (directory / "report.html").write_text(render_html(report, appendix), encoding="utf-8")


def _figures(record: Mapping[str, Any]) -> RobustnessFigures:
    return RobustnessFigures(**{name: record[name] for name in RobustnessFigures.model_fields})


def _each_attack(record: Mapping[str, Any]) -> list[AttackFigures]:
    """Return the figures of each of several attacks."""
    return [
        AttackFigures(robustness=_figures(one), against_dense=_against(one))
        for one in record.get("attacks", [])
    ]


def _against(record: Mapping[str, Any]) -> AgainstFigures | None:
    if record.get("against") is None:
        return None
    return AgainstFigures(**{name: record["against"][name] for name in AgainstFigures.model_fields})


def _appendix(working: Path, inputs: _Inputs, attacks: Mapping[str, Mapping[str, Any]]) -> Appendix:
    """What the readable reports tell besides: from the records of the stages, nothing is computed.

    Args:
        attacks: the record of each variant's attack; empty of a regression.
    """
    directories, manifest, data = inputs.directories, inputs.manifest, inputs.data
    facts = {
        "Test data": f"{data.source}, {len(data)} examples, sha256 {data.fingerprint[:12]}",
        "Parity with PyTorch": f"logits within {manifest['parity']['max_difference']:.1e} on "
        f"{manifest['parity']['examples']} texts",
        "Exported weights": f"sha256 {str(manifest['lineage']['weights_sha256'])[:12]}",
    }
    if data.mapping is not None and data.mapping.line is not None:
        facts["Labels"] = data.mapping.line.removeprefix("labels: ")
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
    if not attacks:
        return Appendix(layers, [], facts)
    resources = attacks["artifact"]["resources"]
    facts |= {f"Attack resource: {name}": value for name, value in resources.items()}
    rows = _attack_rows(working / ATTACK_FOLDER / "artifact", data.label_names)
    return Appendix(layers, rows, facts)


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
