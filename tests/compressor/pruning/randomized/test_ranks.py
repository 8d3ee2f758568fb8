"""Candidates shared out by torchrun: the same model as from one process."""

import json
import os
import subprocess
import sys

import pytest
from project import ROOT

from cli import execute
from compressor.system.files import read_json
from compressor.system.ranks import Ranks


@pytest.fixture(scope="module")
def arguments(small_classifier_dir, critic_quotes, tmp_path_factory):
    lines = (critic_quotes / "small.tsv").read_text(encoding="utf-8").splitlines()[:161]
    data = tmp_path_factory.mktemp("texts") / "few.tsv"
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = {
        "--calibration": data,
        "--max-length": 32,
        "--device": "cpu",
        "--threads": 1,
        "--steps": 2,
        "--candidates": 3,
        "--early-steps": 1,
        "--recovery-steps": 2,
        "--holdout-examples": 32,
        "--batch-size": 16,
    }
    given = ["prune", str(small_classifier_dir), "--algorithm", "randomized", "--halving"]
    return given + [str(part) for option in options.items() for part in option]


@pytest.mark.timeout(300)
def test_two_ranks_choose_and_recover_as_one_process_does(arguments, tmp_path):
    def prune(output, *launcher):
        process = subprocess.run(
            [sys.executable, "-m", *launcher, "cli", *arguments, "--json", "--output", str(output)],
            cwd=ROOT,
            # As torchrun sets it: the last digits of a sum depend on how it is shared out among threads.
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            check=True,
        )
        return json.loads(process.stdout)

    prune(tmp_path / "one")
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    told = prune(tmp_path / "two", *torchrun)
    one, two = (read_json(tmp_path / name / "pruning.json") for name in ("one", "two"))
    assert told["details"] == one["details"] == two["details"]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}


def test_what_has_nothing_to_share_is_not_shared_out(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    given = [part if part != "randomized" else "magnitude" for part in arguments]
    assert execute([*given, "--output", str(tmp_path / "out")]) == 2
    assert "nothing that torchrun could share out" in capsys.readouterr().err


def test_alone_all_is_ones_own():
    alone = Ranks()
    assert alone.is_first
    assert alone.share({"a": 1.0}) == {"a": 1.0}
    alone.wait()
