"""Groups of columns removed with least-squares compensation: attention heads and neurons.

The surgeon's elimination with whole groups in place of single weights, one choice for all rows (as
in ZipLM, Kurtic, Frantar & Alistarh, NeurIPS 2023). Pure functions, float64 as they are called.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Single columns are eliminated lazily: the matrices take in so many steps at once.
LAZY_STEPS = 64


def removal_order(target: Tensor, hessian: Tensor, group_size: int, count: int) -> list[int]:
    """Return the groups of columns in the order in which they go; each number of them is a level.

    Groups go one after the other: the next is `argmin_g tr(W_g ([H^-1]_gg)^-1 W_g^T)`, then
    `W -= W_g ([H^-1]_gg)^-1 [H^-1]_g:` and g leaves the inverse.

    Args:
        target: `(out, in)`.
        hessian: `(in, in)`, positive definite.
        group_size: columns of a group; divides `in`.
        count: groups to remove.
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    if group_size == 1:
        return _order_of_columns(target.clone(), inverse, count)
    return _order_of_groups(target.clone(), inverse, group_size, count)


def kept_columns(width: int, group_size: int, removed: Sequence[int]) -> Tensor:
    """Return which of so many columns stay without these groups, `(width,)` bool."""
    kept = torch.ones(width // group_size, dtype=torch.bool)
    kept[list(removed)] = False
    return kept.repeat_interleave(group_size)


def weight_on(target: Tensor, hessian: Tensor, kept: Tensor) -> Tensor:
    """Return the least squares on the columns that stay: the weight nearest to the target in its outputs.

    Args:
        target: `(out, in)`.
        hessian: `(in, in)`, positive definite.
        kept: `(in,)` bool.

    Returns:
        `(out, kept)`.
    """
    columns = kept.nonzero().flatten().to(target.device)
    if not len(columns):
        return target[:, columns]
    factor = torch.linalg.cholesky(hessian[columns][:, columns])
    solved: Tensor = torch.cholesky_solve((target @ hessian)[:, columns].T, factor).T
    return solved


def _order_of_groups(weight: Tensor, inverse: Tensor, size: int, count: int) -> list[int]:
    """As `removal_order`; both matrices are changed in place."""
    groups = weight.shape[1] // size
    alive = torch.ones(groups, dtype=torch.bool, device=weight.device)
    columns = torch.arange(weight.shape[1], device=weight.device).reshape(groups, size)
    order = []
    for _ in range(count):
        group = int(torch.where(alive, _losses(weight, inverse, columns), torch.inf).argmin())
        own = columns[group]
        # ([H^-1]_gg)^-1 [H^-1]_g: maps what is removed to what corrects the rest.
        correction = torch.linalg.solve(inverse[own][:, own], inverse[own])
        weight -= weight[:, own] @ correction
        inverse -= inverse[:, own] @ correction
        alive[group] = False
        # An eliminated group is zero in the inverse; the identity keeps its loss defined.
        inverse[own[:, None], own] = torch.eye(size, dtype=inverse.dtype, device=inverse.device)
        weight[:, own] = 0.0
        order.append(group)
    return order


def _losses(weight: Tensor, inverse: Tensor, columns: Tensor) -> Tensor:
    """`(groups,)`: what the removal of each group costs."""
    blocks = inverse[columns[:, :, None], columns[:, None, :]]
    own = weight[:, columns].permute(1, 2, 0)
    losses: Tensor = (own * torch.linalg.solve(blocks, own)).sum(dim=(1, 2))
    return losses


def _order_of_columns(weight: Tensor, inverse: Tensor, count: int) -> list[int]:
    """As `removal_order` for single columns; both matrices are changed in place, every `LAZY_STEPS` steps.

    A step with pivot g subtracts `p a a^T` from the inverse and `w a^T` from the weight, where
    `p = [H^-1]_gg`, `a = [H^-1]_g / p` and `w = W_g`. Only row g of the one and column g of the other are
    needed at once; what the losses need, the diagonal and the columns' norms, is kept up to date.
    """
    alive = torch.ones(weight.shape[1], dtype=torch.bool, device=weight.device)
    order: list[int] = []
    while len(order) < count:
        steps = min(LAZY_STEPS, count - len(order))
        rows, pivots = inverse.new_zeros(steps, len(inverse)), inverse.new_zeros(steps)
        taken, removed = weight.new_zeros(len(weight), steps), []
        diagonal, norms = inverse.diagonal().clone(), weight.square().sum(dim=0)
        for step in range(steps):
            column = int(torch.where(alive, norms / diagonal, torch.inf).argmin())
            earlier, shares = rows[:step], rows[:step, column]
            own = weight[:, column] - taken[:, :step] @ shares
            pivots[step] = diagonal[column]
            row = (inverse[column] - (pivots[:step] * shares) @ earlier) / pivots[step]
            product = own @ weight - (own @ taken[:, :step]) @ earlier
            diagonal -= pivots[step] * row.square()
            norms += row * (row * own.square().sum() - 2 * product)
            rows[step], taken[:, step] = row, own
            removed.append(column)
            alive[column] = False
        inverse -= rows.T @ (pivots[:, None] * rows)
        weight -= taken @ rows
        # Eliminated columns are zero in both; the diagonal keeps their loss defined.
        inverse[removed, removed] = 1.0
        weight[:, removed] = 0.0
        order += removed
    return order
