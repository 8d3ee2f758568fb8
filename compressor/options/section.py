"""Base of all sections of options: no unknown keys, one-line errors."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

MOST_SHOWN = 100
# Type of errors whose message says all: what is wrong, the value, the way out.
SAID = "said"


@dataclass(frozen=True)
class Common:
    """Mark a field that many users set, as in `sparsity: Annotated[float, Common()]`.

    Help lists the flags of such fields in its first panel and all others in the advanced panels.
    """


class Section(BaseModel):
    """Part of a recipe. Unknown keys are errors; values do not change once checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def said(reason: str) -> PydanticCustomError:
    """Return an error for a validator to raise, whose reason says what is wrong and the way out."""
    return PydanticCustomError(SAID, "{reason}", {"reason": reason})


def describe(problem: Any, model: type[BaseModel]) -> str:
    """Return one of pydantic's errors as one line: key, problem, value, nearest known key."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(part if part.isprintable() and part.strip() else repr(part) for part in location)
    if problem["type"] == "extra_forbidden":
        known = keys_of(_section_at(model, location[:-1]))
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        way_out = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        return f"{key}: unknown key; {way_out}"
    if problem["type"] == SAID:
        return f"{key}: {problem['msg']}"
    message = problem["msg"][:1].lower() + problem["msg"][1:]
    if problem["type"] == "missing":
        return f"{key}: missing; this key is required"
    return f"{key}: {message}, not {shown(problem['input'])}"


def shown(value: Any) -> str:
    """Return a value in Python's notation for an error, long ones truncated."""
    try:
        text = repr(value)
    except ValueError:
        return "a number with more digits than Python writes"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a section, its own before inherited ones."""
    own = inspect.get_annotations(model)
    return dict(sorted(model.model_fields.items(), key=lambda entry: entry[0] not in own))


def is_common(field: FieldInfo) -> bool:
    """Return whether a field is marked as one that many users set."""
    return Common() in field.metadata


def flag_name(field_name: str) -> str:
    """Return the flag of a field: `max_length` -> `--max-length`."""
    return "--" + field_name.replace("_", "-")


def keys_of(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in fields_of(model).items()]


def _section_at(model: type[BaseModel], path: list[str]) -> type[BaseModel]:
    for part in path:
        for name, field in model.model_fields.items():
            if (field.alias or name) == part:
                options = [field.annotation, *get_args(field.annotation)]
                model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return model
