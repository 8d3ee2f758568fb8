"""Texts that an export works with: those of its proof, and those that its options name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from compressor.data.texts import TextData, load_text_data, log_notes
from compressor.errors import UserError
from compressor.models.classifier import Classifier
from compressor.options import ColumnsConfig, ExportConfig
from compressor.system.context import Context
from exporters.lineage import stage_record

# Of texts by which weights are ranked.
FEWEST_OTHERS = 16


@dataclass(frozen=True)
class ExportTexts:
    """Sources of texts beside those of the proof: files or hub ids.

    Attributes:
        calibration: int8 is fitted to them; None takes those that the model was made with, and of a model
            without a record, but for int8-static, texts of the proof's source that are not in the proof.
        reference: go into `reference.json` with the artifact's answers; None takes made ones.
        vocabulary: decide which pieces of the vocabulary are kept; None keeps all.
    """

    calibration: str | None = None
    reference: str | None = None
    vocabulary: str | None = None


def texts_of(
    classifier: Classifier, source: str | None, columns: ColumnsConfig, count: int, seed: int
) -> TextData:
    """Return some texts of a source, or where there is none of what the classifier was made with.

    Raises:
        UserError: they cannot be read, or there is no source and no record of it.
    """
    if source is None:
        recorded = _recorded(classifier)
        if recorded is None:
            raise UserError(
                f"{classifier.source}: no record of the data it was made with; give real texts with "
                f"--data, and with --calibration where int8-static needs them"
            )
        source, columns = recorded
        if Path(source).is_absolute() and not Path(source).is_file():
            raise UserError(
                f"{source}: no such file, though {classifier.source} was made with it; give real texts with "
                f"--data, and with --calibration where int8-static needs them"
            )
    data = load_text_data(
        source, columns, "calibration", label_names=classifier.label_names, needs_labels=False
    )
    return data.sample(count, seed)


def texts_to_fit(
    classifier: Classifier,
    others: TextData,
    data_source: str | None,
    source: str | None,
    config: ExportConfig,
    context: Context,
) -> TextData:
    """Return the texts that int8 is fitted to; the others for precisions that are not.

    The texts of the proof may be test texts, so that those that the model was made with come first.

    Args:
        others: of the proof's source, not in the proof.
        data_source: of the proof's texts; None where they are those that the model was made with.
        source: None takes the default.
    """
    is_static = config.precision == "int8-static"
    if not is_static and (config.precision != "int8" or config.rounding == "nearest"):
        return others
    if source is None and not is_static:
        recorded = _recorded(classifier)
        if data_source is None or recorded is None or not Path(recorded[0]).is_file():
            return others
    data = texts_of(classifier, source, context.columns, config.quantization_examples, context.run.seed)
    log_notes(data, context.progress)
    return data


def _recorded(classifier: Classifier) -> tuple[str, ColumnsConfig] | None:
    """Source and columns of the texts that a classifier was made with, as its record says."""
    record = stage_record(classifier.source)
    # The runs of a soup record the fingerprint of their data alone.
    if record is None or isinstance(record["data"], str):
        return None
    return str(record["data"]["source"]), ColumnsConfig(**record["data"]["columns"])


def other_texts(
    classifier: Classifier, data: TextData, data_source: str | None, context: Context
) -> TextData:
    """Return as many texts as the proof has that are not in it; the proof's own where there are too few.

    Args:
        data: texts of the proof, drawn from `data_source`.
    """
    drawn = texts_of(classifier, data_source, context.columns, 2 * len(data), context.run.seed)
    places = places_of_others(drawn, data)
    return drawn.select(places[: len(data)]) if len(places) >= FEWEST_OTHERS else data


def places_of_others(drawn: TextData, data: TextData) -> list[int]:
    """Return the places of the examples that are not in `data`: no pair of it, or none of its texts.

    Pairs are compared with pairs; where only one side has them, each text with each.
    """
    examples = list(_examples(drawn))
    if (drawn.pairs is None) == (data.pairs is None):
        pairs = set(_examples(data))
        return [place for place, example in enumerate(examples) if example not in pairs]
    texts = {text for example in _examples(data) for text in example}
    return [place for place, example in enumerate(examples) if texts.isdisjoint(example)]


def _examples(data: TextData) -> Iterable[tuple[str, ...]]:
    return zip(data.texts, strict=True) if data.pairs is None else zip(data.texts, data.pairs, strict=True)
