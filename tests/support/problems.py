"""Random layer-wise problems and float64 references of their solutions."""

import numpy as np
import torch
from hypothesis import strategies as st

from compressor.pruning.patterns import NM, Unstructured

SEEDS = st.integers(0, 2**31 - 1)
PATTERNS = [Unstructured(0.5), Unstructured(0.75), Unstructured(0.3), NM(2, 4), NM(1, 4)]


def problem(seed: int, rows: int, width: int, correlation: float = 0.7) -> tuple[torch.Tensor, torch.Tensor]:
    """A random weight and the Hessian of inputs that share a few directions, float64."""
    generator = np.random.default_rng(seed)
    shared = generator.standard_normal((4 * width, max(1, width // 4)))
    mixing = generator.standard_normal((shared.shape[1], width))
    own = generator.standard_normal((4 * width, width))
    inputs = correlation * shared @ mixing + (1 - correlation) * own
    hessian = inputs.T @ inputs
    hessian += 0.01 * np.diag(hessian).mean() * np.eye(width)
    weight = generator.standard_normal((rows, width))
    return torch.from_numpy(weight), torch.from_numpy(hessian)


def random_mask(seed: int, rows: int, width: int) -> torch.Tensor:
    """Rows keep different numbers of weights; the first keeps none, the last all."""
    generator = np.random.default_rng(seed)
    mask = generator.random((rows, width)) < generator.random((rows, 1))
    mask[0] = False
    mask[-1] = True
    return torch.from_numpy(mask)


def row_losses(weight: np.ndarray, target: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    return np.array([(w - t) @ hessian @ (w - t) for w, t in zip(weight, target, strict=True)])


def best_on_support(target: np.ndarray, hessian: np.ndarray, support: list[int]) -> np.ndarray:
    """One row's least squares on a support, by NumPy's lstsq on the Cholesky factor."""
    root = np.linalg.cholesky(hessian).T
    weight = np.zeros_like(target)
    if support:
        weight[support] = np.linalg.lstsq(root[:, support], root @ target, rcond=None)[0]
    return weight
