"""Where transformers 4.57 and 5 differ: all else here is written once, for both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def takes_out_heads(model_class: type[PreTrainedModel]) -> bool:
    """Whether models of a class lack the heads that `pruned_heads` lists; version 5 does not heed it."""
    return hasattr(model_class, "prune_heads")


def names_of_mismatched(keys: Iterable[Any]) -> list[str]:
    """Names of weights of another shape: version 5 reports each with two shapes."""
    return sorted(key if isinstance(key, str) else str(key[0]) for key in keys)


def hidden_states_of(output: Any) -> Tensor:
    """Hidden states that an encoder layer returns: in a tuple before version 5."""
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found
