"""Reports that were written earlier: read, and held against what is measured now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from compressor.errors import UserError, check_all
from compressor.models.metrics import RANKINGS, check_metric
from compressor.options import AttackConfig, TaskName, ValidateConfig, describe, with_word_budgets
from compressor.system.differences import leaves
from compressor.system.files import read_json
from compressor.validation.gates.gates import Gate, parse_gates
from compressor.validation.gates.metric import Basis
from compressor.validation.gates.readings import (
    ALL_ATTACKS_METRICS,
    BUDGET_METRICS,
    CLASS_METRICS,
    FOOTPRINT_METRICS,
    INVARIANCE_METRICS,
    METRICS,
    TASK_METRICS,
    WITHIN_BUDGETS,
    shape_name,
)
from compressor.validation.schema import REPORT, SCHEMA_VERSION, Report

# Entries of a report's environment that its figures rest on.
RESTS_ON: dict[Basis, tuple[str, ...]] = {
    "data": ("data.fingerprint", "data.columns.max_length"),
    "attack": ("attack", "attack_resources"),
    "machine": ("device", "device_name", "processor", "threads", "latency.threads", "latency.spinning"),
}


def read_report(path: Path) -> Report:
    """Read `report.json`, or that of a folder.

    Raises:
        UserError: there is none, it is of another schema, or it is no report of a validation.
    """
    file = path / REPORT if path.is_dir() else path
    value = read_json(file)
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version is None or "variants" not in value:
        raise UserError(f"{file}: is no report of compress validate")
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{file}: is a report of schema {version}, and this version reads {SCHEMA_VERSION}; make it "
            f"again with: compress validate"
        )
    try:
        return Report.model_validate(value)
    except ValidationError as error:
        raise UserError(f"{file}: is a broken report: {describe(error.errors()[0], Report)}") from error


def differences(first: Mapping[str, Any], second: Mapping[str, Any], basis: Basis) -> list[str]:
    """Names of the entries on that basis in which two environments differ; unknown on one side differs."""
    return [name for name in RESTS_ON[basis] if _facts(first, name) != _facts(second, name)]


def prepare_gates(config: ValidateConfig, attack: AttackConfig | None) -> tuple[list[Gate], Report | None]:
    """The gates, and the baseline report if there is one, so that what is wrong is found at once.

    Args:
        attack: None where nothing is to be attacked.

    Raises:
        UserError: a bad gate or baseline, a gate on a baseline that is not given, or on what is not to be
            measured.
    """
    gates = parse_gates(config.gates)
    baseline = None if config.baseline is None else read_report(Path(config.baseline))
    check_measured(gates, baseline, config, attack)
    return gates, baseline


def check_task(gates: Iterable[Gate], config: ValidateConfig, task: TaskName) -> None:
    """Find before anything is measured what does not fit the models' task.

    Raises:
        UserError: the task's metric, or a gate, is of classes where answers are numbers, or the other way.
    """
    check_metric("task_metric", config.task_metric, task)
    for gate in gates:
        if gate.metric == "rank_correlation" and config.task_metric not in RANKINGS:
            raise UserError(
                f"gate {str(gate)!r}: is of rerankers, and the task metric is {config.task_metric}; set "
                f"--task-metric to {' or '.join(sorted(RANKINGS))}"
            )
        if task == "regression" and gate.metric in CLASS_METRICS:
            raise UserError(
                f"gate {str(gate)!r}: is of classes, and the model answers with numbers; give --gates on "
                f"{' or '.join(TASK_METRICS)}, or on cost"
            )


def check_measured(
    gates: Iterable[Gate], baseline: Report | None, config: ValidateConfig, attack: AttackConfig | None
) -> None:
    """Find before anything is measured which gate has nothing to be held against.

    Raises:
        UserError: a gate refers to a baseline that is not given, to load time, memory or answers in batches
            that are not to be measured or that the baseline lacks, to an attack that is not run, to all of
            several where one is run, or to word budgets that an attack does not have.
    """
    check_all("the gates", [partial(_check_one, gate, baseline, config, attack) for gate in gates])


def _check_one(
    gate: Gate, baseline: Report | None, config: ValidateConfig, attack: AttackConfig | None
) -> None:
    refers = gate.bound.reference == "baseline"
    if refers and baseline is None:
        raise UserError(f"gate {str(gate)!r}: there is no baseline; give a report with --baseline")
    if gate.metric in TASK_METRICS and refers and baseline and baseline.task_metric != config.task_metric:
        raise UserError(
            f"gate {str(gate)!r}: the baseline's task metric is {baseline.task_metric}, here it is "
            f"{config.task_metric}; set --task-metric"
        )
    if attack is None and reads_attack(gate):
        raise UserError(f"gate {str(gate)!r}: nothing is attacked here")
    if attack is not None and reads_attack(gate):
        _check_attack(gate, attack)
    of_baseline = baseline.variants.artifact if refers and baseline is not None else None
    if gate.metric in FOOTPRINT_METRICS:
        if not config.footprint:
            raise UserError(f"gate {str(gate)!r}: is not measured with --no-footprint")
        if of_baseline is not None and of_baseline.footprint is None:
            raise UserError(f"gate {str(gate)!r}: the baseline was made with --no-footprint")
    if gate.metric in INVARIANCE_METRICS:
        if not config.invariance_examples:
            raise UserError(f"gate {str(gate)!r}: is not measured with --invariance-examples 0")
        if of_baseline is not None and of_baseline.invariance is None:
            raise UserError(
                f"gate {str(gate)!r}: the baseline did not measure it; make a new baseline with: "
                f"compress validate"
            )


def reads_attack(gate: Gate) -> bool:
    """Return whether a gate is on what an attack finds."""
    return "attack" in METRICS[gate.metric].basis


def _check_attack(gate: Gate, attack: AttackConfig) -> None:
    names = attack.attacks
    if gate.attack is not None and gate.attack not in names:
        raise UserError(
            f"gate {str(gate)!r}: {gate.attack} is not run here; run here: {', '.join(names)}; add it to "
            f"attack.attack, or leave the gate out"
        )
    if gate.metric in ALL_ATTACKS_METRICS and len(names) == 1:
        raise UserError(
            f"gate {str(gate)!r}: {attack.attack} is run alone; use "
            f"{gate.metric.replace('under_all_attacks', 'under_attack')}, or name more in attack.attack"
        )
    if gate.metric in BUDGET_METRICS:
        for one in attack.each():
            if gate.attack in (None, one.attack):
                _check_budgets(gate, one, len(names) > 1)


def _check_budgets(gate: Gate, attack: AttackConfig, among_others: bool) -> None:
    if attack.longest_word_budget is None:
        one_alone = f"; write {gate.metric}[ATTACK] for one of them alone" if among_others else ""
        raise UserError(
            f"gate {str(gate)!r}: {attack.attack} has no figures within word budgets; these are read off "
            f"{', '.join(with_word_budgets())}{one_alone}"
        )
    if gate.metric in WITHIN_BUDGETS and not attack.exact_word_budgets:
        raise UserError(
            f"gate {str(gate)!r}: there are no attack.word_budgets, or none up to attack.max_words_changed"
        )


def check_baseline(
    gates: Iterable[Gate], baseline: Report, environment: Mapping[str, Any], shapes: Sequence[tuple[int, int]]
) -> None:
    """Find before anything is measured why a gate could not be held against the baseline.

    Args:
        environment: what is known of it so far; `data` and `attack` at least.
        shapes: at which latency will be timed.

    Raises:
        UserError: other test data, another attack, or a shape that the baseline was not timed at.
    """
    timed = {(entry.batch_size, entry.sequence_length) for entry in baseline.variants.artifact.latency}
    for gate in gates:
        if gate.bound.reference != "baseline":
            continue
        basis = METRICS[gate.metric].basis
        for name in ("data.fingerprint", "data.columns.max_length", "attack"):
            rests = name.partition(".")[0] in basis
            if rests and _entry(baseline.environment, name) != _entry(environment, name):
                raise UserError(
                    f"gate {str(gate)!r}: the baseline has another {name.replace('.', ' ')} "
                    f"({_entry(baseline.environment, name)}), so the figures do not compare; make a new "
                    f"baseline, or leave the gate out"
                )
        missing = [shape_name(*shape) for shape in shapes if shape not in timed]
        if missing and (gate.metric.startswith("latency") or gate.metric == "throughput"):
            raise UserError(f"gate {str(gate)!r}: the baseline was not timed at {', '.join(missing)}")


def doubts(baseline: Report, environment: Mapping[str, Any]) -> dict[Basis, str]:
    """Why figures on some basis do not compare with the baseline's."""
    found: dict[Basis, str] = {}
    for basis in RESTS_ON:
        names = differences(baseline.environment, environment, basis)
        if names:
            listed = ", ".join(name.replace(".", " ").replace("_", " ") for name in names)
            found[basis] = f"the baseline has another {listed}"
    return found


def _facts(environment: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What is told at a dotted name: its leaves, among which what is empty has none.

    Reports of earlier versions lack the options of attacks that packages register.
    """
    return dict(leaves(_entry(environment, name)))


def _entry(environment: Mapping[str, Any], name: str) -> Any:
    """The entry at a dotted name; None where there is none."""
    value: Any = environment
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
