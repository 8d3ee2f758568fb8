"""`compress inspect --against` as a person or a script meets it."""

import json
import os
import subprocess
import sys

from project import ROOT

from compressor.system.files import MARKER


def inspect(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli", "inspect", *map(str, arguments), "--device", "cpu"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100"},
        timeout=300,
    )


def test_table_record_and_plots_of_what_is_kept(
    small_classifier_dir, half_as_wide_dir, critic_quotes, tmp_path
):
    arguments = [
        half_as_wide_dir, "--against", small_classifier_dir, "--data", critic_quotes / "small.tsv",
        "--examples", "12", "--max-length", "24", "--sentence", "a fine film",
    ]  # fmt: skip
    result = inspect(*arguments, "--output", tmp_path / "out", "--json")
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts == json.loads((tmp_path / "out" / "inspection.json").read_text())
    assert facts["knowledge"]["sets"]["clean"]["texts"] == 12
    plots = {"cls-distance.svg", "reconstruction-error.svg", "attention.svg"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == plots | {"inspection.json", MARKER}

    result = inspect(*arguments)
    assert result.returncode == 0, result.stderr
    last = facts["knowledge"]["sets"]["clean"]["cls_distance"][-1]
    cells = [f"{last[key]:.4f}" for key in ("cosine", "relative_euclidean")]
    assert any(
        [cell.strip() for cell in line.split("│")][1:-1] == ["2", *cells]
        for line in result.stdout.splitlines()
    )
    assert "-: 2 linear layers are not compared, since the output widths differ" in result.stdout


def test_options_of_the_comparison_alone_name_the_way_out(small_classifier_dir, tmp_path):
    result = inspect(small_classifier_dir, "--attacked", tmp_path, "--output", tmp_path / "out")
    assert result.returncode == 2
    assert [line for line in result.stderr.splitlines() if line.startswith("error:")] == [
        "error: --attacked: is for the comparison with a dense model; name that model with --against DENSE"
    ]
    assert not (tmp_path / "out").exists()
