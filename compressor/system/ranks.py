"""Several processes that `torchrun` started to share out one command's work."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# Shares of work may take very different times; a rank that dies ends the others through torchrun.
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Ranks:
    """This process among those that share the work.

    Attributes:
        rank: its number, from 0; the first one writes the result and prints it.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this one writes and prints."""
        return self.rank == 0

    def share(self, values: Mapping[str, float]) -> dict[str, float]:
        """What all ranks bring together; each key is one rank's."""
        if self.world == 1:
            return dict(values)
        import torch.distributed

        shares: list[dict[str, float]] = [{}] * self.world
        torch.distributed.all_gather_object(shares, dict(values))
        found: dict[str, float] = {}
        for share in shares:
            found |= share
        return found

    def owner(self, item: int) -> int:
        """The rank whose share has an item; items are counted from 0."""
        return item % self.world

    def broadcast(self, tensors: Iterable[Tensor], source: int = 0) -> None:
        """Overwrite the tensors of every rank with those of one, in place."""
        if self.world > 1:
            import torch

            for tensor in tensors:
                carried = tensor.detach().cpu()
                torch.distributed.broadcast(carried, source)
                tensor.copy_(carried)

    def wait(self) -> None:
        """Return once all ranks are here."""
        if self.world > 1:
            import torch.distributed

            torch.distributed.barrier()


def ranks_of_environment() -> Ranks:
    """What `torchrun` says of this process; alone where it was not started by that."""
    return Ranks(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def join_ranks() -> Ranks:
    """This process, connected to the others; on a machine with several GPUs each has its own."""
    ranks = ranks_of_environment()
    if ranks.world > 1:
        import torch

        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo", timeout=PATIENCE)
    return ranks


def local_world() -> int:
    """How many ranks share this machine's processor."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
