"""Keep what a search found: its record, and the front of accuracy over speed as a picture.

    python -m benchmarks.search_front SEARCH [--output benchmarks/results/search_front.json]

SEARCH is the output of `compress search`, or the folder `search` of a run that searches.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.results_file import RESULTS, write_result
from compressor.search.plots import search_picture
from compressor.search.record import read_search
from compressor.search.report import search_markdown


def main(
    search: Annotated[Path, typer.Argument(help="Directory that a search wrote.")],
    output: Annotated[Path, typer.Option(help="File of the result; the picture is beside it.")] = RESULTS
    / "search_front.json",
) -> None:
    """Keep what a search found."""
    record = read_search(search)
    write_result(output, record.model_dump(mode="json", exclude={"path"}))
    output.with_suffix(".svg").write_text(search_picture(record, "latency"), encoding="utf-8")
    print(search_markdown(record))


if __name__ == "__main__":
    typer.run(main)
