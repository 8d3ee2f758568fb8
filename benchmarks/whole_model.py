"""Time and peak memory of pruning a whole model of BERT's shape; random weights, so no accuracy.

    python -m benchmarks.whole_model [--shape base] [--solver fast] [--device auto] [--output FILE]

256 texts of 64 tokens. Each measurement has a process of its own; one that the output has already is
kept. The exact solver on a CPU takes days at these shapes and is worth asking for on a GPU only.
"""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers import BertConfig, BertForSequenceClassification

from benchmarks.alone import measured_alone
from benchmarks.results_file import RESULTS, markdown_table, write_result
from compressor.data.texts import TextData
from compressor.models.classifier import Classifier, load_tokenizer
from compressor.options import PruneConfig, RunConfig
from compressor.pruning.interface import PruningJob, prune_classifier
from compressor.system.assets import encoder_directory
from compressor.system.console import terminal_progress
from compressor.system.environment import describe_environment, prepare, resolve_device
from compressor.system.files import read_json

TEXTS = 256
TOKENS = 64
SPARSITY = 0.5


class Shape(StrEnum):
    """Published shapes."""

    MINI = "mini"
    BASE = "base"
    LARGE = "large"


SHAPES: dict[Shape, dict[str, int]] = {
    Shape.MINI: {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12},
    Shape.BASE: {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    Shape.LARGE: {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
}


def random_classifier(shape: Shape, layers: int | None, device: torch.device) -> Classifier:
    """A classifier of that shape with random weights and BERT's vocabulary, or of its first layers."""
    tokenizer = load_tokenizer(str(encoder_directory()))
    torch.manual_seed(0)
    sizes = SHAPES[shape] | ({"num_hidden_layers": layers} if layers else {})
    config = BertConfig(
        vocab_size=len(tokenizer), intermediate_size=4 * sizes["hidden_size"], num_labels=2, **sizes
    )
    return Classifier(BertForSequenceClassification(config).to(device).eval(), tokenizer, "random weights")


def random_texts(classifier: Classifier) -> TextData:
    """Texts of exactly `TOKENS` tokens."""
    words = sorted(word for word in classifier.tokenizer.get_vocab() if word.isascii() and word.isalpha())
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(words), (TEXTS, TOKENS - 2), generator=generator).tolist()
    texts = [" ".join(words[i] for i in row) for row in drawn]
    return TextData(texts, None, None, classifier.label_names, "random words")


def measure(shape: Shape, layers: int | None, solver: str, run: RunConfig) -> dict[str, Any]:
    """Seconds of pruning, and on CUDA the most memory that tensors took there."""
    prepare(run)
    device = resolve_device(run.device)
    classifier = random_classifier(shape, layers, device)
    config = PruneConfig.model_validate(
        {"calibration_examples": TEXTS, "sparsity": SPARSITY, "adaptive": {"solver": solver}}
    )
    job = PruningJob(config, TOKENS, run.seed)
    start = time.perf_counter()
    prune_classifier(classifier, random_texts(classifier), job, terminal_progress())
    seconds = time.perf_counter() - start
    figures = {
        "shape": shape.value,
        "layers": classifier.model.config.num_hidden_layers,
        "solver": solver,
        "device": device.type,
        "seconds": seconds,
    }
    if device.type == "cuda":
        figures["device_peak_mb"] = torch.cuda.max_memory_allocated() / 2**20
    return figures


def table(result: dict[str, Any]) -> str:
    """One line a measurement."""
    header = ["shape", "layers", "solver", "device", "seconds", "peak MB", "peak MB on the device"]
    return markdown_table(
        header,
        [
            [
                row["shape"],
                row["layers"],
                row["solver"],
                row["device"],
                f"{row['seconds']:.0f}",
                f"{row['peak_mb']:.0f}",
                f"{row['device_peak_mb']:.0f}" if "device_peak_mb" in row else "-",
            ]
            for row in result["rows"]
        ],
    )


def main(
    shape: Annotated[Shape, typer.Option(help="Shape to measure.")] = Shape.BASE,
    layers: Annotated[
        int | None, typer.Option(min=1, help="Encoder layers, if not all: each takes the same time.")
    ] = None,
    solver: Annotated[str, typer.Option(help="Solver to measure.")] = "fast",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    output: Annotated[Path, typer.Option(help="Result as JSON.")] = RESULTS / "whole_model.json",
    quick: Annotated[bool, typer.Option("--quick", help="MiniLM's shape in place of BERT's.")] = False,
) -> None:
    """Measure the pruning of whole models."""
    run = RunConfig.model_validate({"device": device})
    rows = read_json(output)["rows"] if output.is_file() else []
    result = {"texts": TEXTS, "tokens": TOKENS, "sparsity": SPARSITY, "rows": rows}
    shape = Shape.MINI if quick else shape
    wanted = (
        shape.value,
        layers or SHAPES[shape]["num_hidden_layers"],
        solver,
        resolve_device(run.device).type,
    )
    if wanted not in [tuple(row[key] for key in ("shape", "layers", "solver", "device")) for row in rows]:
        figures = measured_alone(measure, {"shape": shape, "layers": layers, "solver": solver, "run": run})
        rows.append(figures | {"environment": describe_environment(run)})
        write_result(output, result)
    print(table(result))


if __name__ == "__main__":
    typer.run(main)
