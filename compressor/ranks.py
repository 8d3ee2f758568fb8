"""Several processes that `torchrun` started to share out one command's work."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

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
