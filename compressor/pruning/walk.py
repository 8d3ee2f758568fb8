"""Walks the dense and the pruned model side by side, encoder layer by encoder layer.

Each linear layer's inputs are seen in both models for the same tokens: `X` in the dense model, and
`Xh`, drifted, after the part that is pruned already. Only their second moments are kept. The hidden
states between two encoder layers are in a file, and what is as large as they are, such as attention masks
over all pairs of tokens, is made anew for each batch: the memory in use hardly grows with the calibration
data, by a few bytes a token. Padding never enters a moment.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import torch
from torch import Tensor, nn

from compressor.errors import UserError
from compressor.models.batching import Batch, Encoded, inputs_of, pad, sorted_batches
from compressor.models.encoders.layout import EncoderLayout
from compressor.models.encoders.registry import layout_of
from compressor.models.structure import linear_at
from compressor.models.transformers_versions import hidden_states_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


# The positional and the named arguments of a call.
_Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]


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

    def add_weighted(self, rows: Tensor, weights: Tensor, dense: Tensor) -> None:
        """Add rows that count `weights`, which sum up to a number of tokens.

        Args:
            rows: `(rows, in)` of Xh.
            weights: `(rows,)`.
            dense: `(rows, in)` of X.
        """
        counts = weights.double()
        self.count += round(float(counts.sum()))
        self.dense_sum += counts @ dense.double()
        self.pruned_sum += counts @ rows.double()
        weighted = counts[:, None] * rows.double()
        self.square += weighted.T @ rows.double()
        self.cross += dense.double().T @ weighted

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
    def mean_square(self) -> float:
        """Mean diagonal of Xh^T Xh, before the inputs are centred."""
        return float(self.square.diagonal().mean())

    @property
    def centred_cross(self) -> Tensor:
        """`(in, in)` float64: X^T Xh of centred inputs."""
        return self.cross - torch.outer(self.dense_sum, self.pruned_mean)

    def hessian_of(self, *, has_bias: bool) -> Tensor:
        """Return a layer's Hessian: centred where a bias takes up the means, else of inputs as they are."""
        return self.hessian if has_bias else self.square

    def cross_of(self, *, has_bias: bool) -> Tensor:
        """Return `(in, in)` float64, X^T Xh, centred as `hessian_of`."""
        return self.centred_cross if has_bias else self.cross


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
    arguments: _Arguments
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


class _CompactBatch:
    """A padded batch in 6 bytes a token, where the model's input takes 24."""

    def __init__(self, batch: Batch) -> None:
        self.shape = tuple(batch["input_ids"].shape)
        self.tokens: Tensor = batch["attention_mask"].bool()
        self._inputs = {name: _smallest(value) for name, value in batch.items()}
        self._types = {name: value.dtype for name, value in batch.items()}

    def whole(self) -> Batch:
        """The batch as it was given."""
        return {name: value.to(self._types[name]) for name, value in self._inputs.items()}


def _smallest(value: Tensor) -> Tensor:
    """Whole numbers in the smallest type that holds them."""
    low, high = (int(end) for end in value.aminmax()) if value.numel() else (0, 0)
    for dtype in (torch.uint8, torch.int32):
        bounds = torch.iinfo(dtype)
        if bounds.min <= low and high <= bounds.max:
            return value.to(dtype)
    return value


class _States:
    """Hidden states of each batch, in one temporary file without a name, which ends with this object.

    The file is read and written batch by batch and not mapped into memory: mapped pages count as the
    process's own memory wherever there is room for them.

    Args:
        shapes: of each batch's states, `(batch, sequence, hidden)`.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], dtype: torch.dtype) -> None:
        self._shapes, self._dtype = shapes, dtype
        sizes = [math.prod(shape) * dtype.itemsize for shape in shapes]
        self._starts = [0, *itertools.accumulate(sizes)]
        self._folder = "the folder for temporary files"
        with self._complaint():
            self._folder = tempfile.gettempdir()
            self._file = tempfile.TemporaryFile(prefix="compress-states-", buffering=0)  # noqa: SIM115

    def __len__(self) -> int:
        return len(self._shapes)

    def __iter__(self) -> Iterator[Tensor]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> Tensor:
        """The states of a batch as a tensor of its own, on the CPU."""
        states = torch.empty(self._shapes[index], dtype=self._dtype)
        rest = _bytes_of(states)
        self._file.seek(self._starts[index])
        while rest:
            count = self._file.readinto(rest)
            if not count:
                raise RuntimeError(f"batch {index} of the calibration states was never written")
            rest = rest[count:]
        return states

    def __setitem__(self, index: int, states: Tensor) -> None:
        rest = _bytes_of(states.detach().to("cpu", self._dtype).contiguous())
        self._file.seek(self._starts[index])
        with self._complaint():
            while rest:
                rest = rest[self._file.write(rest) :]

    @contextmanager
    def _complaint(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self._folder}: no space for {self._starts[-1] / 1e6:.0f} MB of calibration states "
                f"({error.strerror}); set TMPDIR to another folder, or use fewer --calibration-examples"
            ) from error


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU."""
    return memoryview(tensor.view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]


class BlockPairs(Sequence[BlockPair]):
    """The batches in front of an encoder layer, each read from the walk's files when it is asked for."""

    def __init__(self, pair: Callable[[int], BlockPair], count: int) -> None:
        self._pair, self._count = pair, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> BlockPair: ...

    @overload
    def __getitem__(self, index: slice) -> list[BlockPair]: ...

    def __getitem__(self, index: int | slice) -> BlockPair | list[BlockPair]:
        places = range(self._count)[index]
        return self._pair(places) if isinstance(places, int) else [self._pair(place) for place in places]


class SideBySide:
    """The two models and the hidden states that enter their next encoder layer.

    Args:
        dense: the model to reproduce; is not changed.
        pruned: of the same shape, pruned by the caller from the first layer on; or the same model, where
            there is nothing to reproduce.
        batches: calibration data, padded.

    Raises:
        UserError: there is no space for the hidden states.
    """

    def __init__(
        self,
        dense: PreTrainedModel,
        pruned: PreTrainedModel,
        batches: Sequence[Batch],
    ) -> None:
        self._models = (dense, pruned)
        self._layout = layout_of(dense)
        self._batches = [_CompactBatch(batch) for batch in batches]
        self._index = 0
        self._device = dense.device
        self._dense_states = self._new_states()
        self._pruned_states = self._dense_states if dense is pruned else self._new_states()
        # All is written here, so that a disk without room for it shows before anything is solved.
        for i, batch in enumerate(batches):
            self._dense_states[i] = _enter_encoder(self._layout, dense, batch)[0]
            if pruned is not dense:
                # Embeddings are never pruned, but those of the pruned model may have been trained.
                self._pruned_states[i] = _enter_encoder(self._layout, pruned, batch)[0]

    def _new_states(self) -> _States:
        width = self.dense.config.hidden_size
        return _States([(*batch.shape, width) for batch in self._batches], self.dense.dtype)

    @property
    def batches(self) -> list[Batch]:
        """Calibration data, padded."""
        return [batch.whole() for batch in self._batches]

    @property
    def dense(self) -> PreTrainedModel:
        """The model to reproduce."""
        return self._models[0]

    @property
    def blocks(self) -> tuple[nn.Module, nn.Module]:
        """The encoder layer that is next, in the dense and in the pruned model."""
        dense, pruned = (self._layout.blocks(model)[self._index] for model in self._models)
        return dense, pruned

    def _arguments(self, index: int, model: PreTrainedModel) -> _Arguments:
        """What a model calls its next encoder layer with for a batch besides hidden states.

        Made anew each time: an attention mask over all pairs of tokens is larger than the states are. Each
        model makes its own, since they may depend on weights outside the encoder layers.
        """
        place = self._layout.called_like(model, self._index)
        return _enter_encoder(self._layout, model, self._batches[index].whole(), place)[1]

    @torch.no_grad()
    def moments(self, linear_name: str, *, drifted: bool = True) -> Moments:
        """Moments of the inputs of a linear layer of the next encoder layer, over real tokens.

        Args:
            linear_name: within an encoder layer, as the model's layout has it.
            drifted: if not, the dense model's inputs stand for the pruned model's as well.
        """
        dense_block, pruned_block = self.blocks
        weight = linear_at(dense_block, linear_name).weight
        moments = Moments.zeros(weight.shape[1], weight.device)
        apart = drifted and pruned_block is not dense_block
        for i, batch in enumerate(self._batches):
            arguments = self._arguments(i, self.dense)
            dense_input = _input_of(
                dense_block, linear_name, self._dense_states[i].to(self._device), arguments
            )
            further = self._further_inputs(dense_block, linear_name, arguments, batch)
            pruned_input, pruned_further = dense_input, further
            if apart:
                arguments = self._arguments(i, self._models[1])
                pruned_state = self._pruned_states[i].to(self._device)
                pruned_input = _input_of(pruned_block, linear_name, pruned_state, arguments)
                pruned_further = self._further_inputs(pruned_block, linear_name, arguments, batch)
            moments.add(dense_input[batch.tokens], pruned_input[batch.tokens])
            if further is not None and pruned_further is not None:
                moments.add_weighted(*pruned_further, further[0])
        return moments

    def _further_inputs(
        self, block: nn.Module, linear_name: str, arguments: _Arguments, batch: _CompactBatch
    ) -> tuple[Tensor, Tensor] | None:
        """What the layout says that a linear layer is multiplied with besides hidden states."""
        return self._layout.further_inputs(block, linear_name, arguments[1], batch.tokens.to(self._device))

    @torch.no_grad()
    def block_pairs(self) -> BlockPairs:
        """What enters the next encoder layer of the pruned model, and what it is to give, by batch.

        Raises:
            UserError: there is no space for what it is to give.
        """
        dense_block, _ = self.blocks
        targets = self._new_states()
        for i in range(len(targets)):
            arguments = self._arguments(i, self.dense)
            targets[i] = _run(dense_block, self._dense_states[i].to(self._device), arguments)

        def pair(i: int) -> BlockPair:
            hidden, target = (states[i].to(self._device) for states in (self._pruned_states, targets))
            return BlockPair(hidden, self._arguments(i, self._models[1]), target, self._batches[i].tokens)

        return BlockPairs(pair, len(targets))

    @torch.no_grad()
    def advance(self) -> None:
        """Run the next encoder layer of both models; the one after it is next."""
        dense_block, pruned_block = self.blocks
        passes = [(self.dense, dense_block, self._dense_states)]
        if pruned_block is not dense_block:
            passes.append((self._models[1], pruned_block, self._pruned_states))
        for i in range(len(self._batches)):
            for model, block, states in passes:
                states[i] = _run(block, states[i].to(self._device), self._arguments(i, model))
        self._index += 1

    @torch.no_grad()
    def last_head_inputs(self) -> Tensor:
        """What the dense model's head makes its logits of, `(texts, hidden)`, from where the walk stands."""
        layout, found = self._layout, []
        blocks = layout.blocks(self.dense)
        places = [layout.called_like(self.dense, index) for index in range(len(blocks))]
        for i, batch in enumerate(self._batches):
            hidden = self._dense_states[i].to(self._device)
            arguments = {
                place: _enter_encoder(layout, self.dense, batch.whole(), place)[1]
                for place in set(places[self._index :])
            }
            for block, place in zip(blocks[self._index :], places[self._index :], strict=True):
                hidden = _run(block, hidden, arguments[place])
            # A copy: a view would keep the states of all tokens.
            found.append(layout.head_inputs(self.dense, hidden, batch.tokens.to(self._device)).clone())
        return torch.cat(found)

    def head_inputs(self) -> tuple[Tensor, Tensor]:
        """What the heads of the dense and the pruned model make their logits of, `(texts, hidden)` each."""
        dense, pruned = (
            torch.cat(
                [
                    self._layout.head_inputs(
                        model, state.to(self._device), batch.tokens.to(self._device)
                    ).clone()
                    for state, batch in zip(states, self._batches, strict=True)
                ]
            )
            for model, states in zip(self._models, (self._dense_states, self._pruned_states), strict=True)
        )
        return dense, pruned


@torch.no_grad()
def _enter_encoder(
    layout: EncoderLayout, model: PreTrainedModel, batch: Batch, place: int = 0
) -> tuple[Tensor, _Arguments]:
    """Hidden states that enter the encoder layer at `place`, and the other arguments of its call.

    Taking the arguments from a real call keeps this independent of the transformers version, which
    decides what an encoder layer is called with (the extended attention mask among them).
    """
    caught: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def catch(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        caught.append((args, kwargs))
        raise _Captured

    handle = layout.blocks(model)[place].register_forward_pre_hook(catch, with_kwargs=True)
    try:
        model(**inputs_of(model, batch))
    except _Captured:
        pass
    finally:
        handle.remove()
    args, kwargs = caught[0]
    kwargs = dict(kwargs)
    hidden = args[0] if args else kwargs.pop("hidden_states")
    return hidden, (args[1:], kwargs)


def _run(block: nn.Module, hidden: Tensor, arguments: _Arguments) -> Tensor:
    args, kwargs = arguments
    return hidden_states_of(block(hidden, *args, **kwargs))


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


def _input_of(block: nn.Module, linear_name: str, hidden: Tensor, arguments: _Arguments) -> Tensor:
    """Input `(batch, sequence, in)` of a linear layer, without running what comes after it."""
    with _stop_at(block.get_submodule(linear_name)) as caught:
        _run(block, hidden, arguments)
    return caught[0]
