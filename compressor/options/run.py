"""Options of where a command runs and how its texts are read."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from compressor.options.section import Section

# No BERT has more positions; a model that has fewer is refused with its own number.
MOST_TOKENS = 65536

DeviceName = Literal["auto", "cpu", "cuda"]


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
    max_length: int = Field(
        128,
        ge=4,
        le=MOST_TOKENS,
        description="Longest input in tokens; longer ones are cut. The model must take so many.",
    )


class DataConfig(ColumnsConfig):
    """The data of a whole run."""

    train: str | None = Field(None, description="Texts to fine-tune on: file or hub id.")
    calibration: str = Field(description="Texts to prune with: file or hub id; never the test data.")
    test: str = Field(description="Labelled texts that nothing was trained or chosen on: file or hub id.")
