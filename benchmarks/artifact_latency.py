"""Latency of artifacts against the dense model in PyTorch and in ONNX Runtime, and against OpenVINO.

    python -m benchmarks.artifact_latency FOLDER [--shape mini] [--quick] [--output FILE]

Random weights in the shape of a published model: this is about time alone. All variants have the same
number of threads and are timed in turn in every round, so that a drift of the machine cancels between them.
Graphs are kept in FOLDER.

The rival in ONNX Runtime is the dense model as PyTorch's exporter writes it; all other graphs have the forms
that `compress export` gives them, "dense, exported" too.
"""

from __future__ import annotations

import copy
import shutil
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers import BertForSequenceClassification

from benchmarks.results_file import RESULTS, markdown_table, write_result
from benchmarks.whole_model import Shape, random_classifier, random_texts
from compressor.models.artifact_files import ARTIFACT_GRAPH
from compressor.models.batching import Encoded, encode
from compressor.models.classifier import Classifier, encoder_linears
from compressor.models.openvino import OpenVinoPredictor
from compressor.models.predictors import OnnxPredictor, Predictor, TorchPredictor
from compressor.models.structure import remove_heads, remove_neurons, set_neuron_count
from compressor.options import ExportConfig, RunConfig
from compressor.pruning.patterns import NM, Unstructured
from compressor.system.console import SilentProgress, terminal_progress
from compressor.system.environment import describe_environment, prepare, thread_count
from compressor.validation.measure.latency import LatencyPlan, measure_latency
from exporters.graph_forms import calibrate, write_graph
from exporters.mixed import quantize_all
from exporters.onnx import export_graph

MAX_LENGTH = 64
CALIBRATION_TEXTS = 16
DENSE_TORCH, DENSE_ORT = "dense, PyTorch", "dense, ONNX Runtime"
MASKED: dict[str, Unstructured | NM] = {
    "unstructured 50 %": Unstructured(0.5),
    "unstructured 90 %": Unstructured(0.9),
    "2:4": NM(2, 4),
}
STRUCTURED = {"structured 25 %": 0.25, "structured 50 %": 0.5, "structured 75 %": 0.75}
# The form of int8 that OpenVINO runs as integers and ONNX Runtime as float32.
FOR_OPENVINO = "int8 for OpenVINO"
IN_OPENVINO = ("dense", "dense, int8-static", "structured 50 %", "structured 50 %, int8-static")


def with_eager_attention(classifier: Classifier) -> Classifier:
    """A copy as the export wants it, with every operation of the attention its own."""
    config = copy.deepcopy(classifier.model.config)
    config._attn_implementation = "eager"
    model = BertForSequenceClassification(config).eval()
    model.load_state_dict(classifier.model.state_dict())
    return Classifier(model, classifier.tokenizer, classifier.source)


def masked(classifier: Classifier, pattern: Unstructured | NM) -> Classifier:
    """A copy with zeros of that pattern, by magnitude."""
    pruned = copy.deepcopy(classifier)
    with torch.no_grad():
        for linear in encoder_linears(pruned.model).values():
            linear.weight *= pattern.mask(linear.weight.abs())
    return pruned


def narrowed(classifier: Classifier, share: float) -> Classifier:
    """A copy that has lost that share of its heads and neurons."""
    pruned = copy.deepcopy(classifier)
    config = pruned.model.config
    heads, neurons = round(share * config.num_attention_heads), round(share * config.intermediate_size)
    for index in range(config.num_hidden_layers):
        remove_heads(pruned.model, index, range(heads))
        remove_neurons(pruned.model, index, range(neurons))
    set_neuron_count(pruned.model)
    return pruned


def options_of(name: str) -> ExportConfig:
    """The options of an export that make a variant; its name may end with a form of int8."""
    if name.endswith(FOR_OPENVINO):
        return ExportConfig(precision="int8", runtime="openvino")
    form = name.rpartition(" ")[2]
    return ExportConfig(precision=form if form.startswith("int8") else "fp32")


def artifact(folder: Path, name: str, classifier: Classifier, texts: list[Encoded]) -> Path:
    """The directory of a variant's graph, made if it is not there; its name may end with a form of int8."""
    directory = folder / "".join(letter if letter.isalnum() else "-" for letter in name)
    graph = directory / ARTIFACT_GRAPH
    if graph.is_file():
        return directory
    terminal_progress().log(f"Exporting {name}")
    directory.mkdir(parents=True, exist_ok=True)
    classifier.model.config.save_pretrained(directory)
    classifier.tokenizer.save_pretrained(directory)
    unfinished = directory / "unfinished.onnx"
    if name == "dense":
        export_graph(classifier, unfinished)
    else:
        config = options_of(name)
        calibration = calibrate(classifier, texts, config, 0, SilentProgress())
        write_graph(classifier, unfinished, config, calibration, partial(quantize_all, config))
    shutil.move(unfinished, graph)
    return directory


def variants(
    shape: Shape, folder: Path, threads: int, only: str
) -> tuple[dict[str, Predictor], list[Encoded]]:
    """All that is timed, by name, the dense model first; and texts to time it on.

    Args:
        only: part of the names of those that are timed beside the two rivals.
    """
    dense = random_classifier(shape, None, torch.device("cpu"))
    texts = encode(dense.tokenizer, random_texts(dense).sample(CALIBRATION_TEXTS, 0), MAX_LENGTH)
    eager = with_eager_attention(dense)
    models = {"dense": eager, "dense, exported": eager}
    models |= {f"dense, {form}": eager for form in ("int8", "int8-dynamic", "int8-static", FOR_OPENVINO)}
    models |= {name: masked(eager, pattern) for name, pattern in MASKED.items()}
    for name, share in STRUCTURED.items():
        models[name] = models[f"{name}, int8"] = narrowed(eager, share)
    for form in ("int8-dynamic", "int8-static", FOR_OPENVINO):
        models[f"structured 50 %, {form}"] = models["structured 50 %"]
    models = {name: model for name, model in models.items() if name == "dense" or only in name}
    made = {name: artifact(folder / shape, name, model, texts) for name, model in models.items()}
    predictors: dict[str, Predictor] = {DENSE_TORCH: TorchPredictor(dense)}
    for name, directory in made.items():
        if name.endswith(FOR_OPENVINO):
            predictors[name] = OpenVinoPredictor(directory, threads)
        else:
            predictors[DENSE_ORT if name == "dense" else name] = OnnxPredictor(
                directory, threads, spinning=True
            )
        if name in IN_OPENVINO:
            predictors[f"{name}, OpenVINO"] = OpenVinoPredictor(directory, threads)
    return predictors, texts


def table(result: dict[str, Any]) -> str:
    """Median milliseconds a variant and shape, the times that the dense PyTorch model takes, and ORT."""
    rows = result["rows"]
    shapes = [(figures["batch_size"], figures["sequence_length"]) for figures in rows[0]["latency"]]
    header = [
        "variant",
        *(f"{size} x {length}" for size, length in shapes),
        "faster than PyTorch",
        "than ORT",
    ]
    lines = []
    for row in rows:
        cells = [f"{f['p50_ms']:.1f} (p95 {f['p95_ms']:.1f})" for f in row["latency"]]
        lines.append(
            [row["variant"], *cells, _times(row["faster"][DENSE_TORCH]), _times(row["faster"][DENSE_ORT])]
        )
    return markdown_table(header, lines)


# A shape takes a fraction of that; on a busy machine it ends here.
SECONDS_A_SHAPE = 600.0


def _times(ratios: list[float]) -> str:
    return f"{min(ratios):.1f}-{max(ratios):.1f}x"


def main(
    folder: Annotated[Path, typer.Argument(help="Folder for the graphs.")],
    shape: Annotated[Shape, typer.Option(help="Shape of the model.")] = Shape.MINI,
    rounds: Annotated[int, typer.Option(help="Timed runs of each variant and shape, at least.")] = 15,
    threads: Annotated[int, typer.Option(help="Threads of every variant; 0 takes all cores.")] = 0,
    only: Annotated[str, typer.Option(help="Time the variants whose name has this, and the rivals.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Batch 1 alone, 3 rounds.")] = False,
    output: Annotated[Path | None, typer.Option(help="Result as JSON.")] = None,
) -> None:
    """Measure the latency of artifacts."""
    run = RunConfig(device="cpu", threads=threads)
    prepare(run)
    predictors, texts = variants(shape, folder, thread_count(run), only)
    sizes, rounds = ([1], 3) if quick else ([1, 8, 32], rounds)
    shapes = [(size, length) for size in sizes for length in (32, 128)]
    plan = LatencyPlan(shapes, rounds, seconds=SECONDS_A_SHAPE)
    latency = measure_latency(predictors, dict.fromkeys(predictors, texts), plan, terminal_progress())
    environment = describe_environment(run)
    medians = {name: [figures.p50_ms for figures in own] for name, own in latency.items()}
    rows = []
    for name, own in latency.items():
        faster = {
            rival: [
                round(theirs / ours, 3) for theirs, ours in zip(medians[rival], medians[name], strict=True)
            ]
            for rival in (DENSE_TORCH, DENSE_ORT)
        }
        rows.append({"variant": name, "latency": [figures.model_dump() for figures in own], "faster": faster})
    result = {"environment": environment, "shape": shape, "rows": rows}
    write_result(output or RESULTS / f"artifact_latency_{shape}.json", result)
    print(table(result))


if __name__ == "__main__":
    typer.run(main)
