"""Commands that export, pack and verify."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compressor.commands.arguments import Force, Json, Model, Output
from compressor.commands.flags import section_flags
from compressor.commands.printing import print_result, results_only
from compressor.errors import GateFailed
from compressor.options import ColumnsConfig, ExportConfig, RunConfig, TritonConfig
from compressor.system.context import terminal_context

if TYPE_CHECKING:
    from compressor.models.manifest import VerifyRecord
    from exporters.records import ExportRecord


@section_flags
def export(
    model: Model,
    output: Output,
    options: ExportConfig,
    columns: ColumnsConfig,
    run: RunConfig,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Texts for the parity check; by default those that the model was made with.",
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            "--calibration",
            help="Texts that int8 is fitted to, never the test texts; by default those that the model was "
            "made with. Where they are not known, int8 takes some of --data that the parity check does not.",
        ),
    ] = None,
    reference_texts: Annotated[
        str | None,
        typer.Option(
            "--reference-texts",
            help="Texts whose token ids and logits go into the artifact, so that other hosts can be checked "
            "(verify --run): the first 32 of a file or hub id; by default made texts.",
        ),
    ] = None,
    vocabulary: Annotated[
        str | None,
        typer.Option(
            "--vocabulary",
            help="Texts of the task: file or hub id. Only the pieces of the vocabulary that they need are "
            "kept (--vocabulary-coverage); other words are spelled with shorter pieces. Attacks bring new "
            "words: robustness is that of the smaller vocabulary, so attack the artifact.",
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Export a classifier to ONNX and check its parity with PyTorch."""
    from compressor.models.preprocessing import WITHOUT_TRANSFORMERS
    from exporters.stage import export_directory
    from exporters.texts import ExportTexts

    context = terminal_context(output, columns, run, force=force)
    with results_only(as_json):
        sources = ExportTexts(calibration, reference_texts, vocabulary)
        record = export_directory(model, data, options, context, sources)
    print_result(as_json, record.model_dump(), _summary(record))
    reason = record.preprocessing["needs_transformers"]
    if reason is not None:
        print(f"warning: {output}: {reason}; {WITHOUT_TRANSFORMERS}", file=sys.stderr)
    if record.precision == "int8-dynamic":
        print(f"warning: {output}: {_dependence(record)}", file=sys.stderr)
    if record.tensorrt is not None and not as_json:
        from compressor.commands.export_tables import tensorrt_tables

        print_result(False, None, tensorrt_tables(record.tensorrt))
        script = output / record.tensorrt["script"]
        print_result(False, None, f"On the GPU that will serve it: {script} ENGINE_DIRECTORY")


def _dependence(record: ExportRecord) -> str:
    """One line on what an artifact's answers depend on besides the text."""
    found = record.invariance
    return (
        f"its answer to a text depends on the others in the batch: logits differ by up to "
        f"{found['worst_batch_shift']:.1e} between a text alone and in a batch of {found['batch_size']}; "
        f"--precision int8 does not have this"
    )


def _summary(record: ExportRecord) -> str:
    """One line on an artifact: what is in it, and how near it is to PyTorch."""
    parity, counts = record.parity, record.encoder_weights
    parts = [f"model.onnx, opset {record.opset}, {record.precision}"]
    if counts["graph"] < counts["model"]:
        parts[0] += f", {1 - counts['graph'] / counts['model']:.2%} of the encoder cut out"
    parts[0] += f", {record.sparsity:.2%} zeros in the encoder"
    if record.stored_sparsely:
        parts.append(f"{len(record.stored_sparsely)} matrices stored sparsely")
    if record.normalization is not None:
        share = record.normalization["other_tokens"]
        parts.append(f"text normalization changes the tokens of {share:.1%} of texts")
    if record.vocabulary is not None:
        pieces = record.vocabulary["pieces"]
        parts.append(f"{pieces['after']:,} of {pieces['before']:,} pieces of the vocabulary")
    same = ""
    if parity["label_agreement"] is not None:
        same = f" and {parity['label_agreement']:.1%} of labels the same"
    elif parity["variance_kept"] is not None:
        same = f" and {parity['variance_kept']:.1%} of their variance kept"
    parts.append(
        f"logits within {parity['max_difference']:.1e} of PyTorch's{same} on {parity['examples']} texts"
    )
    if parity["accuracy"] is not None and record.precision != "fp32":
        parts.append(f"accuracy there {parity['reference_accuracy']:.2%}, now {parity['accuracy']:.2%}")
    return "; ".join([*parts, f"artifact in {record.path}"])


def pack(
    model: Annotated[
        Path, typer.Argument(help="Directory of a classifier with safetensors weights.", show_default=False)
    ],
    output: Output,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Pack a pruned classifier losslessly: a bitmask and the nonzero weights."""
    from exporters.packed import pack_directory

    record = pack_directory(model, output, force=force)
    own, whole = record.packed_tensors_bytes, record.weights_bytes
    left_out = f"; left out: {', '.join(record.left_out)}" if record.left_out else ""
    print_result(
        as_json,
        record.model_dump(),
        f"{record.packed_tensors} tensors: {own['before'] / 1e6:.1f} MB to {own['after'] / 1e6:.1f}; "
        f"all weights from {whole['before'] / 1e6:.1f} MB to {whole['after'] / 1e6:.1f}; "
        f"packed in {output}{left_out}",
    )


def unpack(
    packed: Annotated[Path, typer.Argument(help="Directory from `compress pack`.", show_default=False)],
    output: Output,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Restore a packed classifier, bit for bit the same."""
    from exporters.packed import unpack_directory

    record = unpack_directory(packed, output, force=force)
    print_result(
        as_json, record.model_dump(), f"{record.tensors} tensors, as they were packed; classifier in {output}"
    )


def verify(
    artifact: Annotated[
        Path,
        typer.Argument(help="Directory of an exported artifact or a packed classifier.", show_default=False),
    ],
    run: Annotated[
        bool,
        typer.Option(
            "--run",
            help="Also run the artifact's reference texts on this machine, in seconds and without PyTorch: "
            "token ids must be equal and logits within the recorded tolerance.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check every file of an artifact against its manifest, and with --run its answers on this machine."""
    record: VerifyRecord
    host, differs = None, "is not what was exported"
    if run:
        from compressor.models.host_verification import verify_host

        with results_only(as_json):
            record = ran = verify_host(artifact)
        host = ran.host
    else:
        from compressor.models.manifest import verify_directory

        record = verify_directory(artifact)
    lines = [*record.problems]
    if record.ok or host is not None:
        lines.append(f"{artifact}: every file is as it was exported")
    if host is not None:
        lines.append(f"{artifact}: {host.summary}")
        differs = f"does not give its recorded answers here ({', '.join(host.differs)})"
    print_result(as_json, record.model_dump(), "\n".join(lines))
    if not record.ok:
        raise GateFailed(f"{artifact}: {differs}; problems: {len(record.problems)}")


@section_flags
def triton(
    artifact: Annotated[Path, typer.Argument(help="Directory of the exported artifact.", show_default=False)],
    output: Output,
    options: TritonConfig,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Create a model repository for Triton Inference Server from an artifact, and a client."""
    from exporters.triton.repository import CLIENT, REPOSITORY, write_repository

    with results_only(as_json):
        manifest = write_repository(artifact, output, options, force=force)
    lines = [
        f"{name}: built by build_engine.sh, the engine goes to {output / facts['engine']['path']}"
        for name, facts in manifest["models"].items()
        if "engine" in facts
    ]
    lines.append(f"Serve: tritonserver --model-repository={output / REPOSITORY}; client: {output / CLIENT}")
    print_result(as_json, manifest, "\n".join(lines))


def engine(
    directory: Annotated[
        Path, typer.Argument(help="Output directory of build_engine.sh.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Report the TensorRT engine of a graph: sparse kernels, latency; exit code 1 if its build failed."""
    from dataclasses import asdict

    from compressor.commands.export_tables import engine_table
    from exporters.tensorrt.engine_log import read_build

    build = read_build(directory)
    print_result(as_json, asdict(build), "" if as_json else engine_table(build))
    if not build.passed:
        raise GateFailed(f"{directory}: the engine was not built: {'; '.join(build.errors[:1])}")
