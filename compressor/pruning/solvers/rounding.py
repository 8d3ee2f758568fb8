"""Rounding of a weight to integers so that the layer's outputs change least, not the weight itself."""

from __future__ import annotations

import torch
from torch import Tensor

from compressor.pruning.solvers.solvers import SWEEP_BLOCK


def round_columns(weight: Tensor, hessian: Tensor, steps: Tensor, largest: int) -> Tensor:
    """Round a weight column by column; each column's rounding error is made up for by the columns after it.

    The sweep of GPTQ (Frantar, Ashkboos, Hoefler, Alistarh, ICLR 2023, eq. 2 and 3), which is the optimal
    brain surgeon's with rounding in place of removal: with U the upper Cholesky factor of H^-1, the error
    `e = (w_j - q_j) / U_jj` of column j is taken off the columns to its right, `w -= e U_j`. Columns are
    taken in falling order of H_jj, since the first have the most columns left to make up for them. A weight
    that is 0 stays 0.

    Args:
        weight: `(out, in)`.
        hessian: `(in, in)`, positive definite, of weight's dtype.
        steps: `(out,)`, above 0: what one integer is worth in each row.
        largest: of the integers' absolute values.

    Returns:
        Integers `(out, in)`, of weight's dtype.
    """
    order = hessian.diagonal().argsort(descending=True, stable=True)
    scaled = (weight / steps[:, None])[:, order]
    is_kept = scaled != 0
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian[order][:, order]))
    upper = torch.linalg.cholesky(inverse, upper=True)
    rounded = torch.zeros_like(scaled)
    for start in range(0, scaled.shape[1], SWEEP_BLOCK):
        stop = min(start + SWEEP_BLOCK, scaled.shape[1])
        errors = torch.zeros_like(scaled[:, start:stop])
        for column in range(start, stop):
            own = scaled[:, column]
            rounded[:, column] = own.round().clamp(-largest, largest) * is_kept[:, column]
            error = (own - rounded[:, column]) / upper[column, column]
            scaled[:, column + 1 : stop] -= error[:, None] * upper[column, column + 1 : stop]
            errors[:, column - start] = error
        # What lies to the right of the block gets its corrections in one product.
        scaled[:, stop:] -= errors @ upper[start:stop, stop:]
    result = torch.empty_like(rounded)
    result[:, order] = rounded
    return result
