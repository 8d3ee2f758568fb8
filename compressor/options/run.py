"""Options of where a command runs and how its texts are read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from compressor.options.label_map import LabelMap
from compressor.options.section import Section

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
    """Where and how a command runs."""

    device: DeviceName = Field("auto", description="Where models run; auto takes CUDA if it is there.")
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of everything that is drawn.")
    threads: int = Field(
        0, ge=0, le=1024, description="Processor threads of PyTorch and ONNX Runtime; 0 takes all cores."
    )


class ColumnsConfig(Section):
    """How texts are read from a data set."""

    text_column: str | None = Field(None, description="Column of the text; found by convention if not given.")
    text_pair_column: str | None = Field(
        None, description="Column of the second text of a pair; found by convention if not given."
    )
    label_column: str | None = Field(
        None, description="Column of the label, a number or a name; found by convention if not given."
    )
    encoding: Annotated[str, AfterValidator(_text_encoding)] = Field(
        "auto",
        description="Encoding of csv, tsv and json files, such as cp1252; auto is UTF-8, or what a mark at "
        "the file's start says.",
    )
    delimiter: DelimiterName = Field(
        "auto",
        description="What separates the fields of a csv file; auto is a comma, or what sep= says there.",
    )
    label_map: LabelMap = Field(
        None,
        description="Class of each label of the data, where names and indices do not tell: LABEL=CLASS, with "
        "commas between them, or a JSON file of an object; a recipe may have a mapping. In training it "
        "renames labels.",
    )
    max_length: int = Field(
        128,
        ge=4,
        le=MOST_TOKENS,
        description="Longest input in tokens; longer ones are cut. The model must take so many.",
    )


class TestTextsConfig(Section):
    """What is tested on."""

    allow_test_texts: bool = Field(
        False,
        description="Let models be made with test texts, whose number is then in the report; by default they "
        "are refused, since figures on them say little about new texts.",
    )


class DataConfig(ColumnsConfig, TestTextsConfig):
    """The data of a whole run."""

    train: str | None = Field(None, description="Texts to fine-tune on: file or hub id.")
    calibration: str = Field(description="Texts to prune with: file or hub id; never the test data.")
    test: str = Field(description="Labelled texts that nothing was trained or chosen on: file or hub id.")
