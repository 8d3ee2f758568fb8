"""Logits of a classifier, whatever runs it: PyTorch, or ONNX Runtime on an exported artifact.

Accuracy, attacks, parity and latency all go through a `Predictor`, so that every variant is
measured by the same code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from compressor.data.texts import TextData
from compressor.errors import UserError, first_line
from compressor.models.artifact_files import ARTIFACT_CONFIG, ARTIFACT_GRAPH, EXPORT_AGAIN, OUTPUT
from compressor.models.batching import Batch, Encoded, encode, inputs_of, pad, sorted_batches
from compressor.models.checks import (
    fitted,
    key_problems,
    label_problems,
    model_problems,
    raise_problems,
    tokenizer_facts,
)
from compressor.models.classifier import Classifier, check_pairs, load_tokenizer
from compressor.models.encoders.inputs import IDS, INPUTS
from compressor.models.loading import load_config, read_config
from compressor.models.onednn import onednn_linears
from compressor.system.console import Progress

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


class Predictor(Protocol):
    """Something that classifies padded batches.

    Attributes:
        source: directory or hub id that it was loaded from.
        device: where it computes.
    """

    source: str
    tokenizer: PreTrainedTokenizerBase
    label_names: list[str]
    device: torch.device

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """Logits `(batch, labels)` float32 of a batch on the CPU."""

    def check_pairs(self, has_pairs: bool) -> None:
        """Raise a `UserError` if there are pairs and the model cannot take two texts at once."""

    def in_bulk(self) -> AbstractContextManager[None]:
        """Within it `logits` may take what is fastest, and not what a program that loads the model takes."""


class TorchPredictor:
    """A PyTorch classifier, on whatever device it is."""

    def __init__(self, classifier: Classifier) -> None:
        self.tokenizer = classifier.tokenizer
        self.label_names = classifier.label_names
        self._model = classifier.model
        self.source = classifier.source
        self.device = classifier.device

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits = self._model(**inputs_of(self._model, batch)).logits
        result: NDArray[np.float32] = logits.float().cpu().numpy()
        return result

    def check_pairs(self, has_pairs: bool) -> None:
        check_pairs(self.source, self._model.config, self.tokenizer, has_pairs)

    def in_bulk(self) -> AbstractContextManager[None]:
        return onednn_linears(self._model)


class ArtifactPredictor(ABC):
    """An exported artifact in a runtime, which a subclass loads and runs.

    Attributes:
        runtime: name of the runtime, in errors.
    """

    runtime: str

    def _take(
        self,
        directory: Path,
        inputs: Sequence[GraphValue],
        outputs: Sequence[GraphValue],
        device: str,
        lengths: Mapping[str, int | None] | None,
    ) -> None:
        """Take what belongs to a graph that was loaded; arguments and errors as of `artifact_parts`."""
        self._config, self.tokenizer = artifact_parts(directory, inputs, outputs, lengths)
        self.label_names = [str(name) for name in self._config.id2label.values()]
        self.source = str(directory)
        self.device = torch.device(device)
        self._graph = directory / ARTIFACT_GRAPH
        self._inputs = {entry.name for entry in inputs}

    @abstractmethod
    def _run(self, feeds: dict[str, NDArray[np.int64]]) -> NDArray[Any]:
        """Return the logits `(batch, labels)` of a batch, which no later call changes."""

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        feeds = {key: value.numpy() for key, value in batch.items() if key in self._inputs}
        try:
            found = self._run(feeds)
        except Exception as error:  # runtimes' errors share no public base class
            shape = " x ".join(map(str, batch[IDS].shape))
            raise UserError(
                f"{self._graph}: {self.runtime} cannot run it on an input of shape {shape} (texts x tokens): "
                f"{first_line(error)}; give a shorter --max-length if it is too long, or {EXPORT_AGAIN}"
            ) from error
        return np.asarray(found, dtype=np.float32)

    def check_pairs(self, has_pairs: bool) -> None:
        check_pairs(self.source, self._config, self.tokenizer, has_pairs)

    def in_bulk(self) -> AbstractContextManager[None]:
        return nullcontext()


class OnnxPredictor(ArtifactPredictor):
    """An exported artifact in ONNX Runtime.

    Args:
        directory: holds `model.onnx`, `config.json` and the tokenizer.
        threads: of one operator; operators run one after the other.
        spinning: whether threads that wait for work during a run spin before they sleep, which is ONNX
            Runtime's own default and what a server has. They stop at the end of the run.
        device: "cpu", or "cuda", for which the session must really run on PyTorch's current CUDA device.
        lengths: tokens of the inputs that it is to take, by the name of their option.

    Raises:
        UserError: no artifact, a graph that does not load or is of another model, a broken configuration
            or tokenizer, or no CUDA provider.
    """

    runtime = "ONNX Runtime"

    def __init__(
        self,
        directory: Path,
        threads: int,
        device: str = "cpu",
        *,
        spinning: bool = False,
        lengths: Mapping[str, int | None] | None = None,
    ) -> None:
        import onnxruntime

        graph = artifact_graph(directory)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        # Only during a run: otherwise the threads take a core for a while from whatever runs next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
        try:
            self._session = onnxruntime.InferenceSession(
                str(graph), options, providers=[provider], provider_options=[_provider_options(device)]
            )
        except Exception as error:  # ONNX Runtime's errors share no public base class
            raise UserError(
                f"{graph}: cannot be loaded by ONNX Runtime: {first_line(error)}; {EXPORT_AGAIN}"
            ) from error
        # The list of available providers also names those that cannot start; the session's does not.
        if provider not in self._session.get_providers():
            raise UserError(
                f"{graph}: ONNX Runtime cannot run it on CUDA here (it has "
                f"{', '.join(self._session.get_providers())}); install the gpu extra, or use --device cpu"
            )
        self._take(directory, self._session.get_inputs(), self._session.get_outputs(), device, lengths)

    def _run(self, feeds: dict[str, NDArray[np.int64]]) -> NDArray[Any]:
        [found] = self._session.run([OUTPUT], feeds)
        return np.asarray(found)


def artifact_graph(directory: Path) -> Path:
    """The graph of an artifact.

    Raises:
        UserError: there is none.
    """
    graph = directory / ARTIFACT_GRAPH
    if not graph.is_file():
        raise UserError(f"{directory}: has no {ARTIFACT_GRAPH}; make an artifact with: compress export")
    return graph


def artifact_parts(
    directory: Path,
    inputs: Sequence[GraphValue],
    outputs: Sequence[GraphValue],
    lengths: Mapping[str, int | None] | None,
) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
    """The configuration and the tokenizer of an artifact, checked against each other and the graph.

    Args:
        inputs: of the graph, and `outputs`, as the runtime that loaded it describes them.
        lengths: tokens of the inputs that it is to take, by the name of their option.

    Raises:
        UserError: a graph of another model, or a broken configuration or tokenizer.
    """
    content = _configuration(directory)
    config = load_config(fitted(content, 0))
    problem = signature_problem(inputs, outputs, config.num_labels)
    if problem:
        raise UserError(
            f"{directory / ARTIFACT_GRAPH}: is no classifier of compress: {problem}; {EXPORT_AGAIN}"
        )
    tokenizer = load_tokenizer(str(directory))
    raise_problems(str(directory), [*model_problems(content, tokenizer_facts(tokenizer), lengths=lengths)])
    return config, tokenizer


class GraphValue(Protocol):
    """An input or output of a graph, as ONNX Runtime describes it."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def shape(self) -> list[str | int | None]: ...


def signature_problem(inputs: Sequence[GraphValue], outputs: Sequence[GraphValue], labels: int) -> str | None:
    """Why a graph does not take padded batches of any shape and give logits of `labels` labels; or None."""
    if IDS not in {entry.name for entry in inputs}:
        return f"it has no input {IDS}"
    for entry in inputs:
        if entry.name not in INPUTS:
            return f"its input {entry.name} is not one of {', '.join(INPUTS)}"
        is_fixed = any(isinstance(size, int) for size in entry.shape)
        if entry.type != "tensor(int64)" or len(entry.shape) != 2 or is_fixed:
            return (
                f"its input {entry.name} is {entry.type} of shape {entry.shape}, not int64 of two free sizes"
            )
    output = next((entry for entry in outputs if entry.name == OUTPUT), None)
    if output is None:
        return f"it has no output {OUTPUT}"
    if output.type not in ("tensor(float)", "tensor(float16)") or len(output.shape) != 2:
        return f"its output {OUTPUT} is {output.type} of shape {output.shape}, not float of two sizes"
    if output.shape[1] != labels:
        return f"it gives {output.shape[1]} logits, and {ARTIFACT_CONFIG} has {labels} labels"
    return None


def _configuration(directory: Path) -> dict[str, Any]:
    """The content of the configuration of an artifact, which names the labels."""
    path = directory / ARTIFACT_CONFIG
    if not path.is_file():
        raise UserError(f"{path}: no such file; {EXPORT_AGAIN}")
    try:
        content = read_config(str(directory))
        raise_problems(str(directory), [*key_problems(content), *label_problems(content)])
    except UserError as error:
        raise UserError(
            f"{path}: is no configuration of a classifier: {first_line(error)}; {EXPORT_AGAIN}"
        ) from error
    return content


def _provider_options(device: str) -> dict[str, int]:
    """Where several processes share a machine's GPUs, each one's session runs on its own."""
    return {"device_id": torch.cuda.current_device()} if device == "cuda" else {}


def predict_encoded(
    predictor: Predictor,
    encoded: Sequence[Encoded],
    batch_size: int,
    progress: Progress | None = None,
    description: str = "",
) -> NDArray[np.float32]:
    """Logits `(texts, labels)` of tokenised texts in their order; batches hold similar lengths."""
    pad_token_id = int(predictor.tokenizer.pad_token_id)
    batches = sorted_batches(encoded, batch_size)
    result = np.empty((len(encoded), len(predictor.label_names)), dtype=np.float32)
    with predictor.in_bulk():
        for indices in progress.track(batches, description) if progress else batches:
            result[indices] = predictor.logits(pad([encoded[i] for i in indices], pad_token_id))
    return result


def check_finite(logits: NDArray[np.float32], source: str) -> None:
    """Raise a `UserError` if a model's logits hold NaN or infinity, of which no class can be told.

    Args:
        source: of the model.
    """
    broken = int((~np.isfinite(logits)).any(axis=1).sum())
    if broken:
        raise UserError(
            f"{source}: its logits are NaN or infinite on {broken} of {len(logits)} texts; the weights are "
            f"too large for its precision, or broken"
        )


def predict(
    predictor: Predictor,
    data: TextData,
    max_length: int,
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
    description: str = "",
) -> NDArray[np.float32]:
    """Logits `(texts, labels)` of a data set.

    Raises:
        UserError: some are NaN or infinite.
    """
    encoded = encode(predictor.tokenizer, data, max_length)
    logits = predict_encoded(predictor, encoded, batch_size, progress, description)
    check_finite(logits, predictor.source)
    return logits
