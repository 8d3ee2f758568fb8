"""Command lines run within this process: what they write, how they end, what they leave."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# A command takes a second at most where nothing is wrong; an export or a validation ten.
HANG_SECONDS = 60


def prepare_process(surroundings: Path) -> None:
    """Set what libraries read once, before any is imported: one thread, no network, caches of ours."""
    own = {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_HOME": str(surroundings / "hub"),
        "TOKENIZERS_PARALLELISM": "false",
        "COMPRESS_CACHE": str(surroundings / "cache"),
        "MPLCONFIGDIR": str(surroundings / "matplotlib"),
        "COLUMNS": "200",
    }
    os.environ.update(own)
    for name in ("hub", "cache", "matplotlib"):
        (surroundings / name).mkdir(parents=True, exist_ok=True)


def import_all(*, with_attacks: bool = True) -> None:
    """Import what commands import when they run, once for all processes that are forked from this one.

    Args:
        with_attacks: also what attacks and whole runs need, which takes seconds more.
    """
    names = (
        "cli", "scipy.io", "torch", "transformers", "datasets", "pandas", "pyarrow.parquet",
        "safetensors.torch",
        "transformers.models.bert.modeling_bert", "compressor.training.finetune_stage",
        "compressor.pruning.interface", "compressor.pruning.baselines", "compressor.pruning.adaptive.prune",
        "compressor.pruning.randomized.prune", "compressor.commands.tables",
        "compressor.commands.export_tables", "exporters.packed",
    )  # fmt: skip
    of_attacks = (
        "onnx", "onnxruntime", "compressor.inspection.stage", "compressor.pipeline.run",
        "compressor.pipeline.stage_runs", "compressor.pipeline.dry_run", "compressor.training.soup_stage",
        "compressor.attacks.stage", "compressor.attacks.perturb_stage", "compressor.validation.stage",
        "compressor.config.overrides", "exporters.stage", "exporters.triton.repository",
    )  # fmt: skip
    for name in (*names, *(of_attacks if with_attacks else ())):
        importlib.import_module(name)
    if with_attacks:
        from compressor.attacks.resources import import_textattack

        import_textattack()


class TimeLimitError(BaseException):
    """A command took longer than `HANG_SECONDS`; no handler of errors takes it for one."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise a `TimeLimitError` in the block after so many seconds; a timer that runs already goes on after
    it.
    """

    def stop(number: int, frame: object) -> None:
        raise TimeLimitError

    start = time.monotonic()
    handler = signal.signal(signal.SIGALRM, stop)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, max(0.01, left - (time.monotonic() - start)) if left else 0)


@contextlib.contextmanager
def captured() -> Iterator[Any]:
    """Collect what the block writes on stdout and stderr, libraries in C included, in two files."""
    with tempfile.TemporaryFile(dir="/tmp") as out, tempfile.TemporaryFile(dir="/tmp") as err:
        streams = sys.stdout, sys.stderr
        for stream in streams:
            stream.flush()
        kept = os.dup(1), os.dup(2)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        # Not pytest's, nor what an earlier command has put in their place.
        sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
        sys.stderr = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace")
        found = {"out": "", "err": ""}
        try:
            yield found
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.close()
            sys.stdout, sys.stderr = streams
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
                os.close(copy)
            for name, file in (("out", out), ("err", err)):
                file.seek(0)
                found[name] = file.read().decode("utf-8", "replace")


def run_in(folder: Path, arguments: Sequence[str]) -> tuple[int | None, str, str]:
    """Run a command line in a folder; return its exit code and what it wrote on stdout and stderr.

    The code is None where an exception escaped, whose traceback is then at the end of stderr.
    """

    import cli

    here = Path.cwd()
    os.chdir(folder)
    code: int | None = None
    escaped = ""
    try:
        with captured() as found, time_limit(HANG_SECONDS):
            try:
                code = cli.execute(list(arguments))
            except BaseException:
                escaped = traceback.format_exc()
    finally:
        os.chdir(here)
    return code, found["out"], found["err"] + escaped


@contextlib.contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def tree(folder: Path) -> dict[str, str]:
    """Every path below a folder, with a file's checksum, a link's target, or nothing for a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = ""
    return found
