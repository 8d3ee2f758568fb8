"""The profile, the script that builds an engine, and NVIDIA's own readers of the same graph."""

import hashlib
import json
import shutil
import stat
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from compressor.errors import UserError
from exporters.tensorrt.checks import static_checks
from exporters.tensorrt.engine_log import BUILD_LOG, ENGINE, GRAPH_DIGEST, LAYER_INFO
from exporters.tensorrt.profile import Profile
from exporters.tensorrt.script import BUILD_SCRIPT, build_script, prepare
from exporters.tensorrt.sparse_gemms import sparse_gemms

# Programs that development dependencies bring.
TOOLS = Path(sys.executable).parent
POSITIONS = 64
INPUTS = ("input_ids", "attention_mask", "token_type_ids")

# Writes down its arguments and makes the files that it is asked for.
FAKE_TRTEXEC = """#!/usr/bin/env bash
printf '%s\\n' "$@" >"$ARGUMENTS"
for argument in "$@"; do
    case $argument in
        --saveEngine=*) [[ -n ${NO_ENGINE:-} ]] || printf engine >"${argument#*=}" ;;
        --exportLayerInfo=*) printf '{"Layers": []}' >"${argument#*=}" ;;
    esac
done
echo '[I] (Sparsity) Chose 3 layer(s) using sparse tactics'
echo '[I] Throughput: 12.5 qps'
echo '[V] Throughput: explained'
[[ -z ${BROKEN:-} ]] || { echo '[E] Failed to parse onnx file' >&2; exit 3; }
"""


@pytest.fixture
def artifact(tmp_path, half_graph_path, half_graph, profile):
    """A directory with a graph and its script; its name needs quoting."""
    folder = tmp_path / "my artifact's $(folder)"
    folder.mkdir()
    shutil.copyfile(half_graph_path, folder / "model.onnx")
    prepare(folder, half_graph, profile, POSITIONS)
    return folder


@pytest.fixture
def build(artifact, tmp_path):
    """A function that runs the script in another directory; returns the process and trtexec's arguments."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "trtexec").write_text(FAKE_TRTEXEC)
    (tools / "trtexec").chmod(0o755)
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()

    def run(*arguments, path=f"{tools}:/usr/bin:/bin", **environment):
        done = subprocess.run(
            [artifact / BUILD_SCRIPT, *arguments],
            cwd=elsewhere,
            env={"PATH": path, "ARGUMENTS": str(tmp_path / "arguments"), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        file = tmp_path / "arguments"
        return done, file.read_text().splitlines() if file.is_file() else None

    run.elsewhere, run.tools = elsewhere, tools
    return run


@pytest.mark.parametrize(
    "change",
    [{"min_batch": 0}, {"min_batch": 9}, {"opt_batch": 33}, {"min_sequence": 33}, {"opt_sequence": 65}],
)
def test_a_profile_that_does_not_rise_is_an_error(profile, change):
    (field,) = change
    with pytest.raises(UserError, match=rf"profile: {field.split('_')[1]} has min .* must rise from 1"):
        replace(profile, **change)


def test_a_profile_may_be_one_shape_and_reach_the_last_position():
    fixed = Profile(4, 4, 4, POSITIONS, POSITIONS, POSITIONS)
    assert fixed.problem(POSITIONS) is None
    assert "lower it" in fixed.problem(POSITIONS - 1)


def test_a_profile_in_trtexecs_words(profile):
    assert profile.arguments(["input_ids", "attention_mask"]) == [
        "--minShapes=input_ids:1x1,attention_mask:1x1",
        "--optShapes=input_ids:8x32,attention_mask:8x32",
        "--maxShapes=input_ids:32x64,attention_mask:32x64",
    ]


def test_facts_are_json_and_say_what_the_checks_say(artifact, half_graph, profile):
    facts = prepare(artifact, half_graph, profile, POSITIONS)
    assert json.loads(json.dumps(facts, allow_nan=False)) == json.loads(json.dumps(facts))
    checks = static_checks(half_graph, profile, POSITIONS)
    assert [(c["name"], c["status"], c["note"]) for c in facts["checks"]] == [
        (check.name, check.status, check.note) for check in checks
    ]
    assert facts["passed"] is True
    assert facts["gemms"] == [asdict(row) for row in sparse_gemms(half_graph)]
    assert facts["eligible_gemms"] == 11
    assert facts["profile"] == asdict(profile)
    assert facts["script"] == BUILD_SCRIPT


def test_failed_checks_are_facts_with_every_place(artifact, half_graph, profile):
    half_graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8
    half_graph.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 8
    facts = prepare(artifact, half_graph, profile, POSITIONS)
    assert facts["passed"] is False
    inputs = next(check for check in facts["checks"] if check["name"] == "inputs")
    assert inputs["status"] == "fail"
    assert inputs["findings"][:2] == [
        {"where": name, "reason": "axis 0 is fixed at 8"} for name in ("input_ids", "attention_mask")
    ]


def test_a_graph_that_is_no_onnx_has_failed_checks_and_no_gemms(tmp_path, half_graph, profile):
    half_graph.graph.node[0].ClearField("input")
    facts = prepare(tmp_path, half_graph, profile, POSITIONS)
    assert facts["passed"] is False
    assert facts["checks"][0]["status"] == "fail"
    assert facts["gemms"] == []


def test_a_profile_too_long_for_the_model_is_an_error_and_writes_nothing(tmp_path, half_graph, profile):
    with pytest.raises(UserError, match="max_sequence 64 is more than the 48 positions of the model"):
        prepare(tmp_path, half_graph, profile, 48)
    assert not any(tmp_path.iterdir())


def test_trtexec_gets_exactly_these_arguments(build, artifact):
    done, arguments = build("out put")
    assert done.returncode == 0, done.stderr
    shapes = {"min": "1x1", "opt": "8x32", "max": "32x64"}
    assert arguments == [
        f"--onnx={artifact}/model.onnx",
        f"--saveEngine=out put/{ENGINE}",
        "--stronglyTyped",
        "--sparsity=enable",
        *(f"--{bound}Shapes={','.join(f'{n}:{shape}' for n in INPUTS)}" for bound, shape in shapes.items()),
        "--profilingVerbosity=detailed",
        "--dumpLayerInfo",
        f"--exportLayerInfo=out put/{LAYER_INFO}",
        "--useCudaGraph",
        "--noDataTransfers",
        "--useSpinWait",
        "--verbose",
    ]
    output = build.elsewhere / "out put"
    assert {path.name for path in output.iterdir()} == {ENGINE, BUILD_LOG, LAYER_INFO, GRAPH_DIGEST}
    graph = hashlib.sha256((artifact / "model.onnx").read_bytes()).hexdigest()
    assert (output / GRAPH_DIGEST).read_text() == f"{graph}\n"
    assert "(Sparsity) Chose 3" in (output / BUILD_LOG).read_text()
    assert "Chose 3 layer(s)" in done.stdout
    assert "12.5 qps" in done.stdout
    assert "explained" not in done.stdout
    assert {path.name for path in artifact.iterdir()} == {"model.onnx", BUILD_SCRIPT}


def test_the_engine_goes_to_the_current_directory_and_further_options_to_trtexec(build):
    done, arguments = build()
    assert done.returncode == 0, done.stderr
    assert (build.elsewhere / "engine" / ENGINE).is_file()
    assert arguments[-1] == "--verbose"
    done, arguments = build("engine", "--memPoolSize=workspace:2 G", "--device=1")
    assert done.returncode == 0, done.stderr
    assert arguments[-2:] == ["--memPoolSize=workspace:2 G", "--device=1"]


@pytest.mark.parametrize("option", ["--sparsity=force", "--sparsity=disable"])
def test_sparsity_cannot_be_forced_or_left_out(build, option):
    done, arguments = build("engine", option)
    assert done.returncode == 2
    assert option in done.stderr
    assert arguments is None


def test_another_trtexec_can_be_named(build, tmp_path):
    own = tmp_path / "own trtexec"
    shutil.move(build.tools / "trtexec", own)
    done, arguments = build(TRTEXEC=str(own))
    assert done.returncode == 0, done.stderr
    assert arguments is not None


def test_a_missing_trtexec_is_named_with_the_way_out(build):
    (build.tools / "trtexec").unlink()
    done, arguments = build()
    assert done.returncode == 2
    assert done.stderr.startswith("build_engine.sh: trtexec: not found; TensorRT brings it")
    assert "TRTEXEC" in done.stderr
    assert done.stderr.count("\n") == 1
    assert arguments is None
    assert not any(build.elsewhere.iterdir())


def test_a_missing_graph_is_named(build, artifact):
    (artifact / "model.onnx").unlink()
    done, _ = build()
    assert done.returncode == 2
    assert f"{artifact}/model.onnx: no such file" in done.stderr


def test_a_failed_build_shows_the_errors_and_leaves_no_old_engine(build):
    assert build()[0].returncode == 0
    done, _ = build(BROKEN="1", NO_ENGINE="1")
    assert done.returncode == 1
    assert "[E] Failed to parse onnx file" in done.stderr
    assert f"the whole log is engine/{BUILD_LOG}" in done.stderr
    assert not (build.elsewhere / "engine" / ENGINE).exists()
    assert "[E]" in (build.elsewhere / "engine" / BUILD_LOG).read_text()


def test_a_build_that_writes_no_engine_is_a_failure(build):
    done, _ = build(NO_ENGINE="1")
    assert done.returncode == 1
    assert "wrote no engine" in done.stderr


def test_the_script_is_executable_and_sound_bash(artifact):
    script = artifact / BUILD_SCRIPT
    assert script.stat().st_mode & stat.S_IXUSR
    subprocess.run(["bash", "-n", script], check=True)
    subprocess.run([TOOLS / "shellcheck", script], check=True)


def test_odd_names_do_not_become_commands(tmp_path, profile):
    script = tmp_path / "odd.sh"
    script.write_text(build_script("my $(touch hacked) model.onnx", profile, ["a`b`", "c'd"]))
    subprocess.run(["bash", "-n", script], check=True)
    done = subprocess.run(["bash", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert f"{tmp_path}/my $(touch hacked) model.onnx: no such file" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"odd.sh"}
    assert "'--minShapes=a`b`:1x1,c'\"'\"'d:1x1'" in script.read_text()


def test_graphsurgeon_reads_the_same_graph(half_graph, profile):
    import onnx_graphsurgeon

    graph = onnx_graphsurgeon.import_onnx(half_graph)
    assert [node.name for node in graph.nodes] == [node.name for node in half_graph.graph.node]
    assert [(entry.name, entry.dtype) for entry in graph.inputs] == [(name, "int64") for name in INPUTS]
    tensors = graph.tensors()
    used = {name for node in half_graph.graph.node for name in node.input}
    weights = {entry.name: entry for entry in half_graph.graph.initializer if entry.name in used}
    held = {name: t for name, t in tensors.items() if isinstance(t, onnx_graphsurgeon.Constant)}
    assert set(held) == set(weights)
    rows = {row.weight: row for row in sparse_gemms(half_graph) if row.weight}
    for name, row in rows.items():
        zeros = float((held[name].values == 0).mean())
        assert row.sparsity == pytest.approx(zeros), name
        assert row.k * row.n == held[name].values.size
    before = [node.name for node in graph.nodes]
    graph.cleanup().toposort()
    assert sorted(node.name for node in graph.nodes) == sorted(before)
    exported = onnx_graphsurgeon.export_onnx(graph)
    assert {check.status for check in static_checks(exported, profile, POSITIONS)} == {"pass"}
    assert {row.node: row for row in sparse_gemms(exported)} == {
        row.node: row for row in sparse_gemms(half_graph)
    }


def test_polygraphy_lints_loads_and_infers_the_same_graph(half_graph_path, half_graph, tmp_path):
    from polygraphy.backend.onnx import infer_shapes, onnx_from_path

    inferred = infer_shapes(onnx_from_path(str(half_graph_path)))
    assert [node.name for node in inferred.graph.node] == [node.name for node in half_graph.graph.node]
    report = tmp_path / "lint.json"
    subprocess.run(
        [TOOLS / "polygraphy", "check", "lint", half_graph_path, "--input-shapes",
         *(f"{name}:[2,7]" for name in INPUTS), "-o", report],
        check=True, capture_output=True,
    )  # fmt: skip
    found = json.loads(report.read_text())
    assert found["lint_entries"] == []
    assert set(found["summary"]["passing"]) == {node.name for node in half_graph.graph.node}
