"""Some stages killed and started again, and the checks that judge what is left of them.

The whole campaign, hundreds of kills, is `python -m benchmarks.campaign_crash`.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
import typer
from project import ROOT

import cli
from benchmarks.campaign_crash import (
    FOREIGN,
    OUTPUT,
    STAGES,
    Workplace,
    differences,
    is_change,
    make_inputs,
    normalized,
    read_output,
    write_foreign,
)
from benchmarks.in_process import run_in, tree

KILLS, PAIRS = 6, 1
# The fastest ones that keep work.
FAST = ("finetune", "adaptive")


@pytest.mark.slow
def test_killed_stages_end_in_the_bytes_of_undisturbed_ones(tmp_path):
    output = tmp_path / "crash.json"
    command = [
        sys.executable,
        "-m",
        "benchmarks.campaign_crash",
        "--kills",
        str(KILLS),
        "--pairs",
        str(PAIRS),
    ]
    command += ["--no-foreign", "--stages", ",".join(FAST), "--seed", "1", "--output", str(output)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    rows = json.loads(output.read_text(encoding="utf-8"))["rows"] if output.is_file() else []
    failures = [
        "\n".join([f"{row['stage']}, {row['signal']} {row['moment']}", *row["faults"], row["output"]])
        for row in rows
        if row["faults"]
    ]
    assert not failures, "\n".join(failures)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert len(rows) == KILLS + PAIRS


@pytest.fixture
def place(tmp_path):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    (inputs / "data.tsv").write_text("text\tlabel\n", encoding="utf-8")
    workplace = Workplace(inputs, tmp_path / "place")
    workplace.lay_out()
    return workplace


def test_a_workplace_knows_what_is_not_its_own(place):
    assert not place.changed()
    assert not place.beside()
    (place.folder / ".out.x.partial").mkdir()
    (place.folder / "out.progress").mkdir()
    (place.output / "dense").mkdir(parents=True)
    (place.output / ".recipe.yaml.1.partial").write_text("", encoding="utf-8")
    assert place.beside() == [".out.x.partial"]
    assert place.within() == [f"{OUTPUT}/.recipe.yaml.1.partial"]
    assert place.kept() == ["out.progress"]
    assert not place.changed()
    (place.folder / FOREIGN / "manifest.json").unlink()
    (place.folder / "data.tsv").write_text("else", encoding="utf-8")
    assert place.changed() == ["data.tsv", f"{FOREIGN}/manifest.json"]
    place.lay_out()
    assert not place.changed()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    threads = torch.get_num_threads()
    make_inputs(folder, [])
    yield folder
    torch.set_num_threads(threads)


@pytest.mark.parametrize("stage", ["finetune", "adaptive", "attack", "run", "perturb"])
@pytest.mark.parametrize("flags", [(), ("--force",)], ids=["as it is", "with force"])
def test_a_folder_of_somebody_elses_is_refused_and_stays(inputs, tmp_path, stage, flags):
    place = Workplace(inputs, tmp_path / "place")
    place.lay_out()
    write_foreign(place.output)
    before = tree(place.folder)
    code, _, err = run_in(place.folder, [*STAGES[stage].arguments, "--output", OUTPUT, *flags])
    assert tree(place.folder) == before
    assert code == 2
    assert [line.partition(":")[0] for line in err.splitlines() if "error" in line] == ["error"], err


def test_results_are_compared_but_for_times(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    (first / "model.safetensors").write_bytes(b"\1\2")
    (first / "training.json").write_text(
        '{"steps": 3, "seconds": 1.5, "rows": [{"seconds": 2, "a": 1}]}', "utf-8"
    )
    (first / "report.md").write_text("p50: 1.25 ms, accuracy", encoding="utf-8")
    shutil.copytree(first, second)
    (second / "training.json").write_text(
        '{"steps": 3, "seconds": 9.5, "rows": [{"seconds": 1, "a": 1}]}', "utf-8"
    )
    (second / "report.md").write_text("p50: 27 ms, accuracy", encoding="utf-8")
    assert not differences(read_output(first), read_output(second))
    (second / "training.json").write_text(
        '{"steps": 4, "seconds": 9.5, "rows": [{"seconds": 1, "a": 1}]}', "utf-8"
    )
    (second / "model.safetensors").write_bytes(b"\1\3")
    (second / "more.txt").write_text("", encoding="utf-8")
    assert differences(read_output(first), read_output(second)) == [
        "model.safetensors",
        "more.txt",
        "training.json",
    ]


def test_plots_and_what_has_not_settled_are_no_difference():
    first, second = (
        normalized("report.html", f"<th>1 x 8{mark}</th><svg><g>{plot}</g>\n</svg><p>pass</p>".encode())
        for mark, plot in (
            (' <span class="status inconclusive">not settled</span>', "<t/>"),
            ("", "<t/><t/>"),
        )
    )
    assert first == second == b"<th>0 x 0</th><p>pass</p>"


def test_a_record_that_is_no_json_is_compared_as_it_is():
    assert normalized("a.json", b'{"seconds": 1') == b'{"seconds": 1'
    assert normalized("a.jsonl", b'{"seconds": 1}\n{"a": 2}\n') == b'{}\n{"a": 2}'


@pytest.mark.parametrize(
    ("event", "arguments", "counts"),
    [
        ("open", ("/place/out", "w", 0), True),
        ("open", ("out", None, os.O_WRONLY | os.O_CREAT), True),
        ("open", ("/place/data.tsv", "r", os.O_RDONLY), False),
        ("open", ("/elsewhere/out", "w", os.O_WRONLY), False),
        ("open", (3, "w", os.O_WRONLY), False),
        ("os.rename", ("/place/.out.partial", "/place/out", -1, -1), True),
        ("os.mkdir", ("/tmp/other", 0o777, -1), False),  # noqa: S108
        ("os.listdir", ("/place",), False),
    ],
)
def test_changes_of_the_file_system_are_counted(event, arguments, counts):
    assert bool(is_change(event, arguments, "/place")) == counts


@pytest.mark.parametrize("name", STAGES)
def test_each_stage_is_a_command_with_options_that_it_has(name):
    command, *arguments = [*STAGES[name].arguments, "--output", OUTPUT]
    typer.main.get_command(cli.app).commands[command].make_context(command, arguments)


def test_shares_of_stages_add_up():
    assert sum(stage.share for stage in STAGES.values()) == pytest.approx(1, abs=0.03)
