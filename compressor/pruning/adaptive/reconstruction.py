"""Block-wise reconstruction: a pruned encoder layer is tuned to give the dense one's output.

The linear layers were solved one by one; what is left is what attention, activation and norms make
of their errors together. A few passes of Adam over the calibration states, no labels, zeros fixed
(the idea of BRECQ, Li et al., ICLR 2021, applied to a pruned block).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from compressor.pruning.walk import SideBySide


def reconstruct_block(
    walk: SideBySide,
    masks: Mapping[str, Tensor],
    *,
    passes: int,
    learning_rate: float,
    generator: torch.Generator,
) -> tuple[float, float]:
    """Tune the next encoder layer of the pruned model, in place.

    Minimises the squared difference of the two models' outputs over real tokens, weights outside
    their mask fixed at zero.
    The layer keeps the best of its states, the one it had included.

    Args:
        walk: stands in front of the layer.
        masks: bool, for each weight to keep its zeros, by the parameter's name in the layer.
        passes: over the calibration batches.
        learning_rate: peak, falls to zero along a cosine.
        generator: draws the order of the batches.

    Returns:
        The sum of squared differences before and after.
    """
    block = walk.blocks[1]
    pairs = walk.block_pairs()
    parameters = dict(block.named_parameters())
    optimizer = torch.optim.Adam(parameters.values(), lr=learning_rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, passes * len(pairs)))
    before = best = float(sum(pair.squared_error(block).item() for pair in pairs))
    best_state = {name: value.detach().clone() for name, value in parameters.items()}
    tokens = sum(int(pair.tokens.sum()) for pair in pairs)
    for _ in range(passes):
        for i in torch.randperm(len(pairs), generator=generator).tolist():
            with torch.enable_grad():
                for value in parameters.values():
                    value.requires_grad_(True)
                loss = pairs[i].squared_error(block) / tokens
                gradients = torch.autograd.grad(loss, list(parameters.values()))
            for value, gradient in zip(parameters.values(), gradients, strict=True):
                value.grad = gradient
            optimizer.step()
            scheduler.step()
            for name, mask in masks.items():
                parameters[name].data.mul_(mask)
        total = float(sum(pair.squared_error(block).item() for pair in pairs))
        if total < best:
            best = total
            best_state = {name: value.detach().clone() for name, value in parameters.items()}
    for name, value in parameters.items():
        value.grad = None
        value.data.copy_(best_state[name])
    return before, best
