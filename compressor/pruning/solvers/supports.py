"""Rows with supports of their own: which places, which part of the Hessian, and their least squares."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

# Rows are solved together as long as their private matrices stay under this size; larger batches
# are no faster, since they do not fit the processor's cache.
ROW_BATCH_BYTES = 32 * 2**20
# On a GPU the launches of small kernels take the time, as long for a few rows as for hundreds.
ROW_BATCH_BYTES_ON_CUDA = 512 * 2**20
# Each has such matrices of its own.
MOST_WORKERS = 8


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
    if hessian.is_cuda:
        blocks = hessian[rows.index[:, :, None], columns.index[:, None, :]]
    else:
        # Copies of whole rows, and then columns, are several times faster here.
        blocks = hessian.new_empty(*rows.index.shape, columns.index.shape[1])
        for block, row_index, column_index in zip(blocks, rows.index, columns.index, strict=True):
            torch.index_select(hessian.index_select(0, row_index), 1, column_index, out=block)
    if not (rows.real.all() and columns.real.all()):
        blocks.masked_fill_(~(rows.real[:, :, None] & columns.real[:, None, :]), 0.0)
        if rows is columns:
            blocks.diagonal(dim1=1, dim2=2).masked_fill_(~rows.real, 1.0)
    return blocks


def row_batches(counts: Tensor, element_size: int) -> list[Tensor]:
    """Indices of rows, widest first, in batches whose matrices fit `ROW_BATCH_BYTES`, or its like on CUDA.

    Rows that keep about as many are solved together, since each is padded to its batch's widest.

    Args:
        counts: `(rows,)`, width of each row's matrix, on the device of the matrices.
        element_size: bytes of one number.
    """
    limit = ROW_BATCH_BYTES_ON_CUDA if counts.is_cuda else ROW_BATCH_BYTES
    order = counts.argsort(descending=True, stable=True)
    batches, start = [], 0
    while start < len(order):
        widest = max(1, int(counts[order[start]]))
        size = max(1, limit // (element_size * widest**2))
        batches.append(order[start : start + size])
        start += size
    return batches


def for_each_batch(solve: Callable[[Tensor], None], batches: Sequence[Tensor]) -> None:
    """Run `solve` on every batch of rows; on a processor, one batch a thread.

    The factorisations of a batch are too small to gain from threads of their own.

    Args:
        solve: is given the rows' indices; writes its results to those rows alone.
        batches: as `row_batches` makes them.
    """
    threads = torch.get_num_threads()
    workers = min(threads, MOST_WORKERS, len(batches))
    if workers < 2 or batches[0].is_cuda:
        for rows in batches:
            solve(rows)
        return
    try:
        # Sets the threads of the worker that calls it, and those of threads that are yet to come.
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            deque(pool.map(solve, batches), maxlen=0)
    finally:
        torch.set_num_threads(threads)


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

    def solve(rows: Tensor) -> None:
        support = places_of(mask[rows], torch.zeros_like(right[rows]), int(mask[rows].sum(dim=1).max()))
        if not support.index.shape[1]:
            return
        factor = torch.linalg.cholesky(blocks_of(hessian, support, support))
        values = right[rows].gather(1, support.index) * support.real
        solved = torch.cholesky_solve(values[:, :, None], factor)[:, :, 0]
        result[rows] = torch.zeros_like(result[rows]).scatter_add_(1, support.index, solved * support.real)

    for_each_batch(solve, row_batches(mask.sum(dim=1), target.element_size()))
    return result


def saliencies(target: Tensor, hessian: Tensor, pruned: Tensor, mask: Tensor) -> Tensor:
    """What each weight is worth to the output, `|w_ij| sqrt(H_jj)`: those of a mask rank above all others.

    The size of its part of the output, as in Wanda (Sun et al., 2024), of the pruned weight where the mask
    keeps it and of the target elsewhere.

    Args:
        target, pruned: `(out, in)`.
        hessian: `(in, in)`.
        mask: `(out, in)` bool, True where `pruned` keeps a weight.

    Returns:
        `(out, in)`, not negative.
    """
    norms = hessian.diagonal().sqrt()
    others = (target.abs() * norms).masked_fill(mask, 0.0)
    # A kept weight may be solved to be zero, and is kept all the same.
    above = (others.max() * (1 + 1e-6)).clamp(min=torch.finfo(others.dtype).tiny)
    return torch.where(mask, above + pruned.abs() * norms, others)
