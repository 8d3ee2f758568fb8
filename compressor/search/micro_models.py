"""Micro models: classifiers of a model's shape with random weights and one part alone, as artifacts.

Only the model's `config.json` is read, so that they can be made where its weights are not. The vocabulary is
small, since a look-up in it takes the same time whatever its size.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from compressor.models.transformers_versions import save_tokenizer
from compressor.options import ExportConfig
from compressor.options.export import precision_of
from compressor.system.console import SilentProgress
from exporters.graph_forms import give_form, write_plain_graph
from exporters.mixed import Quantized
from exporters.openvino_ir import write_ir
from exporters.quantize import fit_scales
from exporters.quantize_rows import quantize_rows
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
    content = fitted(kept | {"vocab_size": VOCABULARY}, 0)
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
    config._attn_implementation = attention
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = layout.classifier_class()(config).eval()
        for module in model.modules():
            # A new model's biases are all 0, and equal tensors become one in a graph.
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.bias, std=BIAS_STD)
    for index in range(shape.layers):
        if heads == 0:
            remove_attention(model, index)
        elif heads < shape.heads:
            remove_heads(model, index, range(heads, shape.heads))
        if neurons == 0:
            remove_feed_forward(model, index)
    set_neuron_count(model)
    return Classifier(model, small_tokenizer(), "random weights")


def small_tokenizer() -> PreTrainedTokenizerBase:
    """Make a tokenizer of `VOCABULARY` words, of no family's own kind."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL.values(), *(f"w{number}" for number in range(VOCABULARY - len(SPECIAL)))]
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

    Tracing a model takes seconds. Models without attention differ in the sizes of weights only, so the graph
    of the widest of them, if it comes first, is cut for the others.

    Args:
        config: of the export.
        texts: fit the scales of int8-static.
    """

    def __init__(self, shape: DenseShape, config: ExportConfig, texts: list[Encoded], seed: int) -> None:
        self._shape, self._config, self._texts, self._seed = shape, config, texts, seed
        self._widest: bytes | None = None

    def write(self, widths: Widths, directory: Path) -> None:
        """Write a micro model into a directory, which exists."""
        shape, graph = self._shape, directory / ARTIFACT_GRAPH
        classifier = micro_classifier(shape, *widths, seed=self._seed)
        classifier.model.config.save_pretrained(directory)
        save_tokenizer(classifier.tokenizer, directory)
        exported = shrink(classifier)
        can_be_cut = widths.heads == 0 < widths.neurons and shape.neurons != shape.hidden_size
        if can_be_cut and self._widest is not None:
            graph.write_bytes(cut_neurons(self._widest, shape.layout, shape.neurons, widths.neurons))
        else:
            write_plain_graph(exported, graph, self._config)
        if can_be_cut and widths.neurons == shape.neurons:
            self._widest = graph.read_bytes()
        _give_form(exported, directory, self._config, self._texts, self._seed)


def cut_neurons(graph: bytes, layout: EncoderLayout, neurons: int, kept: int) -> bytes:
    """Return a graph whose feed-forward parts have only the first `kept` of their neurons.

    Args:
        graph: plain; initializers have the names of PyTorch's parameters.
        neurons: of each of its layers; unlike the width of the hidden states.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(graph)
    names = layout.linears
    for tensor in model.graph.initializer:
        place = layout.place_of(tensor.name)
        if place is not None and place[1].rpartition(".")[0] in (names.neurons_in, names.neurons_out):
            values = numpy_helper.to_array(tensor)
            if neurons in values.shape:
                cut = values.take(range(kept), axis=values.shape.index(neurons))
                tensor.CopyFrom(numpy_helper.from_array(cut, tensor.name))
    # The sizes of what flows between nodes have changed.
    del model.graph.value_info[:]
    found: bytes = onnx.shape_inference.infer_shapes(
        model, check_type=True, strict_mode=True
    ).SerializeToString()
    return found


def _give_form(
    exported: Classifier, directory: Path, config: ExportConfig, texts: list[Encoded], seed: int
) -> None:
    """Give the plain graph of an artifact its precision, and the form of its runtime."""
    scales = None
    if precision_of(config) == "int8-static":
        scales = fit_scales(exported, texts, seed, SilentProgress())

    def by_rows(graph: Path) -> Quantized:
        quantize_rows(graph)
        return Quantized()

    give_form(directory / ARTIFACT_GRAPH, config, scales, by_rows)
    if config.runtime == "openvino":
        write_ir(directory)
