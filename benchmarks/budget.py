"""What candidates cost: time of a pruning step by their number, and candidates a minute by processes.

    python -m benchmarks.budget DENSE TRAIN [--output FILE] [--quick]

Without early evaluation each candidate is recovered in full before it is scored. One and two processes
(torchrun) have one thread each; a candidate's time is the difference between runs of few and of many
candidates, so that start, data and recovery cancel.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.experiment import MAX_LENGTH, Dense, Output, Train
from benchmarks.results_file import RESULTS, markdown_table, write_result
from compressor.options import RunConfig
from compressor.system.environment import describe_environment, prepare

RECOVERY_STEPS = 60
EARLY_STEPS = 6
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]


def seconds(
    dense: str, train: str, candidates: int, early_steps: int, recovery_steps: int, processes: int
) -> float:
    """Wall time of one pruning step to 75 %, from the start of the process to its end."""
    options = {
        "--calibration": train,
        "--max-length": MAX_LENGTH,
        "--sparsity": 0.75,
        "--steps": 1,
        "--candidates": candidates,
        "--early-steps": early_steps,
        "--recovery-steps": recovery_steps,
        "--threads": 1,
        "--device": "cpu",
    }
    given = [str(part) for option in options.items() for part in option]
    launcher = TORCHRUN if processes > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        output = ["--output", str(Path(folder) / "pruned")]
        command = [sys.executable, "-m", *launcher, "cli", "prune", dense, "--algorithm", "randomized"]
        start = time.perf_counter()
        subprocess.run(
            [*command, *given, *output],
            env=os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return round(time.perf_counter() - start, 2)


def table(result: dict[str, Any]) -> str:
    """The two tables."""
    steps = [[row["candidates"], row["early"], row["in full"]] for row in result["steps"]]
    by_processes = [
        [
            row["processes"],
            f"{row['a_minute']:.1f}",
            f"{row['a_minute'] / result['processes'][0]['a_minute']:.2f}",
        ]
        for row in result["processes"]
    ]
    first = markdown_table(["candidates", "seconds, scored early", "seconds, each recovered in full"], steps)
    second = markdown_table(["processes, one thread each", "candidates a minute", "times one"], by_processes)
    return f"{first}\n\n{second}"


def main(
    dense: Dense,
    train: Train,
    output: Output = RESULTS / "budget.json",
    quick: Annotated[bool, typer.Option("--quick", help="One and two candidates only.")] = False,
) -> None:
    """Time candidates."""
    options = RunConfig(threads=1)
    prepare(options)
    counts = (1, 2) if quick else (1, 2, 4)
    few, many = (2, 4) if quick else (2, 10)
    result: dict[str, Any] = {
        "environment": describe_environment(options),
        "early_steps": EARLY_STEPS,
        "recovery_steps": RECOVERY_STEPS,
        "steps": [],
        "processes": [],
    }
    for count in counts:
        row: dict[str, Any] = {
            "candidates": count,
            "early": seconds(dense, train, count, EARLY_STEPS, RECOVERY_STEPS, 1),
        }
        # What is scored has been recovered, so the winner's recovery is left out.
        row["in full"] = seconds(dense, train, count, RECOVERY_STEPS, 0, 1)
        result["steps"].append(row)
        write_result(output, result)
    for processes in (1, 2):
        times = [seconds(dense, train, count, EARLY_STEPS, 0, processes) for count in (few, many)]
        a_minute = 60 * (many - few) / (times[1] - times[0])
        row = {"processes": processes, "candidates": [few, many], "seconds": times, "a_minute": a_minute}
        result["processes"].append(row)
        write_result(output, result)
    print(table(result))


if __name__ == "__main__":
    typer.run(main)
