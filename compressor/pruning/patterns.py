"""Sparsity patterns: which weights of one matrix may be zero together.

A pattern turns scores into a mask with an exact number of zeros, and checks a mask. Matrices are
PyTorch's, `(out_features, in_features)`; groups and rows run along `in_features`, the reduction
axis, which is the one that sparse tensor cores and reconstruction need. A structured pattern takes
heads and neurons out instead.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import torch
from torch import Tensor

from compressor.errors import UserError
from compressor.options import Scope

# The 15 digits of a sparsity are this near to it.
CUT_OFF = Fraction(1, 10**15)


def pruned_count(size: int, sparsity: float) -> int:
    """Return how many of `size` weights are zero at `sparsity`: the floor of their exact product.

    The sparsity counts as the decimal of 15 digits that it stands for, so that 0.29 of 100 is 29 and not 28;
    and a count that falls short by no more than these digits cut off is whole, so that 1 / 3 of 3 is 1.
    """
    return math.floor((Fraction(f"{sparsity:.15g}") + CUT_OFF) * size)


@dataclass(frozen=True)
class Unstructured:
    """Any weight may go: a share `sparsity`, of every row or of the layer as a whole.

    Attributes:
        scope: where weights are ranked; None leaves it to the algorithm.
    """

    sparsity: float
    scope: Scope | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.sparsity < 1.0:
            raise UserError(f"sparsity {self.sparsity}: must be at least 0 and less than 1")

    def __str__(self) -> str:
        return "unstructured"

    def check_shape(self, name: str, weight: Tensor) -> None:
        """Every matrix can be pruned so."""

    def mask(self, scores: Tensor, scope: Scope = "row") -> Tensor:
        """Keep the highest scores.

        Args:
            scores: `(out_features, in_features)`, any floating dtype; higher means kept.
            scope: rank within each row, or over the whole matrix, if the pattern does not say.

        Returns:
            Bool tensor of the same shape, True where the weight stays. Each row has exactly
            `pruned_count(in_features, sparsity)` zeros; with scope "layer" the matrix has
            `pruned_count(out_features * in_features, sparsity)`.
        """
        ranked = scores if (self.scope or scope) == "row" else scores.reshape(1, -1)
        pruned = pruned_count(ranked.shape[1], self.sparsity)
        lowest = ranked.topk(pruned, dim=1, largest=False, sorted=False).indices
        mask = torch.ones_like(ranked, dtype=torch.bool).scatter_(1, lowest, False)
        return mask.reshape(scores.shape)

    def is_met_by(self, mask: Tensor) -> bool:
        """Whether `mask` has each row's number of zeros, or the layer's, as `scope` says; None takes both."""
        zeros = mask.logical_not()
        by_row = bool((zeros.sum(dim=1) == pruned_count(mask.shape[1], self.sparsity)).all())
        by_layer = bool(zeros.sum() == pruned_count(mask.numel(), self.sparsity))
        return by_row if self.scope == "row" else by_layer if self.scope == "layer" else by_row or by_layer


@dataclass(frozen=True)
class NM:
    """At most `n` of every `m` consecutive weights along `in_features` are not zero."""

    n: int
    m: int

    def __post_init__(self) -> None:
        if not 0 < self.n < self.m:
            raise UserError(f"pattern {self.n}:{self.m}: N:M keeps N of M weights, so 0 < N < M")

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    @property
    def sparsity(self) -> float:
        """Share of zeros, `1 - n / m`."""
        return 1.0 - self.n / self.m

    def check_shape(self, name: str, weight: Tensor) -> None:
        """Raise a `UserError` if `m` does not divide `in_features`."""
        if weight.shape[1] % self.m:
            raise UserError(
                f"pattern {self}: {name} has {weight.shape[1]} input features, which {self.m} does "
                f"not divide; choose an M that divides them"
            )

    def mask(self, scores: Tensor, scope: Scope = "row") -> Tensor:
        """Keep the `n` highest scores of each group of `m`; `scope` has no effect on groups."""
        del scope
        groups = scores.reshape(scores.shape[0], -1, self.m)
        lowest = groups.topk(self.m - self.n, dim=2, largest=False, sorted=False).indices
        mask = torch.ones_like(groups, dtype=torch.bool).scatter_(2, lowest, False)
        return mask.reshape(scores.shape)

    def is_met_by(self, mask: Tensor) -> bool:
        """Whether each group of `mask` keeps exactly `n` of `m`."""
        if mask.shape[1] % self.m:
            return False
        return bool((mask.reshape(mask.shape[0], -1, self.m).sum(dim=2) == self.n).all())


@dataclass(frozen=True)
class Structured:
    """Whole attention heads and whole neurons of the feed-forward part are taken out of each layer.

    The model gets smaller, and no weight in it is zero for it.

    Attributes:
        sparsity: share of each layer that goes; None where a latency decides, layer by layer.
    """

    sparsity: float | None

    def __post_init__(self) -> None:
        if self.sparsity is not None and not 0.0 <= self.sparsity < 1.0:
            raise UserError(f"sparsity {self.sparsity}: must be at least 0 and less than 1")

    def __str__(self) -> str:
        return "structured"

    def check_shape(self, name: str, weight: Tensor) -> None:
        """Every model has heads and neurons."""

    @property
    def share(self) -> float:
        """Share of each layer that goes.

        Raises:
            ValueError: a latency decides.
        """
        if self.sparsity is None:
            raise ValueError("how much of a layer goes is decided by a latency")
        return self.sparsity

    def removed_count(self, size: int) -> int:
        """How many of a layer's heads, or neurons, go."""
        return pruned_count(size, self.share)


# Patterns that zero weights, and all of them.
MaskPattern: TypeAlias = Unstructured | NM
Pattern: TypeAlias = MaskPattern | Structured


def parse_pattern(text: str, sparsity: float | None, scope: Scope | None = None) -> Pattern:
    """Make a pattern of what a person wrote.

    Args:
        text: `unstructured`, `structured`, or `N:M` such as `2:4`.
        sparsity: share of zeros, in [0, 1); None means 0.5, or what N:M implies.
        scope: where the weights of an unstructured pattern are ranked.

    Raises:
        UserError: unknown pattern, sparsity out of bounds, or sparsity at odds with N:M.
    """
    if text == "unstructured":
        return Unstructured(0.5 if sparsity is None else sparsity, scope)
    if scope is not None:
        raise UserError(f"scope {scope}: only weights of pattern unstructured are ranked so; leave it out")
    if text == "structured":
        return Structured(0.5 if sparsity is None else sparsity)
    match = re.fullmatch(r"(\d{1,4}):(\d{1,4})", text)
    if not match:
        raise UserError(f"pattern {text!r}: unknown; say unstructured, structured, or N:M such as 2:4")
    pattern = NM(int(match[1]), int(match[2]))
    if sparsity is not None and abs(sparsity - pattern.sparsity) > 1e-6:
        raise UserError(
            f"sparsity {sparsity}: pattern {text} always has {pattern.sparsity:g}; "
            f"leave --sparsity out, or choose another N:M"
        )
    return pattern
