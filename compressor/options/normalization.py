"""Options of text normalization."""

from __future__ import annotations

from pydantic import Field

from compressor.options.section import Section


class NormalizationConfig(Section):
    """Text normalization."""

    normalize_text: bool = Field(
        False,
        description="Put a text normalizer in front of the tokenizer's own one, in tokenizer.json, so that "
        "all programs that load it have it. Invisible characters go, and characters that look like ASCII "
        "become it where they are not part of a text in another script. ASCII texts stay as they are.",
    )
