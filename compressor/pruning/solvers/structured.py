"""Groups of columns removed with least-squares compensation: attention heads and neurons.

The surgeon's elimination with whole groups in place of single weights, one choice for all rows (as
in ZipLM, Kurtic, Frantar & Alistarh, NeurIPS 2023). Pure functions, float64 as they are called.
"""

from __future__ import annotations

import torch
from torch import Tensor


def remove_columns(target: Tensor, hessian: Tensor, group_size: int, count: int) -> tuple[Tensor, list[int]]:
    """Remove the `count` groups of columns whose loss, with the others corrected, is least.

    Groups go one after the other: the next is `argmin_g tr(W_g ([H^-1]_gg)^-1 W_g^T)`, then
    `W -= W_g ([H^-1]_gg)^-1 [H^-1]_g:` and g leaves the inverse.

    Args:
        target: `(out, in)`, the adapted weight.
        hessian: `(in, in)`, positive definite.
        group_size: columns of a group; divides `in`.
        count: groups to remove, fewer than there are.

    Returns:
        `(out, in - count * group_size)`, the least squares on the columns that stay, and the
        removed groups, ascending.
    """
    groups = target.shape[1] // group_size
    weight = target.clone()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    alive = torch.ones(groups, dtype=torch.bool, device=target.device)
    columns = torch.arange(target.shape[1], device=target.device).reshape(groups, group_size)
    for _ in range(count):
        losses = _losses(weight, inverse, columns)
        group = int(torch.where(alive, losses, torch.inf).argmin())
        own = columns[group]
        # ([H^-1]_gg)^-1 [H^-1]_g: maps what is removed to what corrects the rest.
        correction = torch.linalg.solve(inverse[own][:, own], inverse[own])
        weight -= weight[:, own] @ correction
        inverse -= inverse[:, own] @ correction
        alive[group] = False
        # An eliminated group is zero in the inverse; the identity keeps its loss defined.
        inverse[own[:, None], own] = torch.eye(group_size, dtype=inverse.dtype, device=inverse.device)
        weight[:, own] = 0.0
    kept = columns[alive].flatten()
    factor = torch.linalg.cholesky(hessian[kept][:, kept])
    solved = torch.cholesky_solve((target @ hessian)[:, kept].T, factor).T
    return solved, (~alive).nonzero().flatten().tolist()


def _losses(weight: Tensor, inverse: Tensor, columns: Tensor) -> Tensor:
    """`(groups,)`: what the removal of each group costs."""
    if columns.shape[1] == 1:
        return weight.square().sum(dim=0) / inverse.diagonal()
    blocks = inverse[columns[:, :, None], columns[:, None, :]]
    own = weight[:, columns].permute(1, 2, 0)
    losses: Tensor = (own * torch.linalg.solve(blocks, own)).sum(dim=(1, 2))
    return losses
