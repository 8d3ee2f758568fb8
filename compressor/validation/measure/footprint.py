"""Load time and memory of a variant, each measured in a process of its own."""

from __future__ import annotations

import time

from compressor.errors import UserError
from compressor.models.batching import Batch, pad
from compressor.models.loading import layout_of_source
from compressor.models.runtimes import loader_of
from compressor.options import RunConfig
from compressor.system.processes import ProcessEndedError, in_own_process, peak_memory_bytes
from compressor.validation.schema import FootprintFigures


def measure_footprint(directory: str, run: RunConfig, batch: Batch) -> FootprintFigures:
    """Load a variant in a fresh process and run it once.

    The libraries are imported before anything is measured, and the files come from the system's cache if
    they were read lately. On a GPU the memory is the host's.

    Args:
        directory: of the variant, or its hub id; an artifact's files were checked before.
        batch: the largest that is to be run, without padding.

    Raises:
        UserError: the process was ended from outside, as happens where memory is short.
    """
    rows = batch["input_ids"].tolist()
    try:
        return in_own_process(_measure, directory, run, rows)
    except ProcessEndedError as error:
        raise UserError(
            f"{directory}: cannot measure load time and memory: {error}; --no-footprint leaves these out"
        ) from error


def _measure(directory: str, run: RunConfig, rows: list[list[int]]) -> FootprintFigures:
    _import_libraries(directory)
    load = loader_of(directory, run)
    before = peak_memory_bytes()
    start = time.perf_counter()
    predictor = load()
    seconds = time.perf_counter() - start
    pad_token_id = int(predictor.tokenizer.pad_token_id)
    predictor.logits(pad([(row, [0] * len(row)) for row in rows], pad_token_id))
    # Linux keeps the peak only now and then, so a later reading may be a few pages less.
    peak = max(before, peak_memory_bytes())
    return FootprintFigures(
        load_seconds=round(seconds, 4),
        peak_memory_bytes=peak,
        model_memory_bytes=peak - before,
        batch_size=len(rows),
        sequence_length=len(rows[0]),
    )


def _import_libraries(directory: str) -> None:
    import onnxruntime  # noqa: F401
    from transformers import AutoTokenizer  # noqa: F401

    layout_of_source(directory).classifier_class()
