"""Tables as text for stdout."""

from __future__ import annotations

from typing import Any

from rich.console import Console, RenderableType
from rich.segment import Segment, Segments
from rich.text import Text

from compressor.system.terminal import printable


class _PlainStrings(Console):
    """A console that takes strings as they are: what people named has brackets that are no markup."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options | {"markup": False, "emoji": False})


def render(value: RenderableType) -> str:
    """What rich makes of `value` for stdout, without the last line break.

    Control characters of cells, as labels, paths and texts may have them, are written as escapes.
    """
    console = _PlainStrings()
    segments = [
        segment if segment.control else Segment(printable(segment.text), segment.style)
        for segment in console.render(value)
    ]
    with console.capture() as captured:
        console.print(Segments(segments), end="", crop=False)
    return captured.get().removesuffix("\n")
