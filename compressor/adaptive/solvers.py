"""Layer-wise solvers: pure functions of (weight, hessian, pattern), no files, no state.

The problem of one layer, `(out, in)` weights and `H = Xh^T Xh + ridge`:

    minimise  tr((W - W_bar) H (W - W_bar)^T)   with W of the given sparsity pattern,

where `W_bar` is the dense weight that maps the pruned model's drifted inputs back to the dense
model's outputs. Equation numbers are those of Li et al., EMNLP 2023 (arXiv 2310.13191). All tensors
of a call share one dtype and device; results are computed and returned in that dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compressor.patterns import NM, Pattern, pruned_count

# Rows are solved together as long as their private matrices stay under this size.
ROW_BATCH_BYTES = 128 * 2**20
DAMPING_ATTEMPTS = 4


class UnsolvableError(ArithmeticError):
    """No damping that was tried makes the Hessian positive definite."""


def damped(hessian: Tensor, share: float) -> tuple[Tensor, float]:
    """Add a ridge, `share` of the mean diagonal, raised tenfold until a Cholesky succeeds.

    Returns:
        The damped Hessian and the ridge that was added.

    Raises:
        UnsolvableError: after `DAMPING_ATTEMPTS`; the identity is never used instead.
    """
    mean_diagonal = float(hessian.diagonal().mean())
    identity = torch.eye(hessian.shape[0], dtype=hessian.dtype, device=hessian.device)
    for attempt in range(DAMPING_ATTEMPTS):
        ridge = share * 10**attempt * mean_diagonal
        candidate = hessian + ridge * identity
        if ridge > 0 and int(torch.linalg.cholesky_ex(candidate).info) == 0:
            return candidate, ridge
    raise UnsolvableError(
        f"the Hessian is not positive definite with a ridge of {ridge:g} (mean diagonal {mean_diagonal:g})"
    )


def adapted_weight(weight: Tensor, hessian: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """The adaptive dense weight (eq. 5), with a ridge that pulls towards the dense weight.

    Minimises `||X W^T - Xh W_bar^T||^2 + ridge ||W_bar - W||^2`, whose solution is
    `W (X^T Xh + ridge I) H^-1`.

    Args:
        weight: `(out, in)`, the dense weight W.
        hessian: `(in, in)`, `Xh^T Xh + ridge I` of centred inputs.
        cross: `(in, in)`, `X^T Xh` of centred inputs.
        ridge: what was added to the Hessian's diagonal.

    Returns:
        `(out, in)`.
    """
    factor = torch.linalg.cholesky(hessian)
    right = weight @ cross + ridge * weight
    return torch.cholesky_solve(right.T, factor).T


def reconstruction_error(weight: Tensor, target: Tensor, hessian: Tensor) -> float:
    """`tr((W - W_bar) H (W - W_bar)^T)` relative to `tr(W_bar H W_bar^T)`, in float64."""
    difference = (weight - target).double()
    hessian, target = hessian.double(), target.double()
    energy = float(((target @ hessian) * target).sum())
    return float(((difference @ hessian) * difference).sum()) / energy if energy > 0 else 0.0


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
    most = int(mask.sum(dim=1).max())
    result = torch.zeros_like(target)
    if most == 0:
        return result
    rows = max(1, ROW_BATCH_BYTES // (most * most * target.element_size()))
    for start in range(0, target.shape[0], rows):
        batch = slice(start, start + rows)
        # Kept positions first, in their order; rows with fewer are filled up with an identity block.
        support = mask[batch].int().argsort(dim=1, descending=True, stable=True)[:, :most]
        real = mask[batch].gather(1, support)
        blocks = hessian[support[:, :, None], support[:, None, :]]
        if not real.all():
            blocks.masked_fill_(~(real[:, :, None] & real[:, None, :]), 0.0)
            blocks.diagonal(dim1=1, dim2=2)[~real] = 1.0
        values = right[batch].gather(1, support) * real
        solved = torch.cholesky_solve(values[:, :, None], torch.linalg.cholesky(blocks))[:, :, 0]
        result[batch] = torch.zeros_like(result[batch]).scatter_(1, support, solved * real)
    return result


def exact(target: Tensor, hessian: Tensor, pattern: Pattern) -> tuple[Tensor, Tensor]:
    """Optimal-brain-surgeon elimination (eq. 1 and 2), every row on its own, rows in batches.

    In each step every row drops `p = argmin w_p^2 / [H^-1]_pp` and corrects the others,
    `w -= w_p / [H^-1]_pp H^-1[:, p]`; p is then eliminated from its inverse,
    `H^-1 -= H^-1[:, p] H^-1[p, :] / [H^-1]_pp`. With N:M a group that has lost `m - n` weights
    is closed. Time O(out * in^3 * sparsity), memory `in^2` for each row of a batch.

    Args:
        target: `(out, in)`, the adapted weight W_bar.
        hessian: `(in, in)`, positive definite.
        pattern: unstructured (per row) or N:M.

    Returns:
        Weight `(out, in)`, and its mask, False where it is exactly zero.
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    rows = max(1, ROW_BATCH_BYTES // (inverse.numel() * inverse.element_size()))
    weights, masks = zip(
        *[_eliminate(part.clone(), inverse, pattern) for part in target.split(rows)], strict=True
    )
    return torch.cat(weights), torch.cat(masks)


def _eliminate(weight: Tensor, inverse: Tensor, pattern: Pattern) -> tuple[Tensor, Tensor]:
    out_features, in_features = weight.shape
    inverses = inverse.expand(out_features, -1, -1).clone()
    alive = torch.ones_like(weight, dtype=torch.bool)
    each = torch.arange(out_features, device=weight.device)
    for _ in range(pruned_count(in_features, pattern.sparsity)):
        diagonal = inverses.diagonal(dim1=1, dim2=2)
        losses = torch.where(alive, weight.square() / diagonal, torch.inf)
        if isinstance(pattern, NM):
            groups = alive.reshape(out_features, -1, pattern.m)
            is_open = (groups.sum(dim=2, keepdim=True) > pattern.n).expand_as(groups)
            losses = losses.masked_fill(~is_open.reshape(losses.shape), torch.inf)
        drop = losses.argmin(dim=1)
        column = inverses[each, :, drop]
        pivot = column[each, drop]
        weight -= (weight[each, drop] / pivot)[:, None] * column
        inverses.baddbmm_(column[:, :, None], (column / pivot[:, None])[:, None, :], alpha=-1)
        alive[each, drop] = False
        # The eliminated row and column are zero now; a one keeps the division above defined.
        inverses[each, drop, drop] = 1.0
        weight *= alive
    return weight, alive


def fast(target: Tensor, hessian: Tensor, pattern: Pattern, iterations: int = 60) -> tuple[Tensor, Tensor]:
    """ADMM search for the support, then exact least squares on it.

    Follows ALPS (Meng, Behdin, Wang, Mazumder, NeurIPS 2024): with the problem scaled to a unit
    diagonal, a dense solution P and a sparse one D are pulled together by multipliers V while the
    penalty rho rises, faster the more the support still changes. One eigendecomposition of the
    Hessian serves all rows and iterations.

    Args:
        target: `(out, in)`, the adapted weight W_bar.
        hessian: `(in, in)`, positive definite.
        pattern: unstructured (per row) or N:M.
        iterations: most ADMM steps; fewer if the support settles.

    Returns:
        Weight `(out, in)`, and its mask, False where it is exactly zero.
    """
    mask = _admm_support(target, hessian, pattern, iterations)
    return least_squares(target, hessian, mask), mask


def _admm_support(target: Tensor, hessian: Tensor, pattern: Pattern, iterations: int) -> Tensor:
    scale = hessian.diagonal().sqrt()
    scaled_hessian = hessian / torch.outer(scale, scale)
    scaled_target = target * scale
    eigenvalues, vectors = torch.linalg.eigh(scaled_hessian)
    gradient = scaled_target @ scaled_hessian
    kept = max(1, round(target.numel() * (1 - pattern.sparsity)))
    rho = 0.1
    sparse = scaled_target.clone()
    multipliers = torch.zeros_like(sparse)
    mask = torch.ones_like(sparse, dtype=torch.bool)
    for step in range(iterations):
        right = gradient - multipliers + rho * sparse
        dense = ((right @ vectors) / (eigenvalues + rho)) @ vectors.T
        candidate = dense + multipliers / rho
        new_mask = pattern.mask(candidate.abs())
        sparse = candidate * new_mask
        multipliers = multipliers + rho * (dense - sparse)
        if step % 3 == 2:
            changed = int((new_mask ^ mask).sum()) / kept
            mask = new_mask
            if changed == 0:
                break
            rho *= 1.3 if changed > 0.1 else 1.2 if changed > 0.005 else 1.1
    return pattern.mask(candidate.abs())


def solve(
    target: Tensor, hessian: Tensor, pattern: Pattern, solver: str, iterations: int
) -> tuple[Tensor, Tensor]:
    """Run the solver of that name: weight and mask; a pattern without zeros needs none."""
    if pruned_count(target.shape[1], pattern.sparsity) == 0:
        return target, torch.ones_like(target, dtype=torch.bool)
    if solver == "exact":
        return exact(target, hessian, pattern)
    return fast(target, hessian, pattern, iterations)
