"""Candidates of a search: pruned for a speed, exported and measured on the selection texts.

All that is made for them is kept in a folder beside the search's output, under names that hold what decides
it. So a search that was stopped goes on where it was, and one with other gates takes the models of the one
before.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from compressor.attacks.stage import attack_decides
from compressor.data.texts import Role, load_text_data
from compressor.models.classifier import model_content, model_labels
from compressor.models.latency_table import LatencyTable, Widths
from compressor.models.reuse import decides, predictor_content
from compressor.options import (
    AttackConfig,
    ExportConfig,
    LatencyTableConfig,
    PruneConfig,
    SearchConfig,
    ValidateConfig,
)
from compressor.pruning.interface import PRUNING_RECORD, SharedWork, prune_directory
from compressor.search.latency import latency_table
from compressor.search.record import (
    CandidateFigures,
    ModelFigures,
    ModelTimes,
    OutcomeFigures,
    ShapeTimes,
    WidthFigures,
)
from compressor.system.context import Context
from compressor.system.environment import processor_name
from compressor.system.files import atomic_directory, name_of_facts, place_of, read_json, write_whole
from compressor.validation.gates.baseline import read_report, reads_attack
from compressor.validation.gates.gates import Gate, failed_gates, holds_surely, parse_gates
from compressor.validation.schema import (
    DifferenceFigures,
    GateResult,
    IntervalFigures,
    MeanDifferenceFigures,
    Report,
    VariantFigures,
    Variants,
)
from compressor.validation.stage import (
    ATTACK_FOLDER,
    ValidationJob,
    latency_threads,
    validate_directories,
)
from exporters.stage import export_directory
from exporters.texts import ExportTexts

# Of the time for candidates, what a latency table takes for each shape, and the most that it takes.
TABLE_SHARE, LONGEST_SHAPE_SECONDS = 0.05, 40.0

# Metrics that get better the more is removed.
COSTS = frozenset(
    {
        "size_mb",
        "size_ratio",
        "flops",
        "flops_nonzero",
        "sparsity",
        "load_seconds",
        "peak_memory_mb",
        "model_memory_mb",
        "latency_p50",
        "latency_p95",
        "latency_p99",
        "latency_ratio",
        "throughput",
    }
)


@dataclass(frozen=True)
class SearchJob:
    """Input of a search.

    Attributes:
        model: directory or hub id of the dense classifier.
        calibration: texts to prune with, without labels.
        selection: labelled texts by which candidates are compared; none of them is a test text.
        test: labelled texts on which the chosen candidate is validated, once.
        vocabulary: texts whose pieces of the vocabulary artifacts keep; None keeps all.
    """

    model: str
    calibration: str
    selection: str
    test: str
    vocabulary: str | None
    config: SearchConfig
    validate: ValidateConfig
    attack: AttackConfig


class Wanted(NamedTuple):
    """A candidate that is to be made.

    Attributes:
        file: of the latency table that it is made for.
        target: its speed-up over dense PyTorch; None exports the dense model.
    """

    file: Path
    table: LatencyTable
    target: float | None

    @property
    def name(self) -> str:
        """Return how people call it."""
        return "the dense model" if self.target is None else f"{self.target:.3g} times dense PyTorch"


def is_cost(gate: Gate | GateResult) -> bool:
    """Return whether a gate is on what gets better the more is removed."""
    return gate.metric in COSTS


def candidates_folder(output: Path) -> Path:
    """Return the folder in which a search keeps what it makes for its candidates."""
    return place_of(output).beside("candidates")


@dataclass(frozen=True)
class CandidateStore:
    """Makes candidates, or takes those that are in its folder."""

    job: SearchJob
    context: Context

    @cached_property
    def folder(self) -> Path:
        """The folder of all that candidates are made of."""
        return candidates_folder(self.context.output)

    @cached_property
    def _shared(self) -> SharedWork:
        return SharedWork()

    @cached_property
    def _contents(self) -> dict[str, Any]:
        """What changes if an input of the candidates does."""
        job = self.job
        texts = {
            "calibration": self._fingerprint(job.calibration, "calibration"),
            "selection": self._fingerprint(job.selection, "selection"),
        }
        if job.vocabulary is not None:
            texts["vocabulary"] = self._fingerprint(job.vocabulary, "vocabulary")
        columns = self.context.columns
        return {"model": model_content(job.model), "texts": texts, "max_length": columns.max_length}

    def _fingerprint(self, source: str, role: Role) -> str:
        names = model_labels(self.job.model)
        needs = role in ("selection", "test")
        columns = self.context.columns
        return load_text_data(source, columns, role, label_names=names, needs_labels=needs).fingerprint

    @property
    def latency_threads(self) -> int:
        """Threads on which candidates are timed."""
        return latency_threads(self.job.validate, self.context.run)

    def measured_table(self) -> Path:
        """Measure this machine's latency table, for int8 in ONNX Runtime, or take an earlier search's.

        Raises:
            UserError: the model's shape cannot be read.
        """
        run = self.context.run.model_copy(update={"threads": self.latency_threads})
        facts = {
            "model": model_content(self.job.model),
            "machine": processor_name(),
            "threads": run.threads,
        }
        file = self._place("latency-table", facts).with_suffix(".json")
        if not file.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            config = LatencyTableConfig(
                shape_seconds=min(LONGEST_SHAPE_SECONDS, TABLE_SHARE * 60 * self.job.config.budget_minutes)
            )
            latency_table(self.job.model, config, run, file, force=False, progress=self.context.progress)
        return file

    def is_made(self, wanted: Wanted) -> bool:
        """Return whether a candidate has only to be measured."""
        return self._artifact(self._facts(*self._options(wanted))).exists()

    def make(self, wanted: Wanted) -> tuple[str, Path]:
        """Prune and export a candidate, or take what is there; the classifier's source and the artifact.

        Raises:
            UserError: bad model, texts or options.
        """
        prune, export = self._options(wanted)
        facts = self._facts(prune, export)
        source = self.job.model if prune is None else str(self._pruned(facts["prune"], prune))
        return source, self._exported(facts, source, export)

    def candidate(self, number: int, wanted: Wanted, began: float) -> CandidateFigures:
        """Return a candidate, measured.

        Args:
            began: when its making did, by `time.monotonic`.

        Raises:
            UserError: bad model, texts or options.
        """
        file, table, target = wanted
        made = self._facts(*self._options(wanted))
        measured = self._measured_facts(made)
        judged = {"figures": list(CandidateFigures.model_fields), "confidence": self.job.config.confidence}
        summary = self._place("candidate", {**measured, **judged})
        summary = summary.with_suffix(".json")
        if summary.is_file():
            known = CandidateFigures.model_validate(read_json(summary))
            return known.model_copy(update={"number": number, "table": str(file), "target": target})
        source, artifact = self.make(wanted)
        report, directory = self._measured(measured, artifact)
        widths = table.dense_widths if target is None else _widths(Path(source))
        figures = CandidateFigures(
            number=number,
            table=str(file),
            runtime=table.runtime,
            precision=table.precision,
            target=target,
            widths=[WidthFigures(**own._asdict()) for own in widths],
            **_of_report(report, _predicted(widths, table), self.job.config.confidence),
            attacked=report.variants.artifact.robustness is not None,
            seconds=round(time.monotonic() - began, 2),
            pruned=None if target is None else Path(source).name,
            artifact=artifact.name,
            report=directory.name,
        )
        write_whole(summary, figures.model_dump_json(indent=2) + "\n")
        return figures

    def report_of(self, one: CandidateFigures) -> Report:
        """Return the report of a candidate on the selection texts."""
        return read_report(self.folder / one.report)

    def tested(self, chosen: CandidateFigures) -> tuple[Report, Path]:
        """Validate a candidate on the test texts, with all gates; the report and its directory."""
        job = self.job
        artifact = self.folder / chosen.artifact
        options = {"validate": job.validate, "attack": job.attack}
        facts = decides("validate", self.context.run, options, **self._contents)
        facts |= {"artifact": predictor_content(str(artifact)), "test": self._fingerprint(job.test, "test")}
        directory = self._place("test", facts | {"machine": processor_name()})
        return self._validated(directory, artifact, job.test, job.validate, attack_last=False), directory

    def prune_config(self, file: Path, target: float) -> PruneConfig:
        """Return the options that prune for a speed-up, by the table in a file."""
        config = self.job.config
        adaptive = {
            "speedup": target,
            "latency_table": str(file),
            "distillation_steps": config.recovery_steps,
            "distillation_examples": config.recovery_examples,
            "robust": config.recovery_robust,
        }
        if len(config.recovery_rates) == 1:
            adaptive["distillation_rate"] = config.recovery_rates[0]
        elif config.recovery_steps:
            adaptive["distillation_rates"] = config.recovery_rates
        return PruneConfig.model_validate(
            {"calibration_examples": config.calibration_examples, "adaptive": adaptive}
        )

    def export_config(self, runtime: str, precision: str) -> ExportConfig:
        """Return the options that export for a runtime in a precision."""
        return ExportConfig.model_validate({"runtime": runtime, "precision": precision})

    def _options(self, wanted: Wanted) -> tuple[PruneConfig | None, ExportConfig]:
        """How a candidate is pruned, if it is, and exported."""
        file, table, target = wanted
        prune = None if target is None else self.prune_config(file, target)
        return prune, self.export_config(table.runtime, table.precision)

    def _facts(self, prune: PruneConfig | None, export: ExportConfig) -> dict[str, dict[str, Any]]:
        """All that decides the weights and the graph of a candidate."""
        run, contents = self.context.run, self._contents
        # Other selection texts, or another vocabulary, prune nothing anew.
        pruned = contents | {"texts": {"calibration": contents["texts"]["calibration"]}}
        return {
            "prune": decides("prune", run, {"prune": prune}, **pruned),
            "export": decides("export", run, {"export": export}, **contents),
        }

    def _measured_facts(self, made: Mapping[str, Any]) -> dict[str, Any]:
        """All that decides the figures of a candidate."""
        run, job = self.context.run, self.job
        options = {"validate": self._selecting, "attack": _attack(self._selecting, job)}
        machine = {"processor": processor_name(), "threads": self.latency_threads}
        return {**made, "validate": decides("validate", run, options, **self._contents), "machine": machine}

    @cached_property
    def _selecting(self) -> ValidateConfig:
        """The gates of candidates: all but warnings of attacks, which decide nothing and take long."""
        gates = parse_gates(self.job.validate.gates)
        gates = [gate for gate in gates if not (gate.warns and reads_attack(gate))]
        return self.job.validate.model_copy(update={"gates": [str(gate) for gate in gates]})

    def _place(self, kind: str, facts: Any) -> Path:
        """A directory whose name two things share only if all their facts are the same."""
        return self.folder / name_of_facts(kind, facts)

    def _pruned(self, facts: Mapping[str, Any], prune: PruneConfig) -> Path:
        directory = self._place("pruned", facts)
        if not directory.exists():
            at = self._at(directory)
            prune_directory(self.job.model, self.job.calibration, prune, at, self._shared)
        return directory

    def _artifact(self, facts: Mapping[str, Any]) -> Path:
        return self._place("artifact", facts)

    def _exported(self, facts: Mapping[str, Any], source: str, export: ExportConfig) -> Path:
        directory = self._artifact(facts)
        if not directory.exists():
            texts = ExportTexts(calibration=self.job.calibration, vocabulary=self.job.vocabulary)
            export_directory(source, self.job.selection, export, self._at(directory), texts)
        return directory

    def _measured(self, facts: Mapping[str, Any], artifact: Path) -> tuple[Report, Path]:
        """The report of an artifact on the selection texts; it is attacked if the other gates hold."""
        directory = self._place("report", facts)
        data = self.job.selection
        return self._validated(directory, artifact, data, self._selecting, attack_last=True), directory

    def _validated(
        self, directory: Path, artifact: Path, data: str, config: ValidateConfig, *, attack_last: bool
    ) -> Report:
        """The report of an artifact with the gates of a config, from the directory if it is there."""
        if directory.exists():
            return read_report(directory)
        job, attack = self.job, _attack(config, self.job)
        dense = None if attack is None else self._dense_attack(data, attack)
        validation = ValidationJob(
            dense=job.model,
            artifact=artifact,
            pruned=None,
            data=data,
            config=config,
            attack=attack,
            attack_last=attack_last,
            made_attacks={"dense": dense} if dense is not None and dense.exists() else {},
            with_pruned=False,
        )
        report = validate_directories(validation, self._at(directory))
        made = directory / ATTACK_FOLDER / "dense"
        if dense is not None and made.exists() and not dense.exists():
            with atomic_directory(dense) as working:
                shutil.copytree(made, working, dirs_exist_ok=True)
        return report

    def _dense_attack(self, data: str, attack: AttackConfig) -> Path:
        """Where the attack on the dense model is kept, against which all candidates are held."""
        run, model, length = self.context.run, self.job.model, self.context.columns.max_length
        return self._place(
            "attack", attack_decides(attack, run, self._fingerprint(data, "test"), length, model=model)
        )

    def _at(self, directory: Path) -> Context:
        processes = max(self.context.processes, self.job.config.processes)
        return replace(self.context, output=directory, force=False, processes=processes)


def _attack(config: ValidateConfig, job: SearchJob) -> AttackConfig | None:
    """The attack, if a gate needs one."""
    return job.attack if any(reads_attack(gate) for gate in parse_gates(config.gates)) else None


def _widths(pruned: Path) -> list[Widths]:
    return [Widths(**own) for own in read_json(pruned / PRUNING_RECORD)["details"]["widths"]]


def _predicted(widths: Sequence[Widths], table: LatencyTable) -> dict[tuple[int, int], float]:
    """Milliseconds at each shape of the table."""
    shapes = [(shape.batch_size, shape.length) for shape in table.shapes]
    return dict(zip(shapes, table.predicted_ms(widths).tolist(), strict=True))


def _of_report(
    report: Report, predicted: Mapping[tuple[int, int], float], confidence: float
) -> dict[str, Any]:
    """What the report says of the artifact."""
    variants, figures = report.variants, model_figures(report.variants.artifact)
    failed = failed_gates(report.gates)
    unsure = [
        result.gate
        for result in report.gates
        if result not in failed and not is_cost(result) and not holds_surely(result, confidence)
    ]
    times = [
        ShapeTimes(
            batch_size=own.batch_size,
            length=own.length,
            dense_ms=other.ms,
            artifact_ms=own.ms,
            predicted_ms=predicted.get((own.batch_size, own.length)),
        )
        for own, other in zip(figures.latency, model_figures(variants.dense).latency, strict=True)
    ]
    return {
        **figures.model_dump(exclude={"latency"}),
        "latency": times,
        "speedup": speedup(variants),
        "size_ratio": figures.size_bytes / variants.dense.size_bytes,
        "gates": report.gates,
        "unsure": unsure,
        "quality_holds": not unsure and all(is_cost(result) for result in failed),
        "holds": not failed and not unsure,
    }


def model_figures(figures: VariantFigures) -> ModelFigures:
    """Return what a search records of a variant in a report."""
    times = [
        ModelTimes(batch_size=entry.batch_size, length=entry.sequence_length, ms=entry.p50_ms)
        for entry in figures.latency
    ]
    under_attack, under_attack_interval = _under_attack(figures)
    invariance = figures.invariance
    return ModelFigures(
        accuracy=figures.accuracy,
        accuracy_interval=figures.accuracy_interval,
        task_score=figures.task_score,
        task_score_interval=figures.task_score_interval,
        accuracy_under_attack=under_attack,
        accuracy_under_attack_interval=under_attack_interval,
        batch_disagreement=None if invariance is None else invariance.batch_disagreement,
        worst_batch_shift=None if invariance is None else invariance.worst_batch_shift,
        size_bytes=figures.size_bytes,
        latency=times,
    )


def speedup(variants: Variants) -> float:
    """Return how many times as fast as the dense model the artifact is, the geometric mean over shapes."""
    pairs = zip(variants.dense.latency, variants.artifact.latency, strict=True)
    ratios = [math.log(dense.p50_ms / artifact.p50_ms) for dense, artifact in pairs]
    return math.exp(sum(ratios) / len(ratios))


def _under_attack(figures: VariantFigures) -> tuple[float | None, IntervalFigures | None]:
    found = figures.robustness
    if found is None:
        return None, None
    mean = found.mean_accuracy_under_attack
    if mean is None:
        return found.accuracy_under_attack, found.accuracy_under_attack_interval
    return mean.mean, mean.interval


def outcome_figures(variants: Variants) -> OutcomeFigures:
    """Return what a search records of an artifact that was held against the dense model."""
    answers, attack = variants.artifact.answers_against_dense, variants.artifact.against_dense
    under_attack: DifferenceFigures | MeanDifferenceFigures | None = None
    if attack is not None:
        under_attack = attack.mean_accuracy_under_attack_drop or attack.accuracy_under_attack_drop
    return OutcomeFigures(
        dense=model_figures(variants.dense),
        artifact=model_figures(variants.artifact),
        accuracy_drop=_difference(None if answers is None else answers.accuracy_drop),
        accuracy_under_attack_drop=_difference(under_attack),
        speedup=speedup(variants),
    )


def _difference(found: DifferenceFigures | MeanDifferenceFigures | None) -> MeanDifferenceFigures | None:
    """The difference without a test of its significance."""
    if found is None:
        return None
    return MeanDifferenceFigures(
        difference=found.difference, interval=found.interval, examples=found.examples
    )
