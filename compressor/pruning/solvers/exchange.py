"""Local search on a support: swaps of kept and dropped weights, ended by exact least squares.

A good mask search leaves a few places per row that are nearly as good in as out. For each row the
weights that are surely kept are factorised away; on the *contested* ones, inside and outside, swaps
are made as long as they lower the row's error. `(out, in)` weights, `(in, in)` Hessians.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compressor.pruning.patterns import NM, MaskPattern
from compressor.pruning.solvers.supports import blocks_of, for_each_batch, places_of, row_batches

# Share of a row's kept weights that is contested, and as many of the dropped ones, and the most of
# them: more of them cost more than they gain. Most rows come to rest after swapping 2 or 3 %.
CONTESTED_SHARE = 0.4
MOST_CONTESTED = 32
SWAP_SHARE = 0.05
# Of a refined solution of single precision, relative to the gradient at zero; 1e-9 is usual.
GRADIENT_TOLERANCE = 1e-7
# Below this width a factorisation is as fast as the products that would replace it.
INVERSE_BASE = 48


def exchange(
    target: Tensor, hessian: Tensor, mask: Tensor, scores: Tensor, pattern: MaskPattern
) -> tuple[Tensor, Tensor]:
    """Improve each row's support by swaps, and solve its least squares on it.

    A swap takes in the dropped weight whose entry lowers the error most, less the cheapest exit in
    exchange for it, and then drops what has become cheapest; each step lowers the error
    `(w - t) H (w - t)^T` or leaves the row as it is. With N:M both are of one group, otherwise of
    one row, so the numbers that `mask` keeps stay what they are.

    The search runs in float32, the least squares is refined to the precision of the arguments.

    Args:
        target: `(out, in)` float64.
        hessian: `(in, in)` float64, positive definite, of unit diagonal.
        mask: `(out, in)` bool, the support to start from.
        scores: `(out, in)`, how sure the choice of each place is: high inside, low outside.
        pattern: decides between which places a swap may be.

    Returns:
        Weight `(out, in)` float64, exactly zero outside its mask, and that mask.
    """
    right = target @ hessian
    sureness = _sureness(mask, scores, pattern)
    weight, kept = torch.zeros_like(target), mask.clone()
    single = hessian.float()

    def solve(rows: Tensor) -> None:
        problem = right[rows], hessian, mask[rows], sureness[rows], pattern
        solved = _exchange_rows(*problem, working=single)
        if not _is_least_squares(right[rows], hessian, *solved):
            # The Hessian is too ill-conditioned for single precision.
            solved = _exchange_rows(*problem, working=hessian)
        weight[rows], kept[rows] = solved

    for_each_batch(solve, row_batches(mask.sum(dim=1), single.element_size()))
    return weight, kept


def _is_least_squares(right: Tensor, hessian: Tensor, weight: Tensor, mask: Tensor) -> bool:
    """Whether the gradient of every row vanishes on its support, up to `GRADIENT_TOLERANCE`."""
    gradient = ((right - weight @ hessian) * mask).norm(dim=1)
    # Written so that NaN is no least squares.
    return bool((gradient <= GRADIENT_TOLERANCE * right.norm(dim=1)).all())


def _sureness(mask: Tensor, scores: Tensor, pattern: MaskPattern) -> Tensor:
    """Scores relative to the least that is kept and the most that is dropped in their row or group.

    Places near 1 are contested, whatever the level of scores in their group is.
    """
    if not isinstance(pattern, NM):
        return scores
    groups = (scores.shape[0], -1, pattern.m)
    inside = torch.where(mask, scores, torch.inf).reshape(groups).amin(dim=2, keepdim=True)
    outside = torch.where(mask, 0.0, scores).reshape(groups).amax(dim=2, keepdim=True)
    boundary = (inside * outside).sqrt().clamp_min(torch.finfo(scores.dtype).tiny)
    return (scores.reshape(groups) / boundary).reshape(scores.shape)


def _exchange_rows(
    right: Tensor, hessian: Tensor, mask: Tensor, sureness: Tensor, pattern: MaskPattern, working: Tensor
) -> tuple[Tensor, Tensor]:
    """Weight and mask of a batch of rows, searched for with the Hessian `working` in its precision.

    The weight is no least squares, or not finite, where that was not enough.
    """
    kept_mean = float(mask.sum(dim=1).double().mean())
    contested = min(max(1, round(CONTESTED_SHARE * kept_mean)), MOST_CONTESTED)
    inside = places_of(mask, -sureness, contested)
    outside = places_of(~mask, sureness, contested)
    sure_mask = mask.scatter(1, inside.index, mask.gather(1, inside.index) & ~inside.real)
    sure = places_of(sure_mask, sureness, int(sure_mask.sum(dim=1).max()))
    open_places = inside.joined(outside)
    # Sure weights w_P = H_PP^-1 (r_P - H_PQ w_Q) are solved away: L L^T = H_PP, Y = L^-1 H_PQ.
    factor, info = torch.linalg.cholesky_ex(blocks_of(working, sure, sure))
    factor = torch.where((info == 0)[:, None, None], factor, torch.nan)
    coupling = torch.linalg.solve_triangular(factor, blocks_of(working, sure, open_places), upper=False)
    schur = blocks_of(working, open_places, open_places)
    schur.baddbmm_(coupling.transpose(1, 2), coupling, alpha=-1)

    def reduced(values: Tensor) -> tuple[Tensor, Tensor]:
        """`L^-1 r_P`, and the right side `r_Q - Y^T L^-1 r_P` of the contested places."""
        values = values.to(working.dtype)
        own = (values.gather(1, sure.index) * sure.real)[:, :, None]
        own = torch.linalg.solve_triangular(factor, own, upper=False)
        rest = values.gather(1, open_places.index) * open_places.real
        return own, rest - (coupling.transpose(1, 2) @ own)[:, :, 0]

    def expanded(own: Tensor, contested_weight: Tensor) -> Tensor:
        """All of the rows' weights from those of the contested places, float64."""
        own = own - coupling @ contested_weight[:, :, None]
        own = torch.linalg.solve_triangular(factor.transpose(1, 2), own, upper=True)[:, :, 0]
        result = torch.zeros_like(right)
        result.scatter_add_(1, sure.index, (own * sure.real).to(right.dtype))
        return result.scatter_add_(1, open_places.index, contested_weight.to(right.dtype))

    own, rest = reduced(right)
    tableau = _Tableau(schur, rest, inside.real, most_swaps=max(1, round(SWAP_SHARE * kept_mean)))
    group_size = pattern.m if isinstance(pattern, NM) else mask.shape[1]
    tableau.swap(open_places.index // group_size, open_places.real)
    weight = expanded(own, tableau.values * tableau.inside)
    kept = sure_mask.int().scatter_add(1, open_places.index, tableau.inside.int()) > 0
    # One step of refinement with a residual in the arguments' precision.
    own, rest = reduced((right - weight @ hessian) * kept)
    weight = weight + expanded(own, tableau.solve(rest))
    return weight * kept, kept


class _Tableau:
    """The contested weights of each row, some inside and some outside, under symmetric sweeps.

    With S the Hessian left for the contested places and b its right side, K the places inside and J
    those outside, it stands for the matrix of

        M_KK = -S_KK^-1     M_KJ = S_KK^-1 S_KJ     M_JJ = S_JJ - S_JK S_KK^-1 S_KJ,

    and holds `values`, the weights of K and the gradients of J. Taking place t in or out sweeps M
    there, which is a change of rank one and of one diagonal entry:
    `M -= (m_t -+ e_t)(m_t -+ e_t)^T / M_tt +- 2 e_t e_t^T`. Changes are kept as vectors beside the
    first M, and columns are made when they are needed.

    Args:
        schur: `(rows, contested, contested)`, S; its content is used up.
        rest: `(rows, contested)`, b.
        real: `(rows, inside)` bool, which of the first places are inside; the other are outside.
    """

    def __init__(self, schur: Tensor, rest: Tensor, real: Tensor, most_swaps: int) -> None:
        rows, size = rest.shape
        count = real.shape[1]
        inverse = spd_inverse(schur[:, :count, :count])
        projected = inverse @ schur[:, :count, count:]
        weight = (inverse @ rest[:, :count, None])[:, :, 0]
        gradient = rest[:, count:] - (projected.transpose(1, 2) @ rest[:, :count, None])[:, :, 0]
        schur[:, count:, count:].baddbmm_(schur[:, count:, :count], projected, alpha=-1)
        schur[:, :count, :count] = -inverse
        schur[:, :count, count:] = projected
        schur[:, count:, :count] = projected.transpose(1, 2)
        self.inside = torch.zeros(rows, size, dtype=torch.bool, device=rest.device)
        self.inside[:, :count] = real
        self.values = torch.cat([weight, gradient], dim=1)
        self._first = schur
        self._diagonal = schur.diagonal(dim1=1, dim2=2).clone()
        self._offsets = torch.zeros_like(rest)
        self._changes = rest.new_zeros(rows, 2 * most_swaps, size)
        self._pivots = rest.new_ones(rows, 2 * most_swaps)
        self._sweeps = 0
        self._each = torch.arange(rows, device=rest.device)
        self._most_swaps = most_swaps

    def swap(self, group: Tensor, real: Tensor) -> None:
        """Make swaps between places of the same group until none helps, `most_swaps` at most.

        Args:
            group: `(rows, contested)` int64.
            real: `(rows, contested)` bool; the other places stay as they are.
        """
        group = group - group.amin(dim=1, keepdim=True)
        groups = int(group.max()) + 1
        rejected = ~real
        for _ in range(self._most_swaps):
            change = self.values.square() / self._diagonal.abs()
            exits = torch.where(self.inside & real, change, torch.inf)
            cheapest = change.new_full((len(change), groups), torch.inf)
            cheapest.scatter_reduce_(1, group, exits, "amin")
            gains = change - cheapest.gather(1, group)
            gains = torch.where(self.inside | rejected, -torch.inf, gains)
            enter = gains.argmax(dim=1)
            # Between a gain before and after its entry, the exit's price can fall but not below
            # zero; so an entry with a smaller gain than the price may still pay, and is tried.
            active = torch.isfinite(gains[self._each, enter])
            if not active.any():
                return
            self._sweep(enter, active, entering=True)
            change = self.values.square() / self._diagonal.abs()
            same = group == group[self._each, enter][:, None]
            leave = torch.where(self.inside & real & same, change, torch.inf).argmin(dim=1)
            self._sweep(leave, active, entering=False)
            rejected[self._each, enter] |= active & (leave == enter)

    def _column(self, place: Tensor) -> Tensor:
        column = self._first[self._each, place].clone()
        if self._sweeps:
            changes, pivots = self._changes[:, : self._sweeps], self._pivots[:, : self._sweeps]
            weights = changes[self._each, :, place] / pivots
            column -= (weights[:, None, :] @ changes)[:, 0]
        column[self._each, place] += self._offsets[self._each, place]
        return column

    def _sweep(self, place: Tensor, active: Tensor, *, entering: bool) -> None:
        sign = 1.0 if entering else -1.0
        column = self._column(place)
        pivot = torch.where(active, column[self._each, place], 1.0)
        own_value = self.values[self._each, place]
        vector = column.clone()
        vector[self._each, place] -= sign
        vector = vector * active[:, None]
        self._changes[:, self._sweeps] = vector
        self._pivots[:, self._sweeps] = pivot
        self._sweeps += 1
        step = torch.where(active, own_value / pivot, 0.0)
        self.values = self.values - step[:, None] * column
        self.values[self._each, place] = torch.where(active, sign * own_value / pivot, own_value)
        self._diagonal = self._diagonal - vector.square() / pivot[:, None]
        self._offsets[self._each, place] -= 2.0 * sign * active
        self._diagonal[self._each, place] = torch.where(
            active, -1.0 / pivot, self._diagonal[self._each, place]
        )
        self.inside[self._each, place] = torch.where(active, entering, self.inside[self._each, place])

    def solve(self, right: Tensor) -> Tensor:
        """`S_KK^-1` times the inside part of `right` `(rows, contested)`; zero outside."""
        right = (right * self.inside)[:, :, None]
        product = self._first @ right
        if self._sweeps:
            changes = self._changes[:, : self._sweeps]
            along = (changes @ right) / self._pivots[:, : self._sweeps, None]
            product = product - changes.transpose(1, 2) @ along
        product = product[:, :, 0] + self._offsets * right[:, :, 0]
        return -product * self.inside


def spd_inverse(matrix: Tensor) -> Tensor:
    """Inverse of symmetric positive definite matrices `(batch, n, n)`.

    By halves and their Schur complements: nearly all of it is matrix products, which makes it
    several times faster than LAPACK's inverse of many middle-sized matrices. NaN or infinity where
    a matrix is not positive definite.
    """
    size = matrix.shape[-1]
    if size <= INVERSE_BASE:
        factor, info = torch.linalg.cholesky_ex(matrix)
        failed = (info != 0)[:, None, None]
        # LAPACK's inverse refuses a factor with a zero on its diagonal.
        identity = torch.eye(size, dtype=matrix.dtype, device=matrix.device)
        inverse = torch.cholesky_inverse(torch.where(failed, identity, factor))
        return torch.where(failed, torch.nan, inverse)
    half = size // 2
    corner, side, rest = matrix[:, :half, :half], matrix[:, :half, half:], matrix[:, half:, half:]
    corner_inverse = spd_inverse(corner)
    projected = corner_inverse @ side
    schur_inverse = spd_inverse(torch.baddbmm(rest, side.transpose(1, 2), projected, alpha=-1))
    coupled = projected @ schur_inverse
    inverse = torch.empty_like(matrix)
    inverse[:, :half, :half] = torch.baddbmm(corner_inverse, coupled, projected.transpose(1, 2))
    inverse[:, :half, half:] = -coupled
    inverse[:, half:, :half] = -coupled.transpose(1, 2)
    inverse[:, half:, half:] = schur_inverse
    return inverse
