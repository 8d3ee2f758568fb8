"""A report as one run of MLflow: what is logged of it, and the logging.

MLflow is optional (`mlflow-skinny` will do) and imported only when a run is logged. Its usage telemetry is
switched off.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.config.recipe import load_recipe, recipe_values
from compressor.errors import UserError, first_line
from compressor.models.manifest import MANIFEST, is_artifact, read_artifact_manifest
from compressor.pipeline.folder import RECIPE
from compressor.pipeline.keys import ARTIFACT, REPORTS
from compressor.system.differences import leaves
from compressor.validation.gates.attack_readings import each_attack
from compressor.validation.gates.baseline import read_report
from compressor.validation.gates.metric import Measured
from compressor.validation.gates.readings import CLASS_METRICS, FOOTPRINT_METRICS, METRICS
from compressor.validation.report.rows import measured_variants
from compressor.validation.schema import REPORT, GateResult, Report, VariantFigures
from exporters.bill_of_materials import BILL_OF_MATERIALS

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCAL_STORE = "mlruns"
# One entry a class of the data: too many for a server, which takes a hundred params at once.
LABELS = ("data.labels.map.", "data.columns.label_map.")
DATABASES = ("sqlite:", "postgresql", "mysql", "mssql")
# MLflow's bounds.
LONGEST_NAME = 250
LONGEST_PARAM = 6000
LONGEST_TAG = 8000

NO_TELEMETRY = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
# A user's own settings win. Left alone, MLflow retries for minutes, and refuses its own file store.
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
# MLflow's names have no signs but these: letters, digits and _ . - / : and space, on Windows no colon.
_SIGNS = {"<=": "at most", ">=": "at least", " * ": " times ", " + ": " plus ", ":": ""}
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.\- ]")
_CREDENTIALS = re.compile(r"//[^/@\s]*@")


@dataclass(frozen=True)
class Tracked:
    """What is logged of a report, by names that MLflow allows."""

    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]


@dataclass(frozen=True)
class Source:
    """What is to be logged, as it was read.

    Attributes:
        recipe: values of the run's recipe; None where there is none.
        weights_sha256: of the weights that the artifact was exported from; None without an artifact.
        files: each file, and the folder among the run's artifacts that it goes to, empty for the topmost.
    """

    report: Report
    recipe: dict[str, Any] | None
    weights_sha256: str | None
    files: list[tuple[Path, str]]


@dataclass(frozen=True)
class LoggedRun:
    """A run as MLflow has it.

    Attributes:
        tracking_uri: of the store, without credentials.
        place: the run's page on a server; for other stores, the store.
    """

    run_id: str
    run_name: str
    experiment: str
    experiment_id: str
    tracking_uri: str
    place: str
    files: int


def tracked(
    report: Report, recipe: Mapping[str, Any] | None = None, weights_sha256: str | None = None
) -> Tracked:
    """What is logged of a report.

    Params are the recipe's options with dotted keys, the report's environment (versions among it) and seed.
    Metrics are the figures that gates can bound, by variant and for times by shape, such as
    `artifact.latency_p50.8x128`, with `.low` and `.high` of 95 % intervals, and 1 or 0 for each gate that is
    kept or broken. Figures that were not measured are left out.
    """
    values = {**dict(leaves(dict(recipe or {}))), "seed": report.seed, "task_metric": report.task_metric}
    values |= {
        f"environment.{key}": value for key, value in leaves(report.environment) if not key.startswith(LABELS)
    }
    data = report.environment.get("data")
    known = {
        "verdict": report.verdict,
        "data_fingerprint": data.get("fingerprint") if isinstance(data, dict) else None,
        "weights_sha256": weights_sha256,
    }
    tags = {name: value for name, value in known.items() if value is not None}
    tags |= {_gate_name(gate): f"{gate.status}: {gate.sentence}" for gate in report.gates}
    return Tracked(
        params={_name(key): _cut(_text(value), LONGEST_PARAM) for key, value in values.items()},
        metrics=dict(_figures(report)) | {_gate_name(gate): _kept(gate) for gate in report.gates},
        tags={name: _cut(str(value), LONGEST_TAG) for name, value in tags.items()},
    )


def read_source(path: Path, *, with_artifact: bool = False) -> Source:
    """Read a report and what lies beside it.

    A report under another name than `report.json`, such as a stored baseline, stands alone.

    Args:
        path: a report, or the folder of a run or a validation.
        with_artifact: log the artifact's files, and not only its manifest and bill of materials.

    Raises:
        UserError: no report, a broken recipe or artifact, or `with_artifact` and no artifact there.
    """
    report = read_report(path)
    file = path / REPORT if path.is_dir() else path
    folder, artifact = file.parent, file.parent / ARTIFACT
    alone = file.name != REPORT
    if alone or not is_artifact(artifact):
        if with_artifact:
            raise UserError(
                f"{path}: has no {ARTIFACT} beside its report; give the folder of a compress run, or leave "
                f"out --with-artifact"
            )
        weights, listed = None, []
    else:
        manifest = read_artifact_manifest(artifact)
        weights = manifest["lineage"]["weights_sha256"]
        wanted = manifest["files"] if with_artifact else {BILL_OF_MATERIALS} & manifest["files"].keys()
        listed = [MANIFEST, *wanted]
    beside = [file] if alone else [folder / name for name in (*REPORTS, RECIPE) if (folder / name).is_file()]
    has_recipe = folder / RECIPE in beside
    return Source(
        report=report,
        recipe=recipe_values(load_recipe(folder / RECIPE)) if has_recipe else None,
        weights_sha256=weights,
        files=[(found, "") for found in beside]
        + [(artifact / name, (Path(ARTIFACT) / name).parent.as_posix()) for name in listed],
    )


def log_source(
    source: Source, experiment: str, run_name: str | None = None, tracking_uri: str | None = None
) -> LoggedRun:
    """Log one run.

    Args:
        run_name: None leaves it to MLflow.
        tracking_uri: MLflow's store; None takes `MLFLOW_TRACKING_URI`, or the folder `mlruns`.

    Raises:
        UserError: MLflow is not installed, or the store cannot be reached or refuses.
    """
    found = tracked(source.report, source.recipe, source.weights_sha256)
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or Path(LOCAL_STORE).absolute().as_uri()
    shown_uri = _without_credentials(uri)
    _prepare_mlflow(uri)
    with _errors_of(shown_uri):
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        known = client.get_experiment_by_name(experiment)
        number = client.create_experiment(experiment) if known is None else known.experiment_id
        info = client.create_run(number, run_name=run_name).info
        with _ended(client, info.run_id):
            _log(client, info.run_id, found, source.files)
    at_server = uri.startswith(("http://", "https://"))
    page = f"{shown_uri.rstrip('/')}/#/experiments/{number}/runs/{info.run_id}"
    return LoggedRun(
        run_id=info.run_id,
        run_name=info.run_name,
        experiment=experiment,
        experiment_id=number,
        tracking_uri=shown_uri,
        place=page if at_server else shown_uri,
        files=len(source.files),
    )


def _figures(report: Report) -> Iterator[tuple[str, float]]:
    if report.majority_share is not None:
        yield "majority_share", report.majority_share
    measured = Measured.of(report)
    for variant, figures in measured_variants(report).items():
        left_out = _left_out(variant, figures, report.variants.dense)
        for name, metric in METRICS.items():
            if name in left_out:
                continue
            for shape, reading in metric.read(measured, figures).items():
                key = ".".join(filter(None, (variant, name, shape.replace(" ", ""))))
                yield key, reading.value
                if reading.interval is not None:
                    yield f"{key}.low", reading.interval.low
                    yield f"{key}.high", reading.interval.high


def _left_out(variant: str, figures: VariantFigures, dense: VariantFigures) -> set[str]:
    """Metrics that this variant has no figure for; `METRICS` reads some of them as nought."""
    # The dense model's alone, whichever variant is asked: its accuracy minus `majority_share`.
    names = {"dense_over_majority"}
    if variant == "dense":
        names |= {name for name, metric in METRICS.items() if not metric.of_one}
    if figures.footprint is None:
        names |= set(FOOTPRINT_METRICS)
    if figures.robustness is None or dense.robustness is None:
        return names | set(CLASS_METRICS)
    attacks, denses = list(each_attack(figures).values()), each_attack(dense).values()
    rates = [one.robustness.attack_success_rate for one in attacks]
    if None in rates:
        names.add("attack_success_rate")
    if None in (*rates, *(one.robustness.attack_success_rate for one in denses)):
        names.add("attack_success_rate_rise")
    if any(one.against_dense is not None and one.against_dense.transfer.rate is None for one in attacks):
        names.add("transfer_rate")
    return names


def _gate_name(gate: GateResult) -> str:
    """`gate.accuracy_drop at most 0.01`, so that runs compare gate by gate, whatever their order."""
    text = gate.gate
    for sign, words in _SIGNS.items():
        text = text.replace(sign, words)
    return _name(f"gate.{text}")


def _kept(gate: GateResult) -> float:
    return float(gate.status in ("pass", "inconclusive"))


def _name(text: str) -> str:
    return _NOT_IN_NAMES.sub("_", text)[:LONGEST_NAME]


def _text(value: Any) -> str:
    """A plain value on one line: texts as they are, all else as JSON, and so what cannot be printed."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def _without_credentials(text: str) -> str:
    return _CREDENTIALS.sub("//", text)


def _prepare_mlflow(uri: str) -> None:
    """Import MLflow, with the settings that it reads when it is imported, and see that it knows the store."""
    os.environ.update(NO_TELEMETRY)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "mlflow":
            raise
        raise UserError("MLflow is not installed; add it with: pip install mlflow-skinny") from error
    if uri.startswith(DATABASES) and find_spec("sqlalchemy") is None:
        raise UserError(
            f"{_without_credentials(uri)}: databases need the complete MLflow: pip install mlflow"
        )


@contextmanager
def _errors_of(uri: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"{uri}: MLflow needs more packages for this store ({error}); add them with: pip install mlflow"
        ) from error
    except Exception as error:  # the clients behind MLflow's stores share no base class of errors
        reason = "no server answers" if _is_silence(error) else _without_credentials(first_line(error))
        raise UserError(
            f"{uri}: the run could not be logged there: {reason}; see --tracking-uri and --experiment"
        ) from error


def _is_silence(error: BaseException | None) -> bool:
    """Whether an error comes of a server that cannot be reached, or that takes too long."""
    from requests import ConnectionError, Timeout

    if error is None or isinstance(error, (ConnectionError, Timeout)):
        return error is not None
    return _is_silence(error.__cause__ or error.__context__)


@contextmanager
def _ended(client: MlflowClient, run_id: str) -> Iterator[None]:
    """End a run as finished, or as failed if the block does not end well."""
    try:
        yield
    except BaseException:
        # What went wrong first is what people want to read.
        with suppress(Exception):
            client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")


def _log(client: MlflowClient, run_id: str, found: Tracked, files: list[tuple[Path, str]]) -> None:
    from mlflow.entities import Metric, Param, RunTag

    now = time.time_ns() // 10**6
    client.log_batch(
        run_id,
        metrics=[Metric(name, value, now, 0) for name, value in found.metrics.items()],
        params=[Param(name, value) for name, value in found.params.items()],
        tags=[RunTag(name, value) for name, value in found.tags.items()],
    )
    for file, folder in files:
        client.log_artifact(run_id, str(file), folder or None)
