"""Walks the dense and the pruned model side by side, encoder layer by encoder layer.

Each linear layer's inputs are seen in both models for the same tokens: `X` in the dense model, and
`Xh`, drifted, behind the part that is pruned already. Only their second moments are kept; the hidden
states between two encoder layers are in a file that is mapped into memory, so that the memory in use
does not grow with the calibration data. Padding never enters a moment.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.batching import Batch, Encoded, pad, sorted_batches
from compressor.classifier import linear_at
from compressor.errors import UserError

if TYPE_CHECKING:
    from transformers import BertForSequenceClassification

# The linear layers of an encoder layer in the order in which data flows; those of a group share
# their input. Names as in BertLayer.
LINEAR_GROUPS = (
    ("attention.self.query", "attention.self.key", "attention.self.value"),
    ("attention.output.dense",),
    ("intermediate.dense",),
    ("output.dense",),
)


class _Captured(Exception):
    """Ends a forward pass where its purpose, one module's input, is reached."""


@dataclass
class Moments:
    """Sums over tokens of a linear layer's inputs in the dense (`X`) and the pruned model (`Xh`).

    Attributes:
        count: number of tokens (rows of X and Xh).
        dense_sum, pruned_sum: `(in,)` float64, column sums.
        square: `(in, in)` float64, `Xh^T Xh`.
        cross: `(in, in)` float64, `X^T Xh`.
    """

    count: int
    dense_sum: Tensor
    pruned_sum: Tensor
    square: Tensor
    cross: Tensor

    @classmethod
    def zeros(cls, in_features: int, device: torch.device) -> Moments:
        """Moments of no tokens."""
        options: dict[str, Any] = {"dtype": torch.float64, "device": device}
        vector = torch.zeros(in_features, **options)
        matrix = torch.zeros(in_features, in_features, **options)
        return cls(0, vector, vector.clone(), matrix, matrix.clone())

    def add(self, dense: Tensor, pruned: Tensor) -> None:
        """Add rows `(tokens, in)` of X and Xh, of the same tokens in the same order."""
        self.count += dense.shape[0]
        self.dense_sum += dense.sum(dim=0, dtype=torch.float64)
        self.pruned_sum += pruned.sum(dim=0, dtype=torch.float64)
        # Products in the rows' own precision, sums over batches in float64: half the time, and the
        # rounding of a batch of a thousand tokens is far below that of the inputs themselves.
        self.square += pruned.T @ pruned
        self.cross += dense.T @ pruned

    @property
    def dense_mean(self) -> Tensor:
        """Mean of X, `(in,)` float64."""
        return self.dense_sum / self.count

    @property
    def pruned_mean(self) -> Tensor:
        """Mean of Xh, `(in,)` float64."""
        return self.pruned_sum / self.count

    @property
    def hessian(self) -> Tensor:
        """`(in, in)` float64: Xh^T Xh of centred inputs, which leaves the bias out of the problem."""
        return self.square - torch.outer(self.pruned_sum, self.pruned_mean)

    @property
    def centred_cross(self) -> Tensor:
        """`(in, in)` float64: X^T Xh of centred inputs."""
        return self.cross - torch.outer(self.dense_sum, self.pruned_mean)


@dataclass(frozen=True)
class BlockPair:
    """One batch in front of an encoder layer: its hidden states and the output that is wanted.

    Attributes:
        hidden: `(batch, sequence, hidden)`, what enters the pruned layer.
        arguments: the other arguments of the layer's call.
        target: `(batch, sequence, hidden)`, the dense layer's output from dense inputs.
        tokens: `(batch, sequence)` bool, True for real tokens.
    """

    hidden: Tensor
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    target: Tensor
    tokens: Tensor

    def squared_error(self, block: nn.Module) -> Tensor:
        """Squared difference of the layer's output from the target, summed over real tokens."""
        difference = (_run(block, self.hidden, self.arguments) - self.target)[self.tokens]
        return difference.square().sum()


def calibration_batches(
    encoded: Sequence[Encoded], batch_size: int, pad_token_id: int, device: torch.device
) -> list[Batch]:
    """Padded batches of similar lengths."""
    return [
        pad([encoded[i] for i in indices], pad_token_id, device)
        for indices in sorted_batches(encoded, batch_size)
    ]


class SideBySide:
    """The two models and the hidden states that enter their next encoder layer.

    Args:
        dense: the model to reproduce; is not changed.
        pruned: of the same shape, pruned by the caller from the first layer on; or the same model, where
            there is nothing to reproduce.
        batches: calibration data, padded.
    """

    def __init__(
        self,
        dense: BertForSequenceClassification,
        pruned: BertForSequenceClassification,
        batches: Sequence[Batch],
    ) -> None:
        self._models = (dense, pruned)
        self.batches = batches
        self._tokens = [batch["attention_mask"].bool() for batch in batches]
        self._index = 0
        self._device = dense.device
        self._arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        shapes = [(*batch["input_ids"].shape, dense.config.hidden_size) for batch in batches]
        self._dense_states = _mapped_tensors(shapes, dense.dtype)
        self._pruned_states = self._dense_states if dense is pruned else _mapped_tensors(shapes, dense.dtype)
        for batch, *states in zip(batches, self._dense_states, self._pruned_states, strict=True):
            hidden, arguments = _enter_encoder(dense, batch)
            self._arguments.append(arguments)
            states[0].copy_(hidden)
            if pruned is not dense:
                # Embeddings are never pruned, but those of the pruned model may have been trained.
                states[1].copy_(_enter_encoder(pruned, batch)[0])

    @property
    def dense(self) -> BertForSequenceClassification:
        """The model to reproduce."""
        return self._models[0]

    @property
    def blocks(self) -> tuple[nn.Module, nn.Module]:
        """The encoder layer that is next, in the dense and in the pruned model."""
        dense, pruned = (model.bert.encoder.layer[self._index] for model in self._models)
        return dense, pruned

    @torch.no_grad()
    def moments(self, linear_name: str, *, drifted: bool = True) -> Moments:
        """Moments of the inputs of a linear layer of the next encoder layer, over real tokens.

        Args:
            linear_name: as in BertLayer.
            drifted: if not, the dense model's inputs stand for the pruned model's as well.
        """
        dense_block, pruned_block = self.blocks
        weight = linear_at(dense_block, linear_name).weight
        moments = Moments.zeros(weight.shape[1], weight.device)
        apart = drifted and pruned_block is not dense_block
        for i, (tokens, arguments) in enumerate(zip(self._tokens, self._arguments, strict=True)):
            dense_input = _input_of(
                dense_block, linear_name, self._dense_states[i].to(self._device), arguments
            )
            pruned_input = dense_input
            if apart:
                pruned_state = self._pruned_states[i].to(self._device)
                pruned_input = _input_of(pruned_block, linear_name, pruned_state, arguments)
            moments.add(dense_input[tokens], pruned_input[tokens])
        return moments

    def block_pairs(self) -> list[BlockPair]:
        """What enters the next encoder layer of the pruned model, and what it is to give, by batch."""
        dense_block, _ = self.blocks
        with torch.no_grad():
            return [
                BlockPair(
                    pruned.to(self._device),
                    arguments,
                    _run(dense_block, dense.to(self._device), arguments),
                    tokens,
                )
                for dense, pruned, arguments, tokens in zip(
                    self._dense_states, self._pruned_states, self._arguments, self._tokens, strict=True
                )
            ]

    @torch.no_grad()
    def advance(self) -> None:
        """Run the next encoder layer of both models; the one behind it is next."""
        dense_block, pruned_block = self.blocks
        passes = [(dense_block, self._dense_states)]
        if pruned_block is not dense_block:
            passes.append((pruned_block, self._pruned_states))
        for block, states in passes:
            for state, arguments in zip(states, self._arguments, strict=True):
                state.copy_(_run(block, state.to(self._device), arguments))
        self._index += 1

    @torch.no_grad()
    def last_first_tokens(self) -> Tensor:
        """Last hidden states of [CLS], `(texts, hidden)`, of the dense model, from where the walk stands."""
        behind = []
        for state, arguments in zip(self._dense_states, self._arguments, strict=True):
            hidden = state.to(self._device)
            for block in self.dense.bert.encoder.layer[self._index :]:
                hidden = _run(block, hidden, arguments)
            behind.append(hidden[:, 0])
        return torch.cat(behind)

    def first_tokens(self) -> tuple[Tensor, Tensor]:
        """Hidden states of [CLS], `(texts, hidden)`, in the dense and in the pruned model."""
        dense, pruned = (
            torch.cat([state[:, 0] for state in states]).to(self._device)
            for states in (self._dense_states, self._pruned_states)
        )
        return dense, pruned


def _mapped_tensors(shapes: Sequence[tuple[int, ...]], dtype: torch.dtype) -> list[Tensor]:
    """Tensors whose content is in one temporary file; it is gone once they are.

    Raises:
        UserError: there is no room for it.
    """
    sizes = [math.prod(shape) for shape in shapes]
    with tempfile.NamedTemporaryFile(prefix="compress-states-") as file:
        try:
            # A write to a mapped file for which there is no room would kill the process.
            os.posix_fallocate(file.fileno(), 0, sum(sizes) * dtype.itemsize)
        except OSError as error:
            raise UserError(
                f"{tempfile.gettempdir()}: no space for {sum(sizes) * dtype.itemsize / 1e6:.0f} MB of "
                f"calibration states ({error.strerror}); set TMPDIR to another folder, or use fewer "
                f"--calibration-examples"
            ) from error
        # The mapping outlives the file's name.
        flat = torch.from_file(file.name, shared=True, size=sum(sizes), dtype=dtype)
    return [part.reshape(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]


@torch.no_grad()
def _enter_encoder(
    model: BertForSequenceClassification, batch: Batch
) -> tuple[Tensor, tuple[tuple[Any, ...], dict[str, Any]]]:
    """Hidden states that enter the first encoder layer, and the other arguments of its call.

    Taking the arguments from a real call keeps this independent of the transformers version, which
    decides what an encoder layer is called with (the extended attention mask among them).
    """
    caught: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def catch(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        caught.append((args, kwargs))
        raise _Captured

    handle = model.bert.encoder.layer[0].register_forward_pre_hook(catch, with_kwargs=True)
    try:
        model(**batch)
    except _Captured:
        pass
    finally:
        handle.remove()
    args, kwargs = caught[0]
    kwargs = dict(kwargs)
    hidden = args[0] if args else kwargs.pop("hidden_states")
    return hidden, (args[1:], kwargs)


def _run(block: nn.Module, hidden: Tensor, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> Tensor:
    args, kwargs = arguments
    output = block(hidden, *args, **kwargs)
    # A tuple up to transformers 4, a tensor from 5 on.
    result: Tensor = output[0] if isinstance(output, tuple) else output
    return result


@contextmanager
def _stop_at(module: nn.Module) -> Iterator[list[Tensor]]:
    caught: list[Tensor] = []

    def catch(_: nn.Module, args: tuple[Any, ...]) -> None:
        caught.append(args[0])
        raise _Captured

    handle = module.register_forward_pre_hook(catch)
    try:
        yield caught
    except _Captured:
        pass
    finally:
        handle.remove()


def _input_of(
    block: nn.Module, linear_name: str, hidden: Tensor, arguments: tuple[tuple[Any, ...], dict[str, Any]]
) -> Tensor:
    """Input `(batch, sequence, in)` of a linear layer, without running what comes after it."""
    with _stop_at(block.get_submodule(linear_name)) as caught:
        _run(block, hidden, arguments)
    return caught[0]
