"""PyTorch classifier to an ONNX graph with readable names, and what the graph's weights are."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import logging
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from compressor.errors import UserError, first_line
from compressor.models.artifact_files import EXPORT_AGAIN, OUTPUT
from compressor.models.batching import pad
from compressor.models.classifier import Classifier
from compressor.models.encoders.inputs import MASK
from compressor.models.encoders.layout import EncoderLayout
from exporters.onnx_graph import opset

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OPSET = 18
# ONNX's limit on one file; larger graphs need external data.
LARGEST_GRAPH_BYTES = 2 * 10**9
_SCOPES = "pkg.torch.onnx.name_scopes"
_WRAPPER = "model."


class _LogitsOnly(nn.Module):
    """The classifier with plain tensors as inputs and output."""

    def __init__(self, model: PreTrainedModel, layout: EncoderLayout) -> None:
        super().__init__()
        self.model, self.layout = model, layout

    def forward(self, *tensors: Tensor) -> Tensor:
        given = dict(zip(self.layout.inputs, tensors, strict=True))
        given |= self.layout.graph_arguments(self.model, given)
        given[MASK] = self.layout.graph_mask(given[MASK], self.model.dtype)
        output = self.model(**given)
        # Whatever the arithmetic inside, what reads the logits gets float32: NumPy has no bfloat16.
        logits: Tensor = output.logits.float()
        return logits


def export_graph(
    classifier: Classifier,
    path: Path,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write the classifier as ONNX, opset 18, with dynamic batch and sequence.

    Inputs are those of the model's layout, each `(batch, sequence)` int64; the output is `logits`,
    `(batch, labels)` float32. Initializers have the names of PyTorch's parameters; the weight of a linear
    layer is stored transposed, `(in, out)`, unless its node is a Gemm. Only the default operator domain is
    used.

    Args:
        classifier: on the CPU, loaded with eager attention (fewer and plainer nodes).
        dtype: of all weights and all arithmetic: float32, float16 or bfloat16.

    Raises:
        UserError: the model is too large for one ONNX file.
    """
    config, layout = classifier.model.config, classifier.layout
    size = sum(p.numel() * dtype.itemsize for p in classifier.model.parameters())
    if size > LARGEST_GRAPH_BYTES:
        raise UserError(f"{classifier.source}: {size / 1e9:.1f} GB of weights; one ONNX file holds 2 GB")
    # Sizes above 1 and unlike each other, so that the exporter sees every dimension as dynamic.
    example = pad([([int(config.pad_token_id or 0)] * 7, [0] * 7)] * 2, 0)
    batch = torch.export.Dim("batch", min=1, max=65536)
    sequence = torch.export.Dim("sequence", min=1, max=layout.longest_input(config.to_dict()))
    model = classifier.model if dtype == torch.float32 else _in_precision(classifier.model, dtype)
    wrapper = _LogitsOnly(layout.for_graph(model), layout).eval()
    with _quiet_exporter():
        program = torch.onnx.export(
            wrapper,
            tuple(example[name] for name in layout.inputs),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(layout.inputs),
            output_names=[OUTPUT],
            dynamic_shapes=(tuple({0: batch, 1: sequence} for _ in layout.inputs),),
            optimize=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    graph = program.model_proto
    restore_names(graph)
    onnx.checker.check_model(graph, full_check=True)
    path.write_bytes(graph.SerializeToString())


def _in_precision(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Copy a model with weights of another precision; its constants, such as frequencies, keep theirs."""
    own = copy.deepcopy(model)
    for parameter in own.parameters():
        parameter.data = parameter.data.to(dtype)
    return own


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter's chatter from people: it warns of torchvision and of shared axis names."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def restore_names(model: onnx.ModelProto) -> None:
    """Name initializers as PyTorch's parameters and drop the exporter's metadata, in place.

    The exporter transposes linear weights and calls them `val_28` or so; the layer's name is in
    the metadata of the node that multiplies by it. The metadata also hold stack traces with paths
    of the exporting machine, which no artifact should carry.
    """
    initializers = {entry.name for entry in model.graph.initializer}
    names = {name: name.removeprefix(_WRAPPER) for name in initializers}
    for node in model.graph.node:
        scopes = {entry.key: entry.value for entry in node.metadata_props}.get(_SCOPES, "")
        modules = [name for name in re.findall(r"'([^']*)'", scopes) if name.startswith(_WRAPPER)]
        weight = node.input[1] if node.op_type == "MatMul" else ""
        if weight in initializers and not weight.startswith(_WRAPPER) and modules:
            names[weight] = modules[-1].removeprefix(_WRAPPER) + ".weight"
    if len(set(names.values())) != len(names):
        raise RuntimeError("two initializers would get the same name; the exporter's metadata changed")
    for initializer in model.graph.initializer:
        initializer.name = names[initializer.name]
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
        del node.metadata_props[:]
    graph = model.graph
    for entry in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del entry.metadata_props[:]
    del graph.metadata_props[:]
    kept = [info for info in graph.value_info if info.name not in initializers]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def computation_sha256(path: Path) -> str:
    """Return the SHA-256 of a graph's file without its metadata, which nothing is computed from."""
    model = onnx.load(path)
    del model.metadata_props[:]
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def write_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Let a graph's file tell of itself, in place: all that tools wrote there before goes."""
    model = onnx.load(path)
    onnx.helper.set_model_props(model, dict(metadata))
    path.write_bytes(model.SerializeToString())


def encoder_initializers(path: Path, layout: EncoderLayout) -> dict[str, Tensor]:
    """Weights of the encoder's linear layers as the graph holds them, in PyTorch's orientation.

    Args:
        layout: of the family of the model that was exported.

    Returns:
        For each layer name, as in the model, `(out, in)`: float32, also for what is stored in half
        precision; int8 for what is quantized. Blocks that have no effect have no weights.

    Raises:
        UserError: it is no graph, one of an opset that is not known here, or one without such an encoder.
    """
    try:
        model = onnx.load(path)
        weights = _encoder_arrays(model.graph, layout)
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError, TypeError, IndexError) as error:
        raise UserError(f"{path}: cannot be read as ONNX: {first_line(error)}; {EXPORT_AGAIN}") from error
    newest = onnx.defs.onnx_opset_version()
    if opset(model) > newest:
        raise UserError(
            f"{path}: has opset {opset(model)}, and opsets up to {newest} are known here; {EXPORT_AGAIN}"
        )
    if not any(layout.place_of(name) for name, _ in _stored(model.graph)):
        raise UserError(f"{path}: holds no encoder of a {layout.title} classifier; {EXPORT_AGAIN}")
    return weights


def _encoder_arrays(graph: onnx.GraphProto, layout: EncoderLayout) -> dict[str, Tensor]:
    weights = {}
    transposed = _transposed(graph)
    for name, value in _stored(graph):
        layer = re.fullmatch(r"(.*)\.weight(_quantized)?", name)
        if layer and layout.place_of(layer[1]) and value.ndim == 2:
            weight = torch.from_numpy(value.copy() if value.dtype == np.int8 else value.astype(np.float32))
            weights[layer[1]] = weight.T if name in transposed else weight
    return weights


def _stored(graph: onnx.GraphProto) -> Iterator[tuple[str, NDArray[Any]]]:
    """Name and value of each initializer, dense or sparse."""
    for initializer in graph.initializer:
        yield initializer.name, numpy_helper.to_array(initializer)
    for sparse in graph.sparse_initializer:
        values = numpy_helper.to_array(sparse.values)
        dense = np.zeros(math.prod(sparse.dims), dtype=values.dtype)
        dense[numpy_helper.to_array(sparse.indices)] = values
        yield sparse.values.name, dense.reshape(sparse.dims)


def _transposed(graph: onnx.GraphProto) -> set[str]:
    """Weights that are stored `(in, out)`: those of a MatMul, also where they are dequantized first."""
    second = {node.input[1] for node in graph.node if node.op_type in ("MatMul", "MatMulInteger")}
    return second | {
        node.input[0]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.output[0] in second
    }
