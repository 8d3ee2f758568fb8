"""A model repository for Triton Inference Server, and a client for it, made from an exported artifact.

    OUTPUT/models/NAME/config.pbtxt, labels.txt, VERSION/model.onnx, or model.xml and model.bin
    OUTPUT/client/client.py, tokenizer.json, labels.txt
    OUTPUT/manifest.json

Triton takes every folder of a repository for a model, so the repository is `OUTPUT/models` and all else is
beside it. `OUTPUT/client` is all that a machine with texts needs.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import onnx
from google.protobuf.message import DecodeError

from compressor.display.pages import page_templates
from compressor.errors import UserError, first_line
from compressor.models.artifact_files import (
    ARTIFACT_GRAPH,
    ARTIFACT_IR,
    ARTIFACT_IR_WEIGHTS,
    EXPORT_AGAIN,
)
from compressor.models.encoders.inputs import INPUTS
from compressor.models.loading import layout_of_source
from compressor.models.manifest import MANIFEST, read_manifest, runtime_name, write_manifest
from compressor.models.preprocessing import (
    TOKENIZER,
    load_backend,
    read_preprocessing,
    set_padding,
    set_truncation,
)
from compressor.options import TritonConfig
from compressor.options.export import BackendName
from compressor.system.files import atomic_directory, claims_output, read_json
from exporters.onnx_graph import inputs as free_inputs

REPOSITORY = "models"
CLIENT = "client"
CONFIG = "config.pbtxt"
LABELS = "labels.txt"
DATA_TYPES: dict[int, str] = {
    onnx.TensorProto.INT64: "TYPE_INT64",
    onnx.TensorProto.INT32: "TYPE_INT32",
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.FLOAT16: "TYPE_FP16",
}


@dataclass(frozen=True)
class Tensor:
    """An input or output as Triton's configuration states it.

    Attributes:
        data_type: such as TYPE_INT64.
        dims: sizes without the batch axis; -1 is any.
    """

    name: str
    data_type: str
    dims: list[int]


@dataclass(frozen=True)
class Backend:
    """What Triton runs a model with.

    Attributes:
        files: of a version of the model, that which Triton opens first.
        is_built: whether they are built on the serving machine, not copied from the artifact.
        platform: Triton's name for the form of the model; None where it knows none.
        threads: parameter that takes the number of threads; None where there is none.
        parameters: others, with their values.
        batches: whether requests can share a batch.
        kind: of its instances; None takes that of the options.
    """

    files: tuple[str, ...]
    is_built: bool = False
    platform: str | None = None
    threads: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    batches: bool = True
    kind: str | None = None


BACKENDS: dict[BackendName, Backend] = {
    "onnxruntime": Backend((ARTIFACT_GRAPH,), platform="onnxruntime_onnx", threads="intra_op_thread_count"),
    # With a maximum batch size, its backend computes so many texts for every request.
    "openvino": Backend(
        (ARTIFACT_IR, ARTIFACT_IR_WEIGHTS),
        threads="INFERENCE_NUM_THREADS",
        parameters={"PERFORMANCE_HINT": "LATENCY"},
        batches=False,
        kind="cpu",
    ),
    "tensorrt": Backend(("model.plan",), is_built=True, platform="tensorrt_plan", kind="gpu"),
}


class Lengths(NamedTuple):
    """Tokens of the inputs that are served.

    Attributes:
        cut: longest before padding; what is longer is cut.
        shortest: least that an input is padded to.
        longest: what an input of `cut` is padded to.
    """

    cut: int
    shortest: int
    longest: int


class Signature(NamedTuple):
    """What goes into a graph and what comes out."""

    inputs: list[Tensor]
    output: Tensor


@claims_output
def write_repository(artifact: Path, output: Path, config: TritonConfig, *, force: bool) -> dict[str, Any]:
    """Write a model repository with one model for each back end, and a client beside it.

    Returns the manifest. Its `models` have an `engine` where one is still to be built: the `path` at
    which the server expects it, and the shapes `(texts, tokens)` that it must take, from `min` to `max`.

    Raises:
        UserError: no artifact, a file that is not as it was exported, a graph or labels that Triton
            cannot serve, or options that do not fit them.
    """
    manifest = read_manifest(artifact)
    if not {ARTIFACT_GRAPH, "config.json"} <= set(manifest["files"]) or "labels" not in manifest:
        raise UserError(f"{artifact}: is no exported classifier; make one with: compress export")
    preprocessing = read_preprocessing(artifact, manifest)
    if preprocessing["needs_transformers"] is not None or TOKENIZER not in manifest["files"]:
        reason = preprocessing["needs_transformers"] or f"it has no {TOKENIZER}"
        raise UserError(f"{artifact}: {reason}; Triton's client cannot take it, load it with transformers")
    graph = artifact / ARTIFACT_GRAPH
    labels = [str(label) for label in manifest["labels"]]
    signature = read_signature(graph)
    check_labels(labels, signature.output, artifact)
    check_config(config)
    positions = layout_of_source(str(artifact)).longest_input(read_json(artifact / "config.json"))
    lengths = served_lengths(config, preprocessing["max_length"], positions, artifact)
    backends = served_backends(artifact, manifest, config)
    copied = {TOKENIZER, *(name for backend in backends.values() for name in _copied(backend))}
    needed = sum((artifact / name).stat().st_size for name in copied)
    with atomic_directory(output, force=force, needed_bytes=needed) as working:
        models = {}
        for name, backend in backends.items():
            text = render_config(name, backend, signature, lengths, config)
            models[name] = _write_model(working / REPOSITORY / name, text, backend, artifact, config, lengths)
            _write_labels(working / REPOSITORY / name, labels)
        _write_client(artifact, working / CLIENT, labels, lengths, preprocessing)
        facts = {
            "format": "triton",
            "labels": labels,
            "models": models,
            "graph_sha256": manifest["files"][ARTIFACT_GRAPH]["sha256"],
            "max_length": lengths.cut,
            "preprocessing": preprocessing,
            "options": config.model_dump(),
        }
        return {**write_manifest(working, facts), "path": str(output)}


def served_backends(
    artifact: Path, manifest: Mapping[str, Any], config: TritonConfig
) -> dict[str, BackendName]:
    """Return the backend of each model by the model's name; that of the artifact's runtime has no suffix.

    Raises:
        UserError: Triton has no backend for the artifact's runtime, or the artifact no file for a backend.
    """
    runtime = runtime_name(artifact, manifest)
    own = next((name for name in BACKENDS if name == runtime), None)
    if config.backends is None and own is None:
        raise UserError(
            f"{artifact / MANIFEST}: runtime is {runtime!r}, which is no backend of Triton; give --backends "
            f"{' or '.join(BACKENDS)}"
        )
    plain = own or "onnxruntime"
    found: dict[str, BackendName] = {}
    for backend in config.backends or [plain]:
        for name in set(_copied(backend)) - set(manifest["files"]):
            raise UserError(
                f"backends: {backend}: {artifact} has no {name}; export it with: compress export --runtime "
                f"{backend}"
            )
        found[config.model_name if backend == plain else f"{config.model_name}_{backend}"] = backend
    return found


def _copied(backend: BackendName) -> tuple[str, ...]:
    """Files of the artifact that a model is served from."""
    return () if BACKENDS[backend].is_built else BACKENDS[backend].files


def read_signature(graph: Path) -> Signature:
    """Names, types and shapes of a graph's inputs and of its only output.

    Raises:
        UserError: they are not those of a classifier whose batch size and length are free.
    """
    try:
        proto = onnx.load(graph, load_external_data=False).graph
    except DecodeError as error:
        raise UserError(f"{graph}: is no ONNX graph: {first_line(error)}; {EXPORT_AGAIN}") from error
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in proto.initializer):
        raise UserError(
            f"{graph}: keeps weights in another file, and a model is served from one; save it as one"
        )
    inputs = [_tensor(entry, graph) for entry in free_inputs(proto)]
    for tensor in inputs:
        if tensor.name not in INPUTS or tensor.dims != [-1]:
            raise UserError(
                f"{graph}: input {tensor.name!r} with {tensor.dims} after the batch is none that texts give; "
                f"known are {', '.join(INPUTS)}, of any length"
            )
    outputs = [_tensor(entry, graph) for entry in proto.output]
    if not inputs or len(outputs) != 1 or len(outputs[0].dims) != 1 or outputs[0].dims[0] < 1:
        raise UserError(f"{graph}: is no classifier: one output with a logit for each label is needed")
    return Signature(inputs, outputs[0])


def _tensor(entry: onnx.ValueInfoProto, graph: Path) -> Tensor:
    kind = entry.type.tensor_type
    if kind.elem_type not in DATA_TYPES:
        name = onnx.TensorProto.DataType.Name(kind.elem_type)
        raise UserError(f"{graph}: {entry.name!r} is of type {name}, which is not served")
    sizes = [size.dim_value if size.HasField("dim_value") else -1 for size in kind.shape.dim]
    if not sizes or sizes[0] != -1:
        raise UserError(f"{graph}: {entry.name!r} has no free batch axis, so texts cannot share a batch")
    return Tensor(entry.name, DATA_TYPES[kind.elem_type], sizes[1:])


def check_labels(labels: Sequence[str], output: Tensor, artifact: Path) -> None:
    """Raise a `UserError` unless each logit has a label that fits on a line."""
    if [len(labels)] != output.dims:
        raise UserError(
            f"{artifact}: the manifest has {len(labels)} labels, the graph {output.dims[0]} logits"
        )
    for label in labels:
        if "\n" in label or "\r" in label:
            raise UserError(
                f"{artifact}: the label {label!r} has a line break; Triton reads one label a line, so rename "
                f"it in the config.json of the model and export it again"
            )


def check_config(config: TritonConfig) -> None:
    """Raise a `UserError` if options contradict each other."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", config.model_name):
        raise UserError(
            f"model name {config.model_name!r}: only letters, digits, _ and - can be in it, one at least"
        )
    for size in config.preferred_batch_sizes:
        if size > config.max_batch_size:
            raise UserError(
                f"preferred_batch_sizes: {size} is more than max_batch_size, which is {config.max_batch_size}"
            )


def served_lengths(config: TritonConfig, proven: int, positions: int, artifact: Path) -> Lengths:
    """Tokens of the inputs that are served: those asked for, or those that the artifact was proven with.

    Args:
        proven: `max_length` of its preprocessing.
        positions: most tokens that the model takes.

    Raises:
        UserError: more than were proven are asked for, or the model does not take so many.
    """
    cut = config.max_length or proven
    if cut > proven:
        raise UserError(
            f"max_length {cut}: {artifact} was exported with at most {proven} tokens; use a "
            f"smaller value, or export it again with --max-length {cut}"
        )
    if cut > positions:
        raise UserError(f"max_length {cut}: the model takes {positions} tokens at most")
    multiple = config.padding_multiple
    longest = -(-cut // multiple) * multiple
    if longest > positions:
        raise UserError(
            f"padding_multiple {multiple}: inputs of max_length {cut} are padded to {longest} tokens, and "
            f"the model takes {positions} at most; lower one of the two"
        )
    return Lengths(cut, multiple, longest)


def render_config(
    name: str, backend: BackendName, signature: Signature, lengths: Lengths, config: TritonConfig
) -> str:
    """The content of a model's `config.pbtxt`, a `ModelConfig` in protobuf's text format."""
    served = BACKENDS[backend]
    batch_sizes = sorted({1, config.max_batch_size if served.batches else 1})
    parameters = dict(served.parameters)
    if served.threads and config.operator_threads:
        parameters[served.threads] = str(config.operator_threads)
    templates = page_templates(Path(__file__).parent / "templates")
    templates.filters["quoted"] = quoted
    return templates.get_template(f"{CONFIG}.j2").render(
        name=name,
        backend=backend,
        platform=served.platform,
        model_file=served.files[0],
        is_built=served.is_built,
        labels_file=LABELS,
        version=config.model_version,
        served_versions=config.served_versions,
        batches=served.batches,
        max_batch_size=config.max_batch_size,
        shortest=lengths.shortest,
        longest=lengths.longest,
        inputs=signature.inputs,
        output=signature.output,
        preferred_batch_sizes=config.preferred_batch_sizes,
        queue_delay=config.queue_delay,
        instance_kind=f"KIND_{(served.kind or config.instance_kind).upper()}",
        instances=config.instances,
        parameters=parameters,
        warmup=[
            (batch_size, length)
            for batch_size in batch_sizes
            for length in sorted({lengths.shortest, lengths.longest})
        ],
    )


def quoted(text: str) -> str:
    """A string of protobuf's text format; what could end it or its line is written in octal."""
    return '"' + re.sub(r'[\x00-\x1f"\\\x7f]', lambda found: f"\\{ord(found[0]):03o}", text) + '"'


def _write_model(
    model: Path, text: str, backend: BackendName, artifact: Path, config: TritonConfig, lengths: Lengths
) -> dict[str, Any]:
    """Write a model of the repository, and return what the manifest says of it.

    Args:
        text: of its configuration.
    """
    folder = model / str(config.model_version)
    folder.mkdir(parents=True)
    (model / CONFIG).write_text(text, encoding="utf-8")
    for name in _copied(backend):
        shutil.copyfile(artifact / name, folder / name)
    facts: dict[str, Any] = {"backend": backend, "version": config.model_version}
    if BACKENDS[backend].is_built:
        facts["engine"] = {
            "path": (folder / BACKENDS[backend].files[0]).relative_to(model.parents[1]).as_posix(),
            "min": [1, lengths.shortest],
            "max": [config.max_batch_size, lengths.longest],
        }
    return facts


def _write_client(
    artifact: Path, folder: Path, labels: Sequence[str], lengths: Lengths, preprocessing: Mapping[str, Any]
) -> None:
    """Write the client with what it needs; cutting and padding are part of its tokenizer's file."""
    folder.mkdir()
    shutil.copyfile(Path(__file__).with_name("client.py"), folder / "client.py")
    _write_labels(folder, labels)
    backend = load_backend(artifact)
    set_truncation(backend, preprocessing, lengths.cut)
    set_padding(backend, preprocessing, lengths.shortest)
    backend.save(str(folder / TOKENIZER))


def _write_labels(folder: Path, labels: Sequence[str]) -> None:
    (folder / LABELS).write_text("".join(f"{label}\n" for label in labels), encoding="utf-8", newline="\n")
