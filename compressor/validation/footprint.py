"""Load time and memory of a variant, each measured in a process of its own."""

from __future__ import annotations

import multiprocessing
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from compressor.batching import Batch, pad
from compressor.environment import prepare
from compressor.errors import UserError
from compressor.options import RunConfig
from compressor.validation.report import FootprintFigures
from compressor.validation.variants import load_predictor

_STATUS = Path("/proc/self/status")


def measure_footprint(name: str, directory: str, run: RunConfig, batch: Batch) -> FootprintFigures:
    """Load a variant in a fresh process and run it once.

    The libraries are imported before anything is measured, and the files come from the system's cache if
    they were read lately. On a GPU the memory is the host's.

    Args:
        name: of the variant, which tells what runs it.
        batch: the largest that is to be run, without padding.

    Raises:
        UserError: the process was ended from outside, as happens where memory is short.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    rows = batch["input_ids"].tolist()
    process = context.Process(target=_report, args=(sender, name, directory, run, rows), daemon=True)
    process.start()
    # This process's copy; else the pipe would stay open when the other process ends.
    sender.close()
    try:
        found: FootprintFigures = receiver.recv()
    except EOFError as error:
        process.join()
        raise UserError(
            f"{directory}: the process that measures load time and memory ended with code "
            f"{process.exitcode}; is memory short? --no-footprint leaves these figures out"
        ) from error
    process.join()
    return found


def peak_memory_bytes() -> int:
    """The most memory that this process has had resident."""
    if _STATUS.is_file():
        # Not getrusage: a process that was started by a large one begins with that one's peak there.
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _report(sender: Connection, name: str, directory: str, run: RunConfig, rows: list[list[int]]) -> None:
    _import_libraries()
    device = prepare(run)
    before = peak_memory_bytes()
    start = time.perf_counter()
    predictor = load_predictor(name, directory, run, device)
    seconds = time.perf_counter() - start
    pad_token_id = int(predictor.tokenizer.pad_token_id)
    predictor.logits(pad([(row, [0] * len(row)) for row in rows], pad_token_id))
    peak = peak_memory_bytes()
    sender.send(
        FootprintFigures(
            load_seconds=round(seconds, 4),
            peak_memory_bytes=peak,
            model_memory_bytes=peak - before,
            batch_size=len(rows),
            sequence_length=len(rows[0]),
        )
    )


def _import_libraries() -> None:
    import onnxruntime  # noqa: F401
    from transformers import AutoTokenizer, BertForSequenceClassification  # noqa: F401
