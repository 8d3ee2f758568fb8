"""Options of the device, the seed and the data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from compressor.options.label_map import LabelMap
from compressor.options.section import Common, Section

# No BERT has more positions; a model that has fewer is refused with its own number.
MOST_TOKENS = 65536

DeviceName = Literal["auto", "cpu", "cuda"]
DelimiterName = Literal["auto", "comma", "semicolon", "tab", "pipe"]
# Python counts them as encodings of text, but they are escapes and names of hosts.
NO_FILE_ENCODINGS = ("unicode_escape", "raw_unicode_escape", "idna", "punycode", "undefined")


def _text_encoding(name: str) -> str:
    """Check that Python reads text in that encoding."""
    try:
        "".encode(name)
        known = name.lower().replace("-", "_") not in NO_FILE_ENCODINGS
    except (LookupError, ValueError):  # UnicodeError is a ValueError
        known = False
    if not known and name != "auto":
        raise ValueError("must be auto or an encoding that Python knows, such as utf-8, cp1252 or latin-1")
    return name


class RunConfig(Section):
    """Device, seed and threads."""

    device: Annotated[DeviceName, Common()] = Field(
        "auto", description="Device of the models; auto uses CUDA if available."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of all random numbers.")
    threads: int = Field(
        0, ge=0, le=1024, description="Number of CPU threads of PyTorch and ONNX Runtime; 0 uses all cores."
    )


class ColumnsConfig(Section):
    """Reading of data sets."""

    text_column: Annotated[str | None, Common()] = Field(
        None, description="Column of the text; by default found by its usual names."
    )
    text_pair_column: str | None = Field(
        None, description="Column of the second text of a pair; by default found by its usual names."
    )
    label_column: Annotated[str | None, Common()] = Field(
        None, description="Column of the label, a number or a name; by default found by its usual names."
    )
    encoding: Annotated[str, AfterValidator(_text_encoding)] = Field(
        "auto",
        description="Encoding of csv, tsv and json files, such as cp1252; auto is UTF-8, or the encoding "
        "of the byte order mark.",
    )
    delimiter: DelimiterName = Field(
        "auto",
        description="Delimiter of a csv file; auto is a comma, or the one in the file's sep= line.",
    )
    label_map: LabelMap = Field(
        None,
        description="Class of each label of the data, if neither names nor indices match: LABEL=CLASS, "
        "separated by commas, or a JSON file with one object; a recipe also accepts a mapping. In training "
        "it renames labels.",
    )
    max_length: Annotated[int, Common()] = Field(
        128,
        ge=4,
        le=MOST_TOKENS,
        description="Maximum input length in tokens; longer inputs are truncated. The model must have as "
        "many positions.",
    )


class TestTextsConfig(Section):
    """Test texts."""

    allow_test_texts: bool = Field(
        False,
        description="Allow training, calibration and vocabulary texts that are also test texts, and report "
        "their number. By default they are an error, because metrics on them do not generalize.",
    )


class DataConfig(ColumnsConfig, TestTextsConfig):
    """The data of a whole run."""

    train: str | None = Field(None, description="Texts for fine-tuning: file or hub id.")
    calibration: str = Field(description="Texts for pruning: file or hub id; never the test data.")
    selection: str | None = Field(
        None,
        description="Labelled texts by which a search compares its candidates, none of them a test text: "
        "file or hub id.",
    )
    vocabulary: str | None = Field(
        None,
        description="Texts whose pieces of the vocabulary the export keeps: file or hub id; by default it "
        "keeps all.",
    )
    reference: str | None = Field(
        None,
        description="Texts whose token ids and logits go into the artifact, so that other hosts can be "
        "checked: the first 32 of a file or hub id; by default made texts.",
    )
    test: str = Field(description="Labelled texts that are used for nothing but testing: file or hub id.")
