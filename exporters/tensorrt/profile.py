"""The shapes that one TensorRT engine takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compressor.errors import UserError


@dataclass(frozen=True)
class Profile:
    """The shapes that one engine takes, and those that its kernels are chosen for (`opt`).

    Batches are numbers of texts, sequences numbers of tokens.

    Raises:
        UserError: not 1 <= min <= opt <= max.
    """

    min_batch: int
    opt_batch: int
    max_batch: int
    min_sequence: int
    opt_sequence: int
    max_sequence: int

    def __post_init__(self) -> None:
        for axis in ("batch", "sequence"):
            low, best, high = (getattr(self, f"{bound}_{axis}") for bound in ("min", "opt", "max"))
            if not 1 <= low <= best <= high:
                raise UserError(
                    f"profile: {axis} has min {low}, opt {best}, max {high}; they must rise from 1 or more"
                )

    def problem(self, max_position_embeddings: int) -> str | None:
        """Return why a model of so many positions cannot take these shapes, or None."""
        if self.max_sequence <= max_position_embeddings:
            return None
        return (
            f"max_sequence {self.max_sequence} is more than the {max_position_embeddings} positions of the "
            f"model; lower it"
        )

    def arguments(self, names: Sequence[str]) -> list[str]:
        """Return trtexec's options for these shapes, for inputs `(batch, sequence)` of these names."""
        shapes = {bound: (getattr(self, f"{bound}_batch"), getattr(self, f"{bound}_sequence"))
                  for bound in ("min", "opt", "max")}  # fmt: skip
        return [
            f"--{bound}Shapes={','.join(f'{name}:{batch}x{sequence}' for name in names)}"
            for bound, (batch, sequence) in shapes.items()
        ]
