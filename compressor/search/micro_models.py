"""Micro models: classifiers of a model's shape with random weights and one part alone, as artifacts.

Only the model's `config.json` is read, so that they can be made where its weights are not. The vocabulary is
small, since a look-up in it takes the same time whatever its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from compressor.errors import UserError
from compressor.models.artifact_files import ARTIFACT_GRAPH
from compressor.models.batching import Encoded
from compressor.models.checks import fitted, key_problems, raise_problems, without_heads
from compressor.models.classifier import Classifier
from compressor.models.encoders.keys import LAYER_NEURONS, REMOVED_HEADS, UNPADDED_NEURONS
from compressor.models.encoders.layout import EncoderLayout
from compressor.models.encoders.registry import layout_of_type
from compressor.models.latency_table import Widths
from compressor.models.loading import load_config, read_config
from compressor.models.structure import (
    PRUNED_HEADS,
    remove_attention,
    remove_feed_forward,
    remove_heads,
    set_neuron_count,
)
from compressor.models.transformers_versions import has_fused_attention, save_tokenizer
from compressor.options import ExportConfig
from compressor.system.console import SilentProgress
from exporters.graph_forms import calibrate, give_form, write_plain_graph
from exporters.mixed import quantize_all
from exporters.onnx_graph import constants
from exporters.openvino_ir import write_ir
from exporters.shrink import shrink

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
# Enough for embeddings that are quantized as those of a whole vocabulary are.
VOCABULARY = 512
BIAS_STD = 0.02
# What says which heads and neurons a model lacks: the dense shape is asked for.
OF_WIDTHS = (PRUNED_HEADS, REMOVED_HEADS, LAYER_NEURONS, UNPADDED_NEURONS)


@dataclass(frozen=True)
class DenseShape:
    """Shape of a dense model, as its `config.json` has it.

    Attributes:
        content: of a configuration of that shape with the vocabulary of micro models.
        layers: number of encoder layers.
        heads, neurons: of each layer.
        hidden_size: width of the hidden states.
        longest: tokens of the longest input.
    """

    layout: EncoderLayout
    content: dict[str, Any]
    layers: int
    heads: int
    neurons: int
    hidden_size: int
    longest: int


def read_shape(source: str) -> DenseShape:
    """Read the shape of a model from the `config.json` of its directory or hub id.

    Raises:
        UserError: there is none, or it is of no model that the program works with.
    """
    own = read_config(source)
    raise_problems(source, key_problems(own))
    layout = layout_of_type(own["model_type"])
    kept = {key: value for key, value in without_heads(own).items() if key not in OF_WIDTHS}
    padding = layout.padding_id(own) or 0
    content = fitted(kept | {"vocab_size": VOCABULARY}, padding)
    config = load_config(content)
    return DenseShape(
        layout=layout,
        content=content,
        layers=int(config.num_hidden_layers),
        heads=int(config.num_attention_heads),
        neurons=int(getattr(config, layout.neurons_key)),
        hidden_size=int(config.hidden_size),
        longest=layout.longest_input(content),
    )


def check_lengths(source: str, shape: DenseShape, lengths: list[int]) -> None:
    """Raise a `UserError` if the model takes no inputs of some lengths, in tokens."""
    beyond = sorted({length for length in lengths if length > shape.longest})
    if beyond:
        raise UserError(
            f"{source}: config.json: the model takes {shape.longest} tokens at most, and shapes have "
            f"{', '.join(map(str, beyond))}; give --shapes with shorter lengths"
        )


def micro_classifier(
    shape: DenseShape,
    heads: int,
    neurons: int,
    *,
    seed: int,
    attention: Literal["eager", "sdpa"] = "eager",
) -> Classifier:
    """Build a classifier of random weights whose layers all have so many heads and neurons.

    Args:
        heads: from 0, which leaves no attention, to the dense model's.
        neurons: from 0, which leaves no feed-forward part.
        attention: "eager" for an export; "sdpa" for PyTorch's fused kernel.
    """
    layout = shape.layout
    config = load_config({**shape.content, layout.neurons_key: max(1, neurons)})
    is_fused = has_fused_attention(layout.classifier_class())
    config._attn_implementation = attention if is_fused else "eager"
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = layout.classifier_class()(config).eval()
        for module in model.modules():
            # A new model's biases are all 0, and equal tensors become one in a graph.
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.normal_(module.bias, std=BIAS_STD)
    for index in range(shape.layers):
        if heads == 0:
            remove_attention(model, index)
        elif heads < shape.heads:
            remove_heads(model, index, range(heads, shape.heads))
        if neurons == 0:
            remove_feed_forward(model, index)
    set_neuron_count(model)
    return Classifier(model, small_tokenizer(int(config.pad_token_id)), "random weights")


def small_tokenizer(padding: int = 0) -> PreTrainedTokenizerBase:
    """Make a tokenizer of `VOCABULARY` words, of no family's own kind, whose padding has that id."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL.values(), *(f"w{number}" for number in range(VOCABULARY - len(SPECIAL)))]
    words.insert(padding, words.pop(0))
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL)
    return tokenizer


def random_texts(count: int, length: int, seed: int) -> list[Encoded]:
    """Draw texts of `length` tokens of the small vocabulary, without special tokens."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(len(SPECIAL), VOCABULARY, (count, length), generator=generator).tolist()
    return [(row, [0] * length) for row in ids]


class MicroArtifacts:
    """Writes micro models of one shape as artifacts: graph, configuration and tokenizer, as an export does.

    Tracing a model takes seconds. Models with one kind of block alone differ in the sizes of weights only, so
    the graph of a wide one, if it comes first, is cut for those that are narrower.

    Args:
        config: of the export.
        texts: int8 is fitted to them.
    """

    def __init__(self, shape: DenseShape, config: ExportConfig, texts: list[Encoded], seed: int) -> None:
        self._shape, self._config, self._texts, self._seed = shape, config, texts, seed
        self._traced: dict[tuple[str, ...], tuple[bytes, int]] = {}

    def write(self, widths: Widths, directory: Path) -> None:
        """Write a micro model into a directory, which exists."""
        graph = directory / ARTIFACT_GRAPH
        classifier = micro_classifier(self._shape, *widths, seed=self._seed)
        classifier.model.config.save_pretrained(directory)
        save_tokenizer(classifier.tokenizer, directory)
        exported = shrink(classifier)
        self._write_plain(exported, widths, graph)
        _give_form(exported, directory, self._config, self._texts, self._seed)

    def _write_plain(self, exported: Classifier, widths: Widths, graph: Path) -> None:
        """Cut the graph of a model out of that of a wider one; trace it where there is none."""
        linears, count, unit = self._only_block(exported, widths)
        traced = self._traced.get(linears)
        if traced is not None and count < traced[1]:
            graph.write_bytes(cut_linears(traced[0], self._shape.layout, linears, traced[1], count, unit))
            return
        write_plain_graph(exported, graph, self._config)
        # Where two axes are of one size, it does not say which of them is to be cut.
        is_told = count * unit != self._shape.hidden_size and count != unit
        if linears and is_told and not (unit > 1 and reshapes_to(graph.read_bytes(), {count, count * unit})):
            self._traced[linears] = graph.read_bytes(), count

    def _only_block(self, exported: Classifier, widths: Widths) -> tuple[tuple[str, ...], int, int]:
        """Return the linear layers, heads or neurons, and columns of each, of a model's only kind of block.

        There are none where it has both kinds, or no block, heads with more than linear layers, or gated
        neurons, which the graph splits off.
        """
        names, shape = self._shape.layout.linears, self._shape
        if widths.heads == 0 < widths.neurons and not names.gated:
            return (names.neurons_in, names.neurons_out), widths.neurons, 1
        block = shape.layout.blocks(exported.model)[0]
        if widths.neurons == 0 < widths.heads and shape.layout.scores_by_content(block):
            linears = (names.query, names.key, names.value, names.attention_output)
            return linears, widths.heads, shape.hidden_size // shape.heads
        return (), 0, 0


def reshapes_to(graph: bytes, sizes: set[int]) -> bool:
    """Whether something in a graph gets a shape in which one of some sizes is written.

    Where they are those of heads, weights alone do not make a narrower graph of it.
    """
    import onnx
    from onnx import numpy_helper

    found = onnx.load_from_string(graph).graph
    shapes = {node.input[1] for node in found.node if node.op_type == "Reshape"}
    # A shape of parts, some of which are of the input.
    parts = {
        part
        for node in found.node
        if node.op_type == "Concat" and node.output[0] in shapes
        for part in node.input
    }
    known = constants(found)
    written = [numpy_helper.to_array(known[name]) for name in (shapes | parts) & known.keys()]
    return any(sizes.intersection(values.flatten().tolist()) for values in written)


def cut_linears(
    graph: bytes, layout: EncoderLayout, linears: Sequence[str], count: int, kept: int, unit: int
) -> bytes:
    """Return a graph in which linear layers have only the first `kept` of their heads or neurons.

    Args:
        graph: plain; initializers have the names of PyTorch's parameters.
        linears: their names within each layer.
        count: of their heads or neurons, whose columns together are not as many as those of a hidden state.
        unit: columns of a head or neuron; not as many as `count`.
    """
    import onnx
    from onnx import numpy_helper

    model, size = onnx.load_from_string(graph), count * unit
    for tensor in model.graph.initializer:
        place = layout.place_of(tensor.name)
        if place is not None and place[1].rpartition(".")[0] in linears:
            values = numpy_helper.to_array(tensor)
            if size in values.shape:
                cut = values.take(range(kept * unit), axis=values.shape.index(size))
                tensor.CopyFrom(numpy_helper.from_array(cut, tensor.name))
    # What flows between nodes has other sizes too; with 4 axes one is that of the heads.
    for info in model.graph.value_info:
        axes = info.type.tensor_type.shape.dim
        for axis in axes:
            if axis.dim_value == size:
                axis.dim_value = kept * unit
            elif len(axes) == 4 and axis.dim_value == count:
                axis.dim_value = kept
    # Checks that all sizes fit.
    found: bytes = onnx.shape_inference.infer_shapes(
        model, check_type=True, strict_mode=True
    ).SerializeToString()
    return found


def _give_form(
    exported: Classifier, directory: Path, config: ExportConfig, texts: list[Encoded], seed: int
) -> None:
    """Give the plain graph of an artifact its precision, and the form of its runtime."""
    calibration = calibrate(exported, texts, config, seed, SilentProgress()).for_timing()
    give_form(directory / ARTIFACT_GRAPH, config, calibration, partial(quantize_all, config))
    if config.runtime == "openvino":
        write_ir(directory)
