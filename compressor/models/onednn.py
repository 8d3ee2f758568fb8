"""Linear layers computed by oneDNN where PyTorch's own way leaves half of the processor idle.

PyTorch multiplies float32 matrices with MKL, which leaves the AVX-512 units of AMD's processors idle.
oneDNN, which PyTorch has on board as well, uses them: MiniLM's linear layers take half of the time. Results
differ by rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from compressor.system.environment import processor_vendor

# oneDNN compiles a kernel for each shape of a weight and each number of tokens, and keeps the last 1,024.
# Layers of different widths have more than that: compiling anew takes longer than what is saved.
MOST_SHAPES = 8


@cache
def is_faster() -> bool:
    """Whether oneDNN multiplies faster here than what PyTorch takes by itself."""
    return (
        processor_vendor() == "AuthenticAMD"
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
    )


@contextmanager
def onednn_linears(*models: nn.Module) -> Iterator[None]:
    """Within it the models' linear layers are computed by oneDNN, if that is faster here.

    On a GPU, in another precision than float32 or under autocast they are what they always are, and so are
    those of a model whose layers have different widths.
    """
    linears = [linear for model in models for linear in _sped_up(model)] if is_faster() else []
    for linear in linears:
        # The class alone differs: parameters, names and hooks stay, as does a copy made meanwhile.
        linear.__class__ = OneDnnLinear
    try:
        yield
    finally:
        for linear in linears:
            linear.__class__ = nn.Linear


def _sped_up(model: nn.Module) -> list[nn.Linear]:
    linears = [module for module in model.modules() if type(module) is nn.Linear]
    return linears if len({linear.weight.shape for linear in linears}) <= MOST_SHAPES else []


class OneDnnLinear(nn.Linear):
    """A linear layer that oneDNN computes, forwards and backwards."""

    def forward(self, input: Tensor) -> Tensor:
        """`(..., out)` from `(..., in)`."""
        if (
            input.device.type != "cpu"
            or not input.dtype == self.weight.dtype == torch.float32
            or not input.numel()
            or torch.is_autocast_enabled("cpu")
        ):
            return super().forward(input)
        output: Tensor = _Linear.apply(input, self.weight, self.bias)
        return output


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        context.save_for_backward(input, weight)
        return _product(input, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = context.saved_tensors
        of_input, of_weight, of_bias = context.needs_input_grad
        rows = gradient.reshape(-1, gradient.shape[-1])
        return (
            _product(gradient, weight.t()) if of_input else None,
            _product(rows.t(), input.reshape(-1, input.shape[-1]).t()) if of_weight else None,
            rows.sum(dim=0) if of_bias else None,
        )


def _product(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`input @ weight.T + bias`."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    return product
