"""What a stage returns: its facts, typed, and where its result is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class StageRecord(BaseModel):
    """Facts of a finished stage.

    A record has a field `path`, and can be given wherever a path can: it is an `os.PathLike`. `model_dump()`
    returns what the stage's command prints with `--json`; facts that a stage did not state are left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    if TYPE_CHECKING:
        # Declared by each record, in the order in which its facts are printed.
        path: Path | str

    def __fspath__(self) -> str:
        return str(self.path)

    @model_serializer(mode="wrap")
    def _stated(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Serialize the facts that were stated; paths as text."""
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in serialize(self).items()
            if name in self.model_fields_set
        }
