"""Texts that an export works with: those of its proof, and those that its options name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from compressor.data.texts import TextData, load_text_data
from compressor.errors import UserError
from compressor.models.classifier import Classifier
from compressor.options import ColumnsConfig
from compressor.system.context import Context
from exporters.lineage import stage_record

# Of texts by which weights are ranked.
FEWEST_OTHERS = 16


@dataclass(frozen=True)
class ExportTexts:
    """Sources of texts beside those of the proof: files or hub ids.

    Attributes:
        calibration: int8 is fitted to them; None takes texts of the proof's source that are not in the
            proof, and for int8-static those that the model was made with.
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
        record = stage_record(classifier.source)
        # The runs of a soup record the fingerprint of their data alone.
        if record is None or isinstance(record["data"], str):
            raise UserError(
                f"{classifier.source}: no record of the data it was made with; give real texts with "
                f"--data, and with --calibration where int8-static needs them"
            )
        source = str(record["data"]["source"])
        columns = ColumnsConfig(**record["data"]["columns"])
        if Path(source).is_absolute() and not Path(source).is_file():
            raise UserError(
                f"{source}: no such file, though {classifier.source} was made with it; give real texts with "
                f"--data, and with --calibration where int8-static needs them"
            )
    data = load_text_data(
        source, columns, "calibration", label_names=classifier.label_names, needs_labels=False
    )
    return data.sample(count, seed)


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
