"""Memory of a pruning against the number of calibration texts; random weights, so no accuracy.

    python -m benchmarks.calibration_memory [--layers 2] [--threads 1] [--quick] [--output FILE]

Texts of 128 tokens and of somewhat fewer, so that there is padding, on MiniLM's shape. Each measurement has a
process of its own. Two figures are taken of it: the most memory it has had resident, libraries and the pages
of files that it maps included (Linux's VmHWM), and the most that was its own (RssAnon, read every 5 ms). The
hidden states, whose size grows with the texts, are in a temporary file that is read and written and not
mapped; what the system keeps of that file in its cache it gives back where memory is short, unless the folder
is one in memory (tmpfs).
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.alone import measured_alone
from benchmarks.results_file import RESULTS, markdown_table, write_result
from benchmarks.whole_model import SHAPES, Shape, random_classifier
from compressor.data.texts import TextData
from compressor.options import PruneConfig, RunConfig
from compressor.pruning.interface import PruningJob, prune_classifier
from compressor.system.console import terminal_progress
from compressor.system.environment import describe_environment, prepare

TEXTS = (256, 1024, 4096)
QUICK_TEXTS = (64, 256)
TOKENS = 128
SPARSITY = 0.5
STATUS = Path("/proc/self/status")


class OwnMemory:
    """The most of its own memory that this process had while the block ran, in MiB; None but on Linux."""

    def __enter__(self) -> OwnMemory:
        self.peak_mb: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while STATUS.is_file() and not self._ended.wait(0.005):
            line = next(line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon"))
            self.peak_mb = max(self.peak_mb or 0.0, int(line.split()[1]) / 1024)


def random_texts(count: int, tokenizer: Any, label_names: list[str]) -> TextData:
    """Texts of 128 tokens, and every fourth of 120."""
    words = sorted(word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha())
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(words), (count, TOKENS - 2), generator=generator).tolist()
    texts = [" ".join(words[i] for i in row[: None if n % 4 else -8]) for n, row in enumerate(drawn)]
    return TextData(texts, None, None, label_names, "random words")


def measure(texts: int, layers: int, run: RunConfig) -> dict[str, Any]:
    """Seconds of a pruning, its own memory at the peak, and the bytes of the hidden states of both models."""
    device = prepare(run)
    classifier = random_classifier(Shape.MINI, layers, device)
    config = PruneConfig.model_validate(
        {"calibration_examples": texts, "sparsity": SPARSITY, "adaptive": {"calibration_tokens": 0}}
    )
    job = PruningJob(config, TOKENS, run.seed)
    data = random_texts(texts, classifier.tokenizer, classifier.label_names)
    start = time.perf_counter()
    with OwnMemory() as memory:
        prune_classifier(classifier, data, job, terminal_progress())
    return {
        "texts": texts,
        "layers": layers,
        "seconds": time.perf_counter() - start,
        "own_peak_mb": memory.peak_mb,
        "states_mb": 2 * texts * TOKENS * SHAPES[Shape.MINI]["hidden_size"] * 4 / 2**20,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """One line a number of texts."""
    return markdown_table(
        ["texts", "seconds", "peak MB", "of it its own", "states on disk, MB"],
        [
            [
                f"{row['texts']:,}",
                f"{row['seconds']:.0f}",
                f"{row['peak_mb']:.0f}",
                "-" if row["own_peak_mb"] is None else f"{row['own_peak_mb']:.0f}",
                f"{row['states_mb']:,.0f}",
            ]
            for row in rows
        ],
    )


def main(
    layers: Annotated[int, typer.Option(min=1, help="Encoder layers: each takes the same.")] = 2,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each process.")] = 1,
    output: Annotated[Path, typer.Option(help="Result as JSON.")] = RESULTS / "calibration_memory.json",
    quick: Annotated[bool, typer.Option("--quick", help="One layer, 64 and 256 texts.")] = False,
) -> None:
    """Measure the memory of prunings with more and more calibration texts."""
    run = RunConfig(device="cpu", threads=threads)
    layers = 1 if quick else layers
    rows = []
    for texts in QUICK_TEXTS if quick else TEXTS:
        rows.append(measured_alone(measure, {"texts": texts, "layers": layers, "run": run}))
        print(table(rows[-1:]))
    growth = max(row["peak_mb"] for row in rows) / rows[0]["peak_mb"] - 1
    result = {"tokens": TOKENS, "sparsity": SPARSITY, "growth": growth, "rows": rows}
    write_result(output, result | {"environment": describe_environment(run)})
    print(table(rows))
    print(f"The peak grows by {growth:.1%}")


if __name__ == "__main__":
    typer.run(main)
