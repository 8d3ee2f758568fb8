"""What people see of exports for TensorRT and Triton."""

import json
import os

import pytest
import torch

from cli import execute
from compressor.models.classifier import encoder_linears, load_classifier, save_classifier
from compressor.models.manifest import artifact_problems
from compressor.pruning.patterns import NM
from exporters import stage as artifact


@pytest.fixture(scope="module")
def groups_dir(small_classifier_dir, tmp_path_factory):
    """The small classifier, 2:4 by magnitude."""
    folder = tmp_path_factory.mktemp("groups") / "pruned"
    classifier = load_classifier(str(small_classifier_dir))
    with torch.no_grad():
        for linear in encoder_linears(classifier.model).values():
            linear.weight *= NM(2, 4).mask(linear.weight.abs())
    save_classifier(classifier, folder)
    return folder


@pytest.fixture(scope="module")
def tensorrt_dir(groups_dir, critic_quotes, tmp_path_factory):
    output = tmp_path_factory.mktemp("tensorrt") / "artifact"
    given = ["--data", str(critic_quotes / "test.tsv"), "--max-length", "48", "--parity-examples", "40"]
    assert execute(["export", str(groups_dir), *given, "--target", "tensorrt", "--output", str(output)]) == 0
    return output


def test_a_graph_for_tensorrt_is_half_precision_checked_and_comes_with_its_script(tensorrt_dir):
    manifest = json.loads((tensorrt_dir / "manifest.json").read_text())
    facts = manifest["tensorrt"]
    assert manifest["precision"] == "fp16"
    assert facts["passed"]
    assert "float16" in {check["name"] for check in facts["checks"]}
    # Six matrices in each of the two layers; not pooler, classifier and products of activations.
    assert facts["eligible_gemms"] == 12
    assert facts["profile"]["max_sequence"] == 512
    assert os.access(tensorrt_dir / "build_engine.sh", os.X_OK)
    assert artifact_problems(tensorrt_dir) == []


def test_checks_and_products_are_shown_as_tables(groups_dir, critic_quotes, tmp_path, capsys):
    given = ["--data", str(critic_quotes / "test.tsv"), "--max-length", "48", "--parity-examples", "8"]
    few = tmp_path / "few.tsv"
    few.write_text("".join((critic_quotes / "test.tsv").read_text().splitlines(keepends=True)[:49]))
    options = ["--target", "tensorrt", "--precision", "int8-static", "--calibration", str(few)]
    # Of 8 texts one that lies between the labels is an eighth.
    options += ["--parity-agreement", "0.75"]
    output = tmp_path / "artifact"
    assert execute(["export", str(groups_dir), *given, *options, "--output", str(output)]) == 0
    shown = capsys.readouterr().out
    assert "12 of 18 are 2:4 eligible" in shown
    assert "strong typing" in shown
    assert "float16" not in shown.split("Matrix multiplications")[0]
    assert f"{output / 'build_engine.sh'} ENGINE_DIRECTORY" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--precision", "int8"], "use int8-static"),
        (["--storage", "sparse"], "use storage dense"),
        ([f"--engine-lengths={length}" for length in (1, 64, 513)], "512 positions"),
        ([f"--engine-batch-sizes={size}" for size in (8, 4, 9)], "batch has min 8"),
    ],
)
def test_options_that_tensorrt_cannot_have_get_one_line_before_any_work(
    groups_dir, critic_quotes, tmp_path, capsys, monkeypatch, options, problem
):
    output = tmp_path / "artifact"
    given = ["--data", str(critic_quotes / "test.tsv"), "--max-length", "48", "--parity-examples", "8"]
    arguments = ["export", str(groups_dir), *given, "--target", "tensorrt", *options, "--output", str(output)]
    monkeypatch.setattr(artifact, "write_graph", None)
    assert execute(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert problem in error
    assert not output.exists()


def test_triton_tells_how_to_serve(small_artifact_dir, tmp_path, capsys):
    output = tmp_path / "repository"
    backends = ["--backends", "onnxruntime", "--backends", "tensorrt"]
    assert execute(["triton", str(small_artifact_dir), "--output", str(output), *backends]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"tritonserver --model-repository={output / 'models'}" in shown
    assert str(output / "models/classifier_tensorrt/1/model.plan") in shown
    assert artifact_problems(output) == []


def test_an_engines_build_is_read(tmp_path, capsys):
    log = (
        "&&&& RUNNING TensorRT.trtexec [TensorRT v101401] [b48] # trtexec --sparsity=enable\n"
        "[11/23/2026-10:00:00] [I] Selected Device: NVIDIA H100 80GB HBM3\n"
        "[11/23/2026-10:00:09] [V] [TRT] (Sparsity) Found 2 layer(s) eligible to use sparse tactics: a, b\n"
        "[11/23/2026-10:00:09] [V] [TRT] (Sparsity) Chose 1 layer(s) using sparse tactics: a\n"
        "[11/23/2026-10:00:12] [I] GPU Compute Time: min = 0.5 ms, max = 0.9 ms, mean = 0.6 ms, "
        "median = 0.55 ms, percentile(90%) = 0.7 ms, percentile(95%) = 0.75 ms, percentile(99%) = 0.8 ms\n"
        "&&&& PASSED TensorRT.trtexec [TensorRT v101401] [b48] # trtexec\n"
    )
    (tmp_path / "trtexec.log").write_text(log)
    assert execute(["engine", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "TensorRT 10.14.1" in shown
    assert "p90 0.7 ms" in shown
    (tmp_path / "trtexec.log").write_text(log.replace("&&&& PASSED", "[E] no memory\n&&&& FAILED"))
    assert execute(["engine", str(tmp_path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["errors"] == ["no memory"]
