"""Rows with supports of their own: which places, which part of the Hessian, and their least squares."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Rows are solved together as long as their private matrices stay under this size; larger batches
# are no faster, since they do not fit the processor's cache.
ROW_BATCH_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Places:
    """Some places of each row: `index` (rows, count) int64, and which are `real` and no filler."""

    index: Tensor
    real: Tensor

    def joined(self, other: Places) -> Places:
        """These places and then those of `other`."""
        return Places(torch.cat([self.index, other.index], 1), torch.cat([self.real, other.real], 1))


def places_of(among: Tensor, priority: Tensor, count: int) -> Places:
    """The `count` places of highest priority among those of a mask, in each row.

    Rows that have fewer are filled up with other places.

    Args:
        among: `(rows, in)` bool.
        priority: `(rows, in)`, finite.
        count: at most `in` are returned.
    """
    count = min(count, among.shape[1])
    index = torch.where(among, priority, -torch.inf).topk(count, dim=1, sorted=False).indices
    # Ascending, since blocks of the Hessian are gathered faster so.
    index = index.sort(dim=1).values
    return Places(index, among.gather(1, index))


def blocks_of(hessian: Tensor, rows: Places, columns: Places) -> Tensor:
    """The Hessian between places, `(batch, rows, columns)`; fillers stand alone, with a one."""
    blocks = hessian[rows.index[:, :, None], columns.index[:, None, :]]
    if not (rows.real.all() and columns.real.all()):
        blocks.masked_fill_(~(rows.real[:, :, None] & columns.real[:, None, :]), 0.0)
        if rows is columns:
            blocks.diagonal(dim1=1, dim2=2).masked_fill_(~rows.real, 1.0)
    return blocks


def row_batches(counts: Tensor, element_size: int) -> list[Tensor]:
    """Indices of rows, widest first, in batches whose matrices fit `ROW_BATCH_BYTES`.

    Rows that keep about as many are solved together, since each is padded to its batch's widest.

    Args:
        counts: `(rows,)`, width of each row's matrix.
        element_size: bytes of one number.
    """
    order = counts.argsort(descending=True, stable=True)
    batches, start = [], 0
    while start < len(order):
        widest = max(1, int(counts[order[start]]))
        size = max(1, ROW_BATCH_BYTES // (element_size * widest**2))
        batches.append(order[start : start + size])
        start += size
    return batches


def least_squares(target: Tensor, hessian: Tensor, mask: Tensor) -> Tensor:
    """The best weights on a given support: each row's exact least squares.

    Minimises `tr((W - target) H (W - target)^T)` with W zero where `mask` is False; with S a
    row's support, `w_S = H_SS^-1 (H target)_S`.

    Args:
        target: `(out, in)`.
        hessian: `(in, in)`, positive definite.
        mask: `(out, in)` bool; rows may keep different numbers of weights.

    Returns:
        `(out, in)`, exactly zero outside the support.
    """
    right = target @ hessian
    result = torch.zeros_like(target)
    for rows in row_batches(mask.sum(dim=1), target.element_size()):
        support = places_of(mask[rows], torch.zeros_like(right[rows]), int(mask[rows].sum(dim=1).max()))
        if not support.index.shape[1]:
            continue
        factor = torch.linalg.cholesky(blocks_of(hessian, support, support))
        values = right[rows].gather(1, support.index) * support.real
        solved = torch.cholesky_solve(values[:, :, None], factor)[:, :, 0]
        result[rows] = torch.zeros_like(result[rows]).scatter_add_(1, support.index, solved * support.real)
    return result
