"""What is logged of a report, and that it comes back from MLflow's own store."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_reports import judged, make_report, make_report_of_several, robustness, variant
from project import ROOT

import cli
from compressor.config.recipe import load_recipe, recipe_values
from compressor.models.manifest import write_manifest
from compressor.pipeline import mlflow as tracking
from compressor.pipeline.mlflow import DEFAULTS, NO_TELEMETRY, read_source, tracked
from compressor.system.files import sha256_of
from compressor.validation.schema import Variants

REPORT = make_report()
# As MLflow has it for every system.
ALLOWED = re.compile(r"[/\w.\- ]{1,250}")
RECIPE = """
model: dense
data: {calibration: train.tsv, test: test.tsv}
prune: {pattern: "2:4", sparsity: 0.5}
validate: {gates: [accuracy_drop <= 0.01], batch_sizes: [1, 8]}
"""


@pytest.fixture(autouse=True)
def own_settings(monkeypatch):
    """Settings that logging leaves in the environment are taken back."""
    for name in (*NO_TELEMETRY, *DEFAULTS, "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def run_folder(tmp_path):
    """The folder of a run, with an artifact of a few bytes."""
    folder = tmp_path / "run"
    artifact = folder / "artifact"
    (artifact / "more").mkdir(parents=True)
    (artifact / "model.onnx").write_bytes(b"graph")
    (artifact / "more" / "notes.txt").write_text("listed")
    (artifact / "bom.cdx.json").write_text("{}")
    parity = {"examples": 4, "max_difference": 1e-6}
    lineage = {"model": "pruned", "weights_sha256": "ab" * 32}
    write_manifest(artifact, {"labels": ["fresh", "rotten"], "parity": parity, "lineage": lineage})
    (artifact / "own.txt").write_text("not listed")
    report = make_report(environment={"device": "cpu", "data": {"fingerprint": "cd" * 32}})
    (folder / "report.json").write_text(report.model_dump_json())
    (folder / "report.html").write_text("<p>fail</p>")
    (folder / "report.md").write_text("# fail")
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


def logged(run_folder, capsys, *options):
    """The run as MLflow reads it back from `store` beside the folder, and what the command printed."""
    from mlflow import MlflowClient

    store = run_folder.parent / "store"
    assert cli.execute(["track", str(run_folder), "--tracking-uri", str(store), "--json", *options]) == 0
    printed = json.loads(capsys.readouterr().out)
    client = MlflowClient(tracking_uri=str(store))
    return client.get_run(printed["run_id"]), printed, client


def files_of(client, run_id, folder=None):
    found = client.list_artifacts(run_id, folder)
    inner = [name for entry in found if entry.is_dir for name in files_of(client, run_id, entry.path)]
    return sorted([entry.path for entry in found if not entry.is_dir] + inner)


def test_a_run_comes_back_as_it_was_logged(run_folder, capsys):
    run, printed, client = logged(run_folder, capsys)
    expected = tracked(
        read_source(run_folder).report, recipe_values(load_recipe(run_folder / "recipe.yaml")), "ab" * 32
    )
    assert run.data.metrics == expected.metrics
    assert run.data.params == expected.params
    assert expected.tags.items() <= run.data.tags.items()
    assert run.data.metrics["artifact.latency_p50.8x128"] == REPORT.variants.artifact.latency[3].p50_ms
    assert run.data.params["prune.pattern"] == "2:4"
    assert run.data.params["validate.batch_sizes"] == "[1, 8]"
    assert run.data.tags["weights_sha256"] == "ab" * 32
    assert run.data.tags["data_fingerprint"] == "cd" * 32
    assert run.info.status == "FINISHED"
    assert run.info.run_name == printed["run_name"] == "run"
    assert client.get_experiment(run.info.experiment_id).name == "compress"


def test_the_artifact_itself_is_logged_if_asked_for(run_folder, capsys, tmp_path):
    run, _, client = logged(run_folder, capsys, "--experiment", "mine", "--run-name", "first")
    reports = ["recipe.yaml", "report.html", "report.json", "report.md"]
    assert files_of(client, run.info.run_id) == ["artifact/bom.cdx.json", "artifact/manifest.json", *reports]
    assert run.info.run_name == "first"
    whole, _, _ = logged(run_folder, capsys, "--experiment", "mine", "--with-artifact")
    inner = ["bom.cdx.json", "manifest.json", "model.onnx", "more/notes.txt"]
    assert files_of(client, whole.info.run_id) == [*(f"artifact/{name}" for name in inner), *reports]
    copy = client.download_artifacts(whole.info.run_id, "artifact/model.onnx", str(tmp_path))
    assert sha256_of(Path(copy)) == sha256_of(run_folder / "artifact" / "model.onnx")
    assert whole.info.experiment_id == run.info.experiment_id


def test_a_report_of_another_name_stands_alone(run_folder):
    baseline = (run_folder / "report.json").rename(run_folder / "baseline.json")
    source = read_source(baseline)
    assert (source.files, source.recipe, source.weights_sha256) == ([(baseline, "")], None, None)


def test_figures_that_were_not_measured_are_left_out():
    dense = variant("dense", footprint=None, robustness=robustness(0.0, rate=None))
    pruned = variant("pruned", dense=dense)
    report = make_report(variants=Variants(dense=dense, pruned=pruned, artifact=pruned))
    metrics = tracked(report).metrics
    assert {"artifact.load_seconds", "artifact.attack_success_rate"} <= metrics.keys()
    lacks = {"dense.load_seconds", "dense.attack_success_rate", "artifact.attack_success_rate_rise"}
    assert not lacks & metrics.keys()
    assert "dense.accuracy_drop" not in metrics
    assert metrics["pruned.accuracy"] == 0.92


def test_figures_of_several_attacks_are_logged_by_attack_and_for_all():
    metrics = tracked(make_report_of_several()).metrics
    assert metrics["artifact.accuracy_under_attack.pwws"] == 0.3
    assert metrics["artifact.accuracy_under_attack_drop.pruthi"] == pytest.approx(0.02)
    assert metrics["artifact.accuracy_under_all_attacks"] == 0.23
    assert metrics["dense.accuracy_under_all_attacks.low"] < 0.35
    assert "artifact.accuracy_under_attack" not in metrics
    assert not any("all_attacks" in name for name in tracked(REPORT).metrics)


def gate(text, status):
    return judged("size_mb", "<= 0.3", 1.0, status).model_copy(update={"gate": text})


def test_gates_are_one_or_zero():
    gates = [
        judged("sparsity", ">= 0.4", 0.5, "pass"),
        judged("accuracy", ">= 0.9", 0.92, "inconclusive"),
        judged("accuracy_drop", "<= 0.01", 0.02, "fail"),
        gate("warn: size_mb <= 0.001 * dense + 0.3", "warn"),
    ]
    found = tracked(make_report(gates=gates))
    named = {name: value for name, value in found.metrics.items() if name.startswith("gate.")}
    assert named == {
        "gate.sparsity at least 0.4": 1,
        "gate.accuracy at least 0.9": 1,
        "gate.accuracy_drop at most 0.01": 0,
        "gate.warn size_mb at most 0.001 times dense plus 0.3": 0,
    }
    assert found.tags["gate.accuracy_drop at most 0.01"].startswith("fail: accuracy_drop is 0.02")
    assert found.tags["verdict"] == "fail"


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.text(max_size=300),
        st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.lists(st.text(), max_size=3)),
        max_size=4,
    ),
    st.text(max_size=300),
)
def test_names_are_what_mlflow_allows_and_values_fit(environment, text):
    found = tracked(REPORT.model_copy(update={"environment": environment, "gates": [gate(text, "pass")]}))
    for name in (*found.params, *found.metrics, *found.tags):
        assert ALLOWED.fullmatch(name)
    assert all(value.isprintable() and len(value) <= 6000 for value in found.params.values())
    assert {"seed", "task_metric"} <= found.params.keys()


def test_long_values_are_cut():
    found = tracked(make_report(), {"validate": {"gates": ["x" * 7000]}})
    assert len(found.params["validate.gates"]) == 6000
    assert found.params["validate.gates"].endswith("x...")


def test_without_mlflow_one_line_says_what_to_install(run_folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert cli.execute(["track", str(run_folder)]) == 2
    error = capsys.readouterr().err
    assert error == "error: MLflow is not installed; add it with: pip install mlflow-skinny\n"


def test_a_server_that_is_not_there_is_one_line_without_the_password(run_folder, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = f"http://me:secret@127.0.0.1:{port}"
    assert cli.execute(["track", str(run_folder), "--tracking-uri", place]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: http://127.0.0.1:{port}: the run could not be logged there: no server")
    assert error.count("\n") == 1
    assert "secret" not in error


def test_a_database_without_its_packages_is_one_line(run_folder, capsys, monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    assert cli.execute(["track", str(run_folder), "--tracking-uri", "sqlite:///runs.db"]) == 2
    assert "pip install mlflow" in capsys.readouterr().err


def test_a_run_that_could_not_be_logged_whole_is_marked_as_failed(run_folder, capsys, monkeypatch):
    from mlflow import MlflowClient

    def refuse(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(MlflowClient, "log_artifact", refuse)
    store = run_folder.parent / "store"
    assert cli.execute(["track", str(run_folder), "--tracking-uri", str(store)]) == 2
    assert "the disk is full" in capsys.readouterr().err
    client = MlflowClient(tracking_uri=str(store))
    (run,) = client.search_runs([client.get_experiment_by_name("compress").experiment_id])
    assert run.info.status == "FAILED"


@pytest.mark.parametrize("name", ["recipe.yaml", "artifact/model.onnx"])
def test_what_is_broken_beside_the_report_is_named(run_folder, capsys, name):
    (run_folder / name).write_text("broken")
    assert cli.execute(["track", str(run_folder)]) == 2
    assert name in capsys.readouterr().err


def test_an_artifact_that_is_not_there_cannot_be_logged(run_folder, capsys):
    (run_folder / "artifact").rename(run_folder / "elsewhere")
    assert cli.execute(["track", str(run_folder), "--with-artifact"]) == 2
    assert "leave out --with-artifact" in capsys.readouterr().err


def test_a_local_run_opens_no_connection_and_sends_no_telemetry(run_folder):
    """In a process of its own: MLflow's telemetry is off under pytest and in CI anyway."""
    program = (
        "import socket, sys\n"
        "def refuse(*_): print('connection'); raise OSError\n"
        "socket.socket.connect = socket.socket.connect_ex = refuse\n"
        "import cli\n"
        f"code = cli.execute(['track', {str(run_folder)!r}])\n"
        "from mlflow.telemetry import get_telemetry_client\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled\n"
        "print(code, get_telemetry_client(), is_telemetry_disabled())\n"
    )
    # Neither of the variables by which MLflow knows a test or a CI job.
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=run_folder.parent,
        env=kept | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert lines[-1] == "0 None True"
    assert "connection" not in lines
    assert (run_folder.parent / "mlruns").is_dir()
