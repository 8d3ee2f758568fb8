"""Does an artifact's answer to a text depend on the batch, and how near is it to PyTorch's?

    python -m benchmarks.batch_invariance MODEL TEXTS CALIBRATION [--quick] [--output FILE]

The forms of int8 beside fp32, on the same texts: labels equal to those of the fp32 graph, accuracy, and each
text alone against the same in batches of 16, in three shuffles.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.results_file import RESULTS, markdown_table, write_result
from compressor.data.texts import TextData, load_text_data
from compressor.models.artifact_files import ARTIFACT_GRAPH
from compressor.models.batching import Encoded, encode
from compressor.models.classifier import Classifier, load_classifier
from compressor.models.invariance import measure_invariance
from compressor.models.openvino import OpenVinoPredictor
from compressor.models.predictors import OnnxPredictor, predict_encoded
from compressor.options import ColumnsConfig, ExportConfig, RunConfig
from compressor.system.console import terminal_progress
from compressor.system.environment import describe_environment, prepare, thread_count
from exporters.graph_forms import calibrate, write_graph
from exporters.mixed import divergence, quantize_all
from exporters.shrink import shrink

# Those that end with OpenVINO run there, all others in ONNX Runtime.
FORMS = (
    "fp32",
    "int8",
    "int8, nearest",
    "int8, 7-bit weights",
    "int8, nearest, 7-bit weights",
    "int8-dynamic",
    "int8-static",
    "fp32, OpenVINO",
    "int8, OpenVINO",
    "int8-static, OpenVINO",
)
CALIBRATION_TEXTS = 256
QUICK_TEXTS = 64


def options_of(form: str) -> ExportConfig:
    """The options of an export that make a form of `FORMS`."""
    options: dict[str, Any] = {"precision": form.split(",")[0]}
    if form.endswith("OpenVINO"):
        options["runtime"] = "openvino"
    if "nearest" in form:
        options["rounding"] = "nearest"
    if "7-bit" in form:
        options["weight_bits"] = 7
    return ExportConfig.model_validate(options)


def graph_of(form: str, classifier: Classifier, folder: Path, fitted_on: list[Encoded]) -> Path:
    """The directory of the classifier's graph in a form of `FORMS`."""
    directory = folder / form.replace(" ", "-")
    directory.mkdir()
    classifier.model.config.save_pretrained(directory)
    classifier.tokenizer.save_pretrained(directory)
    config = options_of(form)
    calibration = calibrate(classifier, fitted_on, config, 0, terminal_progress())
    write_graph(classifier, directory / ARTIFACT_GRAPH, config, calibration, partial(quantize_all, config))
    return directory


def rows(
    classifier: Classifier,
    data: TextData,
    encoded: list[Encoded],
    fitted_on: list[Encoded],
    forms: Sequence[str],
    threads: int,
) -> list[dict[str, Any]]:
    """One row a form; the first one is fp32."""
    found: list[dict[str, Any]] = []
    labels = np.array(data.class_labels)
    logits: NDArray[np.float32] | None = None
    with tempfile.TemporaryDirectory() as folder:
        for form in forms:
            directory = graph_of(form, classifier, Path(folder), fitted_on)
            runtime = OpenVinoPredictor if form.endswith("OpenVINO") else OnnxPredictor
            together, alone = runtime(directory, threads), runtime(directory, 1)
            own = predict_encoded(together, encoded, 64, terminal_progress(), form)
            answers = own.argmax(axis=1)
            if logits is None:
                logits = own
            found.append(
                {
                    "form": form,
                    "size_mb": (directory / ARTIFACT_GRAPH).stat().st_size / 1e6,
                    "accuracy": float((answers == labels).mean()),
                    "labels_as_fp32": float((answers == logits.argmax(axis=1)).mean()),
                    "divergence": divergence(logits, own),
                    **asdict(measure_invariance(alone, together, encoded, seed=0)),
                }
            )
    return found


def main(
    model: Annotated[str, typer.Argument(help="A fine-tuned classifier, dense or pruned.")],
    texts: Annotated[str, typer.Argument(help="File of labelled test texts.")],
    calibration: Annotated[str, typer.Argument(help="File of the texts that int8-static is fitted on.")],
    max_length: Annotated[int, typer.Option(help="Longest input in tokens.")] = 128,
    only: Annotated[
        list[str] | None, typer.Option(help="Form to compare with fp32; repeat it. By default all.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Result as JSON.")] = RESULTS / "batch_invariance.json",
    quick: Annotated[bool, typer.Option("--quick", help=f"{QUICK_TEXTS} texts.")] = False,
) -> None:
    """Compare the answers of int8 graphs with those of fp32, and in batches with those alone."""
    run = RunConfig(device="cpu")
    prepare(run)
    columns = ColumnsConfig(max_length=max_length)
    classifier = load_classifier(model, "cpu", attention="eager")
    names = classifier.label_names
    data = load_text_data(texts, columns, "test", label_names=names)
    data = data.select(range(QUICK_TEXTS)) if quick else data
    fitted = load_text_data(calibration, columns, "calibration", label_names=names, needs_labels=False)
    fitted_on = encode(classifier.tokenizer, fitted.sample(CALIBRATION_TEXTS, run.seed), max_length)
    encoded = encode(classifier.tokenizer, data, max_length)
    forms = FORMS if only is None else [FORMS[0], *only]
    found = rows(shrink(classifier), data, encoded, fitted_on, forms, thread_count(run))
    result = {"environment": describe_environment(run), "texts": len(data), "rows": found}
    write_result(output, result)
    header = (
        "form",
        "MB",
        "accuracy",
        "labels as fp32",
        "divergence from fp32",
        "labels changed in a batch",
        "largest shift of a logit",
    )
    print(
        markdown_table(
            header,
            [
                (
                    row["form"],
                    f"{row['size_mb']:.1f}",
                    f"{row['accuracy']:.2%}",
                    f"{row['labels_as_fp32']:.2%}",
                    f"{row['divergence']:.1e}",
                    f"{row['batch_disagreement']:.2%}",
                    f"{row['worst_batch_shift']:.1e}",
                )
                for row in found
            ],
        )
    )


if __name__ == "__main__":
    typer.run(main)
