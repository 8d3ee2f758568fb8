"""Kill a search at random moments, start it again each time, and hold its outcome against one left alone.

    python -m benchmarks.search_killed FOLDER [--kills 10] [--output FILE] -- SEARCH OPTIONS

SEARCH OPTIONS are those of `compress search` without `--output`; give `--latency-tables`, so that both
searches prune for the same times. Killed is the whole process group, with SIGKILL.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.results_file import RESULTS, write_result
from compressor.models.classifier import weights_fingerprint
from compressor.options import RunConfig
from compressor.search.candidates import candidates_folder
from compressor.search.record import SearchRecord, read_search
from compressor.system.environment import describe_environment

SEED = 0
# Of the time of the search left alone, the longest that one is left to run before it is killed.
LONGEST_SHARE = 0.3


def start(options: list[str], output: Path) -> subprocess.Popen[bytes]:
    """Start a search in a process group of its own."""
    command = [sys.executable, "-m", "cli", "search", *options, "--output", str(output)]
    return subprocess.Popen(command, start_new_session=True)


def decided(record: SearchRecord) -> dict[str, Any]:
    """What may not depend on where a search was stopped: all but times, and gates on times."""
    folder = candidates_folder(record.path)
    return {
        "chosen": record.chosen,
        "targets": [one.target for one in record.candidates],
        "widths": [[own.model_dump() for own in one.widths] for one in record.candidates],
        "weights": [
            one.pruned and weights_fingerprint(str(folder / one.pruned)) for one in record.candidates
        ],
        "accuracies": [one.accuracy for one in record.candidates],
        "sizes": [one.size_bytes for one in record.candidates],
        "test": record.test_figures and record.test_figures.artifact.accuracy,
    }


def killed(options: list[str], output: Path, kills: int, longest: float) -> tuple[list[float], int]:
    """Run a search that is killed so many times; the seconds of each try, and the last exit code."""
    generator = random.Random(SEED)
    seconds: list[float] = []
    while True:
        began, process = time.monotonic(), start(options, output)
        try:
            left = generator.uniform(0, longest) if len(seconds) < kills else None
            code = process.wait(left)
            seconds.append(time.monotonic() - began)
            return seconds, code
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            seconds.append(time.monotonic() - began)


def main(
    folder: Annotated[Path, typer.Argument(help="Folder for both searches; must not be there.")],
    options: Annotated[list[str], typer.Argument(help="Options of compress search, behind --.")],
    kills: Annotated[int, typer.Option(help="How often the search is killed.")] = 10,
    output: Annotated[Path, typer.Option(help="File of the result.")] = RESULTS / "search_killed.json",
) -> None:
    """Compare a search that was killed again and again with one that was left alone."""
    folder.mkdir(parents=True)
    began = time.monotonic()
    code = start(options, folder / "alone").wait()
    alone_seconds = time.monotonic() - began
    alone = decided(read_search(folder / "alone"))
    seconds, last = killed(options, folder / "killed", kills, LONGEST_SHARE * alone_seconds)
    found = decided(read_search(folder / "killed"))
    same = {key: alone[key] == found[key] for key in alone}
    result = {
        "environment": describe_environment(RunConfig()),
        "alone_seconds": alone_seconds,
        "killed_seconds": seconds,
        "exit_codes": [code, last],
        "same": same,
        "alone": alone,
        "killed": found,
    }
    write_result(output, result)
    print(f"alone: {alone_seconds:.0f} s, exit code {code}")
    print(f"killed {len(seconds) - 1} times: {sum(seconds):.0f} s, exit code {last}; same: {same}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    typer.run(main)
