"""Bytes of a classifier and of its graph by part: embeddings, encoder, head, tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import onnx
from google.protobuf.message import DecodeError

from compressor.errors import UserError, first_line
from compressor.models.artifact_files import EXPORT_AGAIN
from compressor.models.classifier import Classifier, weights_bytes
from compressor.models.preprocessing import TOKENIZER
from compressor.models.transformers_versions import TOKENIZER_CONFIG
from compressor.models.weight_files import weight_files
from exporters.safetensors_layout import read_header

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Part = Literal["embeddings", "encoder", "head"]
# What tokenizers of all kinds have; the files of its vocabulary each kind names itself.
TOKENIZER_FILES = (TOKENIZER, TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json")


@dataclass(frozen=True)
class SizeByPart:
    """Bytes of the weights by part, and of the tokenizer.

    Attributes:
        other: header of a weight file, or nodes and constants of a graph.
        tokenizer: of its files; None of a model from the hub, which has no directory.
    """

    embeddings: int
    encoder: int
    head: int
    other: int
    tokenizer: int | None

    @property
    def weights(self) -> int:
        """Return the bytes without the tokenizer: of the weight files, or of the graph."""
        return self.embeddings + self.encoder + self.head + self.other


def parts_of(classifier: Classifier) -> dict[str, Part]:
    """Return the part that each weight of a classifier is of, by its name."""
    layout, model = classifier.layout, classifier.model
    embeddings = {id(tensor) for tensor in layout.embeddings(model).parameters()}
    parts: dict[str, Part] = {}
    for name, tensor in model.named_parameters():
        if id(tensor) in embeddings:
            parts[name] = "embeddings"
        elif layout.place_of(name) is None and layout.is_head_weight(name):
            parts[name] = "head"
        else:
            parts[name] = "encoder"
    return parts


def classifier_size(classifier: Classifier) -> SizeByPart:
    """Return the bytes of a classifier as stored; one from the hub counts as it is in memory."""
    directory = Path(classifier.source)
    files = weight_files(directory)
    if not files:
        stored = [(name, value.nbytes) for name, value in classifier.model.named_parameters()]
        return _by_part(stored, parts_of(classifier), weights_bytes(classifier), None)
    whole = sum(file.stat().st_size for file in files)
    tokenizer = tokenizer_bytes(directory, classifier.tokenizer)
    return _by_part(_stored_tensors(files), parts_of(classifier), whole, tokenizer)


def graph_size(graph: Path, parts: Mapping[str, Part], tokenizer: PreTrainedTokenizerBase) -> SizeByPart:
    """Return the bytes of an artifact's graph and tokenizer.

    Args:
        parts: of the classifier that was exported; a graph's weights keep the names, with endings such as
            `_scale`.

    Raises:
        UserError: it cannot be read.
    """
    try:
        model = onnx.load(graph).graph
    except (DecodeError, OSError) as error:
        raise UserError(f"{graph}: cannot be read as ONNX: {first_line(error)}; {EXPORT_AGAIN}") from error
    stored = [(entry.name, entry.ByteSize()) for entry in model.initializer]
    stored += [(entry.values.name, entry.ByteSize()) for entry in model.sparse_initializer]
    return _by_part(stored, parts, graph.stat().st_size, tokenizer_bytes(graph.parent, tokenizer))


def tokenizer_bytes(directory: Path, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the bytes of a tokenizer's files in a directory."""
    names = {*TOKENIZER_FILES, *tokenizer.vocab_files_names.values()}
    return sum((directory / name).stat().st_size for name in names if (directory / name).is_file())


def _stored_tensors(files: Iterable[Path]) -> Iterator[tuple[str, int]]:
    """Name and bytes of each tensor of safetensors files, which were loaded before."""
    for file in files:
        for name, entry in json.loads(read_header(file)).items():
            if name != "__metadata__":
                start, stop = entry["data_offsets"]
                yield name, stop - start


def _by_part(
    stored: Iterable[tuple[str, int]], parts: Mapping[str, Part], whole: int, tokenizer: int | None
) -> SizeByPart:
    """Add up what is stored; what is of no part is other."""
    # The longest first, so that `weight` is not taken for a part of `weight_2`.
    names = sorted(parts, key=len, reverse=True)
    sizes: dict[Part, int] = {"embeddings": 0, "encoder": 0, "head": 0}
    for name, size in stored:
        owner = name if name in parts else next(filter(name.startswith, names), None)
        if owner is not None:
            sizes[parts[owner]] += size
    return SizeByPart(**sizes, other=whole - sum(sizes.values()), tokenizer=tokenizer)
