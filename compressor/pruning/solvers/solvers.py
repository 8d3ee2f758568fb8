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

from compressor.pruning.patterns import NM, MaskPattern, Unstructured, pruned_count
from compressor.pruning.solvers.exchange import exchange
from compressor.pruning.solvers.supports import least_squares

# Rows are eliminated together as long as their private inverses stay under this size.
ELIMINATION_BYTES = 128 * 2**20
DAMPING_ATTEMPTS = 4
# Of a mean square, what is left of a variance of 0 by products in float32.
ROUNDING = 8 * torch.finfo(torch.float32).eps
SWEEP_BLOCK = 128
# ADMM steps between two looks at the support, after each of which the penalty rises.
RHO_INTERVAL = 3


class UnsolvableError(ArithmeticError):
    """No damping that was tried makes the Hessian positive definite."""


def damped(hessian: Tensor, share: float, mean_square: float = 0.0) -> tuple[Tensor, float]:
    """Add a ridge, `share` of the mean diagonal, raised tenfold until a Cholesky succeeds.

    Constant inputs, as those of a pooler on [CLS] where no attention is left, have no variance, and any
    weight will do, with its bias. Their ridge is the mean square itself, which keeps the dense weight.

    Args:
        hessian: `(in, in)`, `Xh^T Xh` of centred inputs.
        share: above 0.
        mean_square: mean diagonal of `Xh^T Xh` before the inputs were centred; 0 if they were not.

    Returns:
        The damped Hessian and the ridge that was added.

    Raises:
        UnsolvableError: after `DAMPING_ATTEMPTS`; the identity is never used instead.
    """
    mean_diagonal = float(hessian.diagonal().mean())
    is_constant = mean_diagonal <= ROUNDING * mean_square
    identity = torch.eye(hessian.shape[0], dtype=hessian.dtype, device=hessian.device)
    for attempt in range(DAMPING_ATTEMPTS):
        ridge = mean_square if is_constant else share * 10**attempt * mean_diagonal
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


def exact(target: Tensor, hessian: Tensor, pattern: MaskPattern) -> tuple[Tensor, Tensor]:
    """Optimal-brain-surgeon elimination (eq. 1 and 2), every row on its own, rows in batches.

    In each step every row drops `p = argmin w_p^2 / [H^-1]_pp` and corrects the others,
    `w -= w_p / [H^-1]_pp H^-1[:, p]`; p is then eliminated from its inverse,
    `H^-1 -= H^-1[:, p] H^-1[p, :] / [H^-1]_pp`. With N:M a group that has lost `m - n` weights
    is closed. Time O(out * in^3 * sparsity), memory `in^2` for each row of a batch.

    Where the layer as a whole is ranked, every row is eliminated to its end, the cheapest steps of
    all rows are taken (a row's steps in their order), and the rest is solved by least squares.

    Args:
        target: `(out, in)`, the adapted weight W_bar.
        hessian: `(in, in)`, positive definite.
        pattern: unstructured or N:M.

    Returns:
        Weight `(out, in)`, and its mask, False where it is exactly zero.
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    rows = max(1, ELIMINATION_BYTES // (inverse.numel() * inverse.element_size()))
    whole_layer = isinstance(pattern, Unstructured) and pattern.scope == "layer"
    steps = target.shape[1] if whole_layer else pruned_count(target.shape[1], pattern.sparsity)
    parts = [_eliminate(part.clone(), inverse, pattern, steps) for part in target.split(rows)]
    weight, mask, order, losses = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    if whole_layer:
        # A dearer step before a cheaper one of its row makes both cost the dearer one's price.
        prices = losses.cummax(dim=1).values
        ranks = prices.flatten().argsort(stable=True)[: pruned_count(target.numel(), pattern.sparsity)]
        dropped = torch.zeros_like(mask).flatten().scatter_(0, ranks, True).reshape(mask.shape)
        mask = torch.ones_like(mask).scatter_(1, order, ~dropped)
        weight = least_squares(target, hessian, mask)
    return weight, mask


def _eliminate(
    weight: Tensor, inverse: Tensor, pattern: MaskPattern, steps: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weight, mask, and `(rows, steps)` the place and the loss of each row's steps."""
    out_features = weight.shape[0]
    inverses = inverse.expand(out_features, -1, -1).clone()
    alive = torch.ones_like(weight, dtype=torch.bool)
    each = torch.arange(out_features, device=weight.device)
    order = torch.zeros(out_features, steps, dtype=torch.int64, device=weight.device)
    lost = torch.zeros(out_features, steps, dtype=weight.dtype, device=weight.device)
    for step in range(steps):
        diagonal = inverses.diagonal(dim1=1, dim2=2)
        losses = torch.where(alive, weight.square() / diagonal, torch.inf)
        if isinstance(pattern, NM):
            groups = alive.reshape(out_features, -1, pattern.m)
            is_open = (groups.sum(dim=2, keepdim=True) > pattern.n).expand_as(groups)
            losses = losses.masked_fill(~is_open.reshape(losses.shape), torch.inf)
        drop = losses.argmin(dim=1)
        order[:, step], lost[:, step] = drop, losses[each, drop]
        column = inverses[each, :, drop]
        pivot = column[each, drop]
        weight -= (weight[each, drop] / pivot)[:, None] * column
        inverses.baddbmm_(column[:, :, None], (column / pivot[:, None])[:, None, :], alpha=-1)
        alive[each, drop] = False
        # The eliminated row and column are zero now; a one keeps the division above defined.
        inverses[each, drop, drop] = 1.0
        weight *= alive
    return weight, alive, order, lost


def greedy(target: Tensor, hessian: Tensor, pattern: MaskPattern) -> tuple[Tensor, Tensor]:
    """One pass over the columns as in SparseGPT, then exact least squares on the support it chose.

    The quickest of the solvers, and the least exact. Arguments and result as `exact`.
    """
    _, mask = column_sweep(target, hessian, pattern)
    return least_squares(target, hessian, mask), mask


def column_sweep(weight: Tensor, hessian: Tensor, pattern: MaskPattern) -> tuple[Tensor, Tensor]:
    """SparseGPT's sweep (Frantar & Alistarh, ICML 2023, algorithm 1) on one matrix.

    Columns are taken from left to right. A column's dropped weights are compensated in the columns
    to its right, through the upper Cholesky factor U of H^-1. Masks are chosen block by block, by
    `w^2 / U_jj^2`: unstructured over the whole block, so that rows may differ (unless the pattern
    ranks each row), N:M at each group's start.

    Args:
        weight: `(out, in)`.
        hessian: `(in, in)`, positive definite, of weight's dtype.
        pattern: unstructured or N:M.

    Returns:
        The pruned weight, and its mask.
    """
    weight = weight.clone()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    upper = torch.linalg.cholesky(inverse, upper=True)
    mask = torch.ones_like(weight, dtype=torch.bool)
    in_features = weight.shape[1]
    width = pattern.m if isinstance(pattern, NM) else SWEEP_BLOCK
    for start in range(0, in_features, width):
        block = slice(start, min(start + width, in_features))
        scores = weight[:, block].square() / upper.diagonal()[block].square()
        mask[:, block] = _sweep_mask(scores, start, pattern)
        stop = min(start + width, in_features)
        errors = torch.zeros_like(weight[:, block])
        for column in range(start, stop):
            dropped = weight[:, column] * ~mask[:, column]
            error = dropped / upper[column, column]
            weight[:, column + 1 : stop] -= error[:, None] * upper[column, column + 1 : stop]
            weight[:, column] -= dropped
            errors[:, column - start] = error
        # What lies to the right of the block gets its corrections in one product.
        weight[:, stop:] -= errors @ upper[block, stop:]
    return weight * mask, mask


def _sweep_mask(scores: Tensor, start: int, pattern: MaskPattern) -> Tensor:
    """The mask of one block of columns, of which `start` lie to the left."""
    if isinstance(pattern, NM):
        return pattern.mask(scores)
    ranked = scores if pattern.scope == "row" else scores.reshape(1, -1)
    rows, share = len(scores) // len(ranked), pattern.sparsity
    # Cumulative counts make the total exact whatever the block's share is.
    count = pruned_count(rows * (start + scores.shape[1]), share) - pruned_count(rows * start, share)
    drop = ranked.argsort(dim=1, stable=True)[:, :count]
    return torch.ones_like(ranked, dtype=torch.bool).scatter_(1, drop, False).reshape(scores.shape)


def fast(
    target: Tensor, hessian: Tensor, pattern: MaskPattern, iterations: int = 60
) -> tuple[Tensor, Tensor]:
    """ADMM search for the support, swaps of its contested places, and exact least squares on it.

    The search follows ALPS (Meng, Behdin, Wang, Mazumder, NeurIPS 2024): with the problem scaled to
    a unit diagonal, a dense solution P and a sparse one D are pulled together by multipliers V
    while the penalty rho rises, faster the more the support still changes. One eigendecomposition
    of the Hessian serves all rows and iterations. Its support is then improved row by row.

    Args:
        target: `(out, in)`, the adapted weight W_bar.
        hessian: `(in, in)`, positive definite.
        pattern: unstructured or N:M.
        iterations: most ADMM steps; fewer if the support settles.

    Returns:
        Weight `(out, in)`, and its mask, False where it is exactly zero.
    """
    scale = hessian.diagonal().sqrt()
    scaled_hessian = hessian / torch.outer(scale, scale)
    scaled_target = target * scale
    scores = _admm_scores(scaled_target, scaled_hessian, pattern, iterations)
    weight, mask = exchange(scaled_target, scaled_hessian, pattern.mask(scores), scores, pattern)
    return weight / scale, mask


def _admm_scores(target: Tensor, hessian: Tensor, pattern: MaskPattern, iterations: int) -> Tensor:
    """Magnitudes `(out, in)` float32 whose ranks are the support; single precision is enough here."""
    eigenvalues, vectors = torch.linalg.eigh(hessian.float())
    gradient = (target @ hessian).float()
    kept = max(1, round(target.numel() * (1 - pattern.sparsity)))
    rho = 0.1
    sparse = target.float()
    multipliers = torch.zeros_like(sparse)
    mask = torch.ones_like(sparse, dtype=torch.bool)
    # One product with (H + rho)^-1, or two with its factors: what is less work until rho changes.
    made = hessian.shape[0] < RHO_INTERVAL * target.shape[0]
    for step in range(iterations):
        right = gradient - multipliers + rho * sparse
        if made and step % RHO_INTERVAL == 0:
            inverse = (vectors / (eigenvalues + rho)) @ vectors.T
        dense = right @ inverse if made else ((right @ vectors) / (eigenvalues + rho)) @ vectors.T
        candidate = dense + multipliers / rho
        new_mask = pattern.mask(candidate.abs())
        sparse = candidate * new_mask
        multipliers = multipliers + rho * (dense - sparse)
        if step % RHO_INTERVAL == RHO_INTERVAL - 1:
            changed = int((new_mask ^ mask).sum()) / kept
            mask = new_mask
            if changed == 0:
                break
            rho *= 1.3 if changed > 0.1 else 1.2 if changed > 0.005 else 1.1
    scores: Tensor = candidate.abs()
    return scores


def solve(
    target: Tensor, hessian: Tensor, pattern: MaskPattern, solver: str, iterations: int
) -> tuple[Tensor, Tensor]:
    """Run the solver of that name: weight and mask; a pattern without zeros needs none."""
    whole = torch.ones_like(target, dtype=torch.bool)
    if pattern.is_met_by(whole):
        return target, whole
    if solver == "exact":
        return exact(target, hessian, pattern)
    if solver == "greedy":
        return greedy(target, hessian, pattern)
    return fast(target, hessian, pattern, iterations)
