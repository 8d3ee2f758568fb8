"""Modules that stand in, while TextAttack is imported, for packages that it need not have.

It imports flair for flair's own taggers, which no attack here asks for; flair holds transformers below 5. It
imports editdistance for one function, which the package Levenshtein has too, with wheels for more versions of
Python. Both stand in whether the packages are installed or not, so that their versions do not matter.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

from compressor.errors import UserError

NEEDS_FLAIR = (
    "a tagger of flair is asked for, and TextAttack was imported without flair: pip install flair, and "
    "import it before TextAttack, as in the package that registers the attack"
)


class Tokenizer:
    """The base class of TextAttack's own tokenizer for flair."""


class Sentence:
    """What flair's taggers tag."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise UserError(NEEDS_FLAIR)


class SequenceTagger:
    """A tagger of flair."""

    @classmethod
    def load(cls, *_: Any, **__: Any) -> NoReturn:
        """Raise the `UserError` that says how to get one."""
        raise UserError(NEEDS_FLAIR)


@contextmanager
def standing_in() -> Iterator[None]:
    """Let imports of these packages find the stand-ins, unless the program has imported them itself."""
    made = {name: module for name, module in _modules().items() if name.partition(".")[0] not in sys.modules}
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in made:
            sys.modules.pop(name, None)


def _modules() -> dict[str, ModuleType]:
    """Make the stand-ins, by name."""
    import Levenshtein

    names = ("flair", "flair.data", "flair.models", "editdistance")
    made = flair, data, models, editdistance = [ModuleType(name, __doc__) for name in names]
    vars(data).update(Tokenizer=Tokenizer, Sentence=Sentence)
    vars(models).update(SequenceTagger=SequenceTagger)
    vars(flair).update(__path__=[], data=data, models=models)
    vars(editdistance).update(eval=Levenshtein.distance)
    return dict(zip(names, made, strict=True))
