"""`compress verify --run`, and the same from Python."""

import json
import subprocess
import sys

import pytest
from broken_artifacts import seal
from damaged_answers import REFERENCE, change_answers, change_weights, switch_case
from project import ROOT

import compressor
from cli import execute

ABSENT = ("torch", "transformers", "onnx", "datasets", "textattack", "scipy")


def test_a_host_that_gives_the_recorded_answers_is_proven(artifact, capsys):
    assert execute(["verify", str(artifact), "--run"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{artifact}: every file is as it was exported"
    assert second.startswith(f"{artifact}: ")
    assert "reference texts, logits differ from the recorded ones by up to" in second
    assert second.endswith(" s")


def test_it_needs_neither_pytorch_nor_transformers(artifact):
    script = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({ABSENT!r}))\n"
        "import cli\n"
        "sys.exit(cli.execute(['verify', sys.argv[1], '--run', '--json']))\n"
    )
    command = [sys.executable, "-c", script, str(artifact)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["ok"]
    assert found["host"]["differs"] == []


@pytest.mark.parametrize(
    ("change", "part", "file"),
    [
        (change_weights, "weights", "model.onnx"),
        (switch_case, "tokenizer", "tokenizer.json"),
        (lambda artifact: change_answers(artifact, 0.5), "kernels", "reference.json"),
    ],
    ids=["weights", "tokenizer", "kernels"],
)
def test_what_differs_is_named_by_its_hash_and_by_its_answers(artifact, capsys, change, part, file):
    change(artifact)
    assert execute(["verify", str(artifact), "--run", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["host"] is None
    (line,) = found["problems"]
    assert line.startswith(f"{artifact / file}: is not the file that was exported")
    seal(artifact)
    assert execute(["verify", str(artifact)]) == 0
    capsys.readouterr()
    assert execute(["verify", str(artifact), "--run"]) == 1
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert len(lines) == 3
    assert f": the {part} differ" in lines[0]
    assert printed.err.splitlines()[-1].endswith(
        f"{artifact}: does not give its recorded answers here ({part}); problems: 1"
    )


def test_an_artifact_from_before_says_so_in_a_line(artifact, capsys):
    (artifact / REFERENCE).unlink()
    seal(artifact)
    assert execute(["verify", str(artifact)]) == 0
    capsys.readouterr()
    assert execute(["verify", str(artifact), "--run"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: {artifact / REFERENCE}: no such file, so this host cannot be checked")
    assert line.endswith("export it again with: compress export")


def test_a_packed_classifier_has_nothing_to_run(made, tmp_path, capsys):
    assert execute(["pack", str(made / "dense"), "--output", str(tmp_path / "packed")]) == 0
    capsys.readouterr()
    assert execute(["verify", str(tmp_path / "packed"), "--run"]) == 2
    assert "is a packed classifier, which has no graph to run" in capsys.readouterr().err


def test_the_function_returns_what_the_command_prints(artifact, capsys):
    change_answers(artifact, 0.5)
    seal(artifact)
    record = compressor.verify(artifact, run=True)
    assert not record.ok
    assert record.host.differs == ["kernels"]
    assert execute(["verify", str(artifact), "--run", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["problems"] == record.problems
    assert printed["host"].keys() == record.model_dump()["host"].keys()
    assert "host" not in compressor.verify(artifact).model_dump()
