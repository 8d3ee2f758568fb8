"""Randomized masks: pure functions of weights, a target and a generator.

Li et al., Findings of EMNLP 2023 (arXiv 2310.13183), section on randomized mask generation. The
paper states the idea, mild randomness by importance sampling; the exact form of each knob here
(`sampling_ratio`, `temperature`, the schedules) is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from compressor.errors import UserError
from compressor.options import CandidateRatios, CandidateSchedule, SamplingSchedule
from compressor.pruning.patterns import NM, MaskPattern, Unstructured, pruned_count


def draw_masks(
    weights: Mapping[str, Tensor],
    alive: Mapping[str, Tensor],
    pattern: MaskPattern,
    sampling_ratio: float,
    temperature: float,
    generator: torch.Generator,
    *,
    together: bool = False,
) -> dict[str, Tensor]:
    """A mask for each matrix: drawn one after the other, or all as one.

    Args:
        weights, alive: by name; otherwise as in `draw_mask`.
        together: the pattern's zeros are counted over all matrices; unstructured without a scope only.
    """
    if not together:
        return {
            name: draw_mask(weight, alive[name], pattern, sampling_ratio, temperature, generator)
            for name, weight in weights.items()
        }
    one = torch.cat([weight.flatten() for weight in weights.values()])[None]
    one_alive = torch.cat([alive[name].flatten() for name in weights])[None]
    mask = draw_mask(one, one_alive, pattern, sampling_ratio, temperature, generator)
    parts = mask[0].split([weight.numel() for weight in weights.values()])
    return {name: part.reshape(w.shape) for (name, w), part in zip(weights.items(), parts, strict=True)}


def draw_mask(
    weight: Tensor,
    alive: Tensor,
    pattern: MaskPattern,
    sampling_ratio: float,
    temperature: float,
    generator: torch.Generator,
) -> Tensor:
    """Choose which live weights stay: most by magnitude, a share by chance.

    Unstructured, over the whole matrix or in each row as the pattern's scope says: of the k weights
    that stay, `k - round(sampling_ratio * k)` are the largest; the others are drawn without
    replacement from the rest of the live weights, with probability proportional to
    `|w|^(1 / temperature)`. N:M: in a share `sampling_ratio` of the groups all n are drawn so, in
    the other groups the n largest stay. With `sampling_ratio` 0 this is magnitude pruning exactly.
    Time O(n), by the Gumbel top-k trick.

    Args:
        weight: `(out, in)`, any floating dtype.
        alive: `(out, in)` bool, True where a weight may stay.
        pattern: what the mask must meet.
        sampling_ratio: in [0, 1].
        temperature: greater than 0; 1 draws in proportion to magnitude, more is closer to uniform.
        generator: on weight's device.

    Returns:
        Bool `(out, in)`, True where the weight stays; never True where `alive` is False.

    Raises:
        ValueError: fewer live weights than the pattern keeps.
    """
    magnitudes = weight.abs().masked_fill(~alive, -1.0)
    if isinstance(pattern, Unstructured):
        mask = _draw_unstructured(magnitudes, pattern, sampling_ratio, temperature, generator)
    else:
        mask = _draw_groups(magnitudes, pattern, sampling_ratio, temperature, generator)
    if (mask & ~alive).any():
        raise ValueError(f"fewer weights are alive than {pattern} at {pattern.sparsity:g} keeps")
    return mask


def _perturbed(magnitudes: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Gumbel keys: the k largest are a draw of k without replacement; dead weights get -inf."""
    # Drawn on the generator's device: on another one the same seed gives other numbers.
    uniform = torch.rand(magnitudes.shape, generator=generator, device=generator.device, dtype=torch.float64)
    gumbel = -torch.log(-torch.log(uniform.to(magnitudes.device).clamp(min=1e-300)))
    # A live weight of exactly zero can still be drawn, behind all others.
    log_weight = magnitudes.double().clamp(min=1e-300).log() / temperature
    return (log_weight + gumbel).masked_fill(magnitudes < 0, -torch.inf)


def _draw_unstructured(
    magnitudes: Tensor,
    pattern: Unstructured,
    sampling_ratio: float,
    temperature: float,
    generator: torch.Generator,
) -> Tensor:
    rows = magnitudes if pattern.scope == "row" else magnitudes.reshape(1, -1)
    kept = rows.shape[1] - pruned_count(rows.shape[1], pattern.sparsity)
    drawn = round(sampling_ratio * kept)
    if drawn == 0:
        return pattern.mask(magnitudes, scope="layer")
    ranked = rows.topk(kept - drawn, dim=1, sorted=False).indices
    keys = _perturbed(rows, temperature, generator).scatter_(1, ranked, -torch.inf)
    chosen = keys.topk(drawn, dim=1, sorted=False).indices
    mask = torch.zeros_like(rows, dtype=torch.bool).scatter_(1, ranked, True).scatter_(1, chosen, True)
    return mask.reshape(magnitudes.shape)


def _draw_groups(
    magnitudes: Tensor, pattern: NM, sampling_ratio: float, temperature: float, generator: torch.Generator
) -> Tensor:
    by_magnitude = pattern.mask(magnitudes)
    if sampling_ratio == 0:
        return by_magnitude
    by_chance = pattern.mask(_perturbed(magnitudes, temperature, generator))
    groups = (magnitudes.shape[0], magnitudes.shape[1] // pattern.m, 1)
    lots = torch.rand(groups, generator=generator, device=generator.device).to(magnitudes.device)
    shape = (*groups[:2], pattern.m)
    mixed = torch.where(lots < sampling_ratio, by_chance.reshape(shape), by_magnitude.reshape(shape))
    return mixed.reshape(magnitudes.shape)


def step_sampling_ratio(ratio: float, step: int, steps: int, schedule: SamplingSchedule) -> float:
    """The share of drawn weights in a step, counted from 0: the same in all, or falling by equal parts."""
    return ratio if schedule == "constant" else ratio * (steps - step) / steps


def candidate_share(index: int, candidates: int, ratios: CandidateRatios) -> float:
    """The share of the step's sampling ratio that candidate `index` draws with; none for the first one."""
    return index / (candidates - 1) if ratios == "spread" and candidates > 1 else float(index > 0)


def step_candidates(candidates: int, step: int, steps: int, schedule: CandidateSchedule) -> int:
    """How many masks a step, counted from 0, draws: the same in all, or rising by equal parts."""
    return candidates if schedule == "constant" else math.ceil(candidates * (step + 1) / steps)


def step_patterns(
    pattern: MaskPattern, steps: int, schedule: str, sparsities: Sequence[float] | None = None
) -> list[MaskPattern]:
    """The patterns that lead to `pattern`, sparsity rising, the last one being `pattern`.

    Unstructured: sparsity `s (1 - (1 - t)^3)` after a share t of the steps (cubic, Zhu & Gupta,
    2017), or the same share of the live weights goes in each step (geometric). N:M: the number of
    weights that stay in a group falls from m by equal parts, so at most `m - n` steps.

    Args:
        sparsities: of each step, in place of `steps` and `schedule`.

    Raises:
        UserError: these do not rise to that of the pattern, or it is N:M.
    """
    if sparsities is not None:
        return _listed_patterns(pattern, sparsities)
    if isinstance(pattern, NM):
        steps = min(steps, pattern.m - pattern.n)
        return [
            NM(pattern.m - round((pattern.m - pattern.n) * (i + 1) / steps), pattern.m) for i in range(steps)
        ]
    if schedule == "cubic":
        sparsities = [pattern.sparsity * (1 - (1 - (i + 1) / steps) ** 3) for i in range(steps)]
    else:
        sparsities = [1 - (1 - pattern.sparsity) ** ((i + 1) / steps) for i in range(steps)]
    return [*(replace(pattern, sparsity=s) for s in sparsities[:-1]), pattern]


def _listed_patterns(pattern: MaskPattern, sparsities: Sequence[float]) -> list[MaskPattern]:
    rises = all(before < after for before, after in pairwise(sparsities))
    if isinstance(pattern, NM) or not rises or sparsities[-1] != pattern.sparsity:
        raise UserError(
            f"step sparsities {', '.join(map(str, sparsities))}: must rise to {pattern.sparsity}, the "
            f"sparsity of the run, of pattern unstructured; change --step-sparsities or --sparsity"
        )
    return [replace(pattern, sparsity=sparsity) for sparsity in sparsities]
