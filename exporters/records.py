"""What export, a smaller vocabulary and packing return."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compressor.options.export import GraphPrecision
from compressor.system.results import StageRecord
from exporters.shrink import LayerWidths


class ExportRecord(StageRecord):
    """An exported artifact: the content of `manifest.json` and its directory.

    Attributes:
        format: `onnx`.
        runtime: name of what runs the graph.
        opset: version of ONNX's operators.
        labels: class names, by index.
        max_length: longest input, in tokens.
        preprocessing: how texts are cut and padded.
        normalization: what the tokenizer's text normalization does to texts and answers
            (`exporters.normalization.NormalizationFacts`); None without any.
        vocabulary: what is kept of the vocabulary, and how the answers compare with those of the whole one
            (`exporters.vocabulary.VocabularyFacts`); None without `--vocabulary`.
        sparsity: share of the model's encoder weights that the graph does not compute with, from 0 to 1.
        layers: share of zeros of each matrix of the graph.
        encoder_weights: numbers of weights, of the model and of the graph.
        widths: what each layer is left with.
        kept_in_float32: weights of an int8 graph that are not quantized, since the parity check would fail.
        stored_sparsely: matrices that are stored as sparse initializers.
        parity: how far the answers are from PyTorch's.
        invariance: how far they are from those in other batches.
        reference: what `reference.json` holds, which other hosts are checked with; None for bf16.
        size: bytes of the graph by part (`embeddings`, `encoder`, `head`, `other`), of the `tokenizer`, and
            `size_ratio`, the graph's bytes divided by those of the model's weights.
        lineage: what the artifact was made of.
        environment: machine and versions.
        tensorrt: what was found for TensorRT, where that is the target.
        files: size and SHA-256 of each file.
        path: the directory of the artifact.
    """

    schema_version: int
    format: str
    runtime: str
    opset: int
    precision: GraphPrecision
    labels: list[str]
    max_length: int
    preprocessing: dict[str, Any]
    normalization: dict[str, Any] | None
    vocabulary: dict[str, Any] | None
    sparsity: float
    layers: dict[str, float]
    encoder_weights: dict[str, int]
    widths: list[LayerWidths]
    kept_in_float32: list[str]
    stored_sparsely: dict[str, Any]
    parity: dict[str, Any]
    invariance: dict[str, Any]
    reference: dict[str, Any] | None
    size: dict[str, Any]
    lineage: dict[str, Any]
    seed: int
    environment: dict[str, Any]
    tensorrt: dict[str, Any] | None = None
    files: dict[str, dict[str, Any]]
    path: Path


class VocabularyRecord(StageRecord):
    """A classifier with a smaller vocabulary: the content of `vocabulary.json`, and its directory.

    Attributes:
        options: that it was made with.
        model: source and SHA-256 of the classifier with the whole vocabulary.
        vocabulary: what is kept of it, and how the answers compare
            (`exporters.vocabulary.VocabularyFacts`).
        environment: machine and versions.
        path: the directory of the classifier.
        sha256: of its weights.
    """

    options: dict[str, Any]
    model: dict[str, Any]
    vocabulary: dict[str, Any]
    environment: dict[str, Any]
    path: Path
    sha256: str | None


class PackRecord(StageRecord):
    """A packed classifier: the content of its `manifest.json` and its directory.

    Attributes:
        lineage: what it was made of.
        left_out: what of the classifier's directory was not packed.
        packed_tensors: number of tensors that are stored as a bitmask and values.
        packed_tensors_bytes: their size, before and after.
        weights_bytes: size of all weights, before and after.
        files: size and SHA-256 of each file.
        path: the directory.
    """

    schema_version: int
    format: str
    lineage: dict[str, Any]
    left_out: list[str]
    packed_tensors: int
    packed_tensors_bytes: dict[str, int]
    weights_bytes: dict[str, int]
    files: dict[str, dict[str, Any]]
    path: Path


class UnpackRecord(StageRecord):
    """A classifier that was unpacked.

    Attributes:
        path: its directory.
        tensors: their number.
        sha256: over all of them.
    """

    path: Path
    tensors: int
    sha256: str
