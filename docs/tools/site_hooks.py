"""Hooks of the documentation site: equations become MathML, files outside `docs/` join the site.

Equations are rendered when the site is built, so that a page needs no script and no font of another server.
"""

from __future__ import annotations

import html
import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Files outside docs/ that pages link to, as they are named from the root.
OUTSIDE = ("benchmarks/README.md", "benchmarks/results/*.svg", "deploy/recipes/*.yaml")

EQUATION = re.compile(
    r'<(span|div) class="arithmatex">\s*(?:\\\(|\\\[)(?P<latex>.*?)(?:\\\)|\\\])\s*</\1>', re.DOTALL
)
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)(?P<target>[^)\s#]+)")


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Add the files outside `docs/` to the site, under the same paths as in the repository."""
    from mkdocs.structure.files import File

    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite the links of a page that lead in or out of `docs/`."""
    return site_links(markdown, page.file.src_uri)


def on_page_content(content: str, **_: Any) -> str:
    """Replace the equations of a page by MathML."""
    from latex2mathml.converter import convert

    return with_mathml(content, convert)


def site_links(markdown: str, page: str) -> str:
    """Return the page with links that hold in the site, where `docs/` is the root.

    Args:
        markdown: text of the page, with links as they hold in the repository.
        page: its path in the site, such as `how-to/ci.md` or `benchmarks/README.md`.
    """
    outside = page.startswith("benchmarks/")
    folder = posixpath.dirname(page if outside else f"docs/{page}")

    def rewritten(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match["target"]))
        in_site = target.removeprefix("docs/")
        return posixpath.relpath(in_site, posixpath.dirname(page) or ".")

    return LINK.sub(rewritten, markdown)


def with_mathml(page: str, convert: Callable[..., str]) -> str:
    """Return the HTML with each equation converted from LaTeX to MathML.

    Args:
        page: HTML in which equations are `\\(...\\)` or `\\[...\\]` within elements of class `arithmatex`.
        convert: function of the LaTeX text and `display="inline"` or `"block"`.

    Raises:
        ValueError: LaTeX that the converter leaves as text.
    """

    def converted(match: re.Match[str]) -> str:
        latex = html.unescape(match["latex"]).strip()
        mathml = convert(latex, display="inline" if match[1] == "span" else "block")
        if "\\" in mathml:
            raise ValueError(f"{latex}: has a command that cannot be converted to MathML")
        return mathml

    return EQUATION.sub(converted, page)
