"""Finds the layout of a model family: those of this package, and those that installed packages bring along.

A package brings a family along with an entry point of the group `compress.encoders`: its name is the
`model_type` of the family's configurations, its object an `EncoderLayout`. What is here comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

from compressor.errors import UserError, first_line
from compressor.models.encoders.layout import EncoderLayout
from compressor.options.registry import entry_points_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

GROUP = "compress.encoders"
# Module and name of each layout by its model type; imported when it is asked for.
BUILT_IN: Mapping[str, str] = {
    "bert": "compressor.models.encoders.bert:BERT",
    "roberta": "compressor.models.encoders.roberta:ROBERTA",
    "xlm-roberta": "compressor.models.encoders.roberta:XLM_ROBERTA",
    "camembert": "compressor.models.encoders.roberta:CAMEMBERT",
    "electra": "compressor.models.encoders.electra:ELECTRA",
    "distilbert": "compressor.models.encoders.distilbert:DISTILBERT",
    "mpnet": "compressor.models.encoders.mpnet:MPNET",
    "modernbert": "compressor.models.encoders.modernbert:MODERNBERT",
    "deberta-v2": "compressor.models.encoders.deberta:DEBERTA",
}


def find_layout(model_type: object) -> EncoderLayout | None:
    """Return the layout of a `model_type` as a `config.json` has it; None where no such family is known.

    Raises:
        UserError: an installed package says that it has the layout, and has none.
    """
    if not isinstance(model_type, str):
        return None
    if model_type in BUILT_IN:
        return _built_in(model_type)
    entry = _others().get(model_type)
    return None if entry is None else _load(entry)


def layout_of_type(model_type: object) -> EncoderLayout:
    """Return the layout of a `model_type`.

    Raises:
        UserError: no such family is known; names those that are.
    """
    found = find_layout(model_type)
    if found is None:
        raise UserError(unknown_family(model_type))
    return found


def layout_of(model: PreTrainedModel) -> EncoderLayout:
    """Return the layout of a model, a classifier or an encoder, by its configuration.

    Raises:
        UserError: its family is not known.
    """
    return layout_of_type(model.config.model_type)


def unknown_family(model_type: object) -> str:
    """Say that a model's family is not known, and which are."""
    names = [*(_built_in(name).title for name in BUILT_IN), *_others()]
    known = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    return f"is a {model_type} model; only {known} models can be used"


def missing_family() -> str:
    """Say what to do about a `config.json` that does not tell the family of its model."""
    choices = [f'"{name}" of {_built_in(name).title}' for name in BUILT_IN]
    choices += [f'"{name}"' for name in _others()]
    return f'add "model_type": {" or ".join(choices)}'


def known_layouts() -> list[EncoderLayout]:
    """Return the layouts of all families, those of this package first."""
    return [*(_built_in(name) for name in BUILT_IN), *(_load(entry) for entry in _others().values())]


def _built_in(model_type: str) -> EncoderLayout:
    found: EncoderLayout = EntryPoint(model_type, BUILT_IN[model_type], GROUP).load()
    return found


def _others() -> dict[str, EntryPoint]:
    """Entry point of each family that an installed package brings along, by its model type."""
    return {name: found[-1] for name, found in entry_points_of(GROUP).items() if name not in BUILT_IN}


def _load(entry: EntryPoint) -> EncoderLayout:
    where = f"{entry.dist.name if entry.dist else 'an installed package'}: entry point {GROUP}: {entry.name}"
    try:
        found: Any = entry.load()
    except Exception as error:  # whatever code of others raises
        raise UserError(
            f"{where}: {entry.value} cannot be imported: {first_line(error)}; mend or uninstall that package"
        ) from error
    if not isinstance(found, EncoderLayout):
        raise UserError(
            f"{where}: {entry.value} is no {EncoderLayout.__name__}; mend or uninstall that package"
        )
    return found
